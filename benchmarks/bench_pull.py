"""P8: what it takes to pull a model, beside MLflow's own download, in one run.

    python benchmarks/bench_pull.py [--runs 2] [--server seaweed|moto]
                                    [--small 2000] [--large-mib 1024]

An S3 artifact root with 2,000 small files and one with a file of 1 GiB, read from a server on
loopback by ``pull_model`` and by ``mlflow.artifacts.download_artifacts``, in turn. Each way starts
in a process of its own with an empty cache; imports are in neither's time, the listing is in both.
Prints a table in Markdown and one line of JSON. It never
fails on a time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.servers.object_servers import (
    ACCESS_KEY,
    SECRET_KEY,
    SHARED_BUCKET,
    S3Server,
    running_moto,
    running_seaweed,
)

ROOT = Path(__file__).resolve().parents[1]
SMALL_BYTES = 4096
OURS = """
import json, sys, time
from pathlib import Path
from tests.artifacts.test_artifacts import model_at
from dataclasses import replace
from adroit_publish.artifacts.pull import open_root, pull_model
import boto3
began = time.monotonic()
model = model_at(sys.argv[1])
model = replace(model, files=open_root(model.artifact_uri).list_files())
pull_model(model, Path(sys.argv[2]))
print(json.dumps(time.monotonic() - began))
"""
MLFLOW = """
import json, sys, time
import mlflow, boto3
from mlflow.artifacts import download_artifacts
import mlflow.store.artifact.s3_artifact_repo
began = time.monotonic()
download_artifacts(artifact_uri=sys.argv[1], dst_path=sys.argv[2])
print(json.dumps(time.monotonic() - began))
"""


def main() -> None:
    """Measures, and prints what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--server", choices=["seaweed", "moto"], default="seaweed")
    parser.add_argument("--small", type=int, default=2000, help="how many small files")
    parser.add_argument("--large-mib", type=int, default=1024)
    wanted = parser.parse_args()
    running = {"seaweed": running_seaweed, "moto": running_moto}[wanted.server]
    with running() as server:
        places = {
            f"{wanted.small:,} files of 4 KiB": _put(server, "small", [SMALL_BYTES] * wanted.small),
            f"one file of {wanted.large_mib:,} MiB": _put(
                server, "large", [wanted.large_mib << 20]
            ),
        }
        seconds: dict[str, dict[str, list[float]]] = {
            place: {"adroit": [], "mlflow": []} for place in places
        }
        for _ in range(wanted.runs):
            for place, uri in places.items():
                for way, code in (("adroit", OURS), ("mlflow", MLFLOW)):
                    seconds[place][way].append(_timed(code, uri, server.endpoint))
    _report(seconds, wanted.server)


def _put(server: S3Server, name: str, sizes: list[int]) -> str:
    """Puts a model of files of these sizes into the bucket and returns its address."""
    from boto3.s3.transfer import TransferConfig

    client = server.client()
    block = os.urandom(1 << 20)
    with tempfile.NamedTemporaryFile() as file:
        for number, size_bytes in enumerate(sizes):
            file.seek(0)
            for at in range(0, size_bytes, len(block)):
                file.write(block[: size_bytes - at])
            file.truncate(size_bytes)
            file.flush()
            key = f"{name}/d{number % 20}/f{number}"
            client.upload_file(
                file.name, SHARED_BUCKET, key, Config=TransferConfig(multipart_chunksize=64 << 20)
            )
    client.put_object(Bucket=SHARED_BUCKET, Key=f"{name}/MLmodel", Body=b"flavors: {}\n")
    return f"s3://{SHARED_BUCKET}/{name}"


def _timed(code: str, uri: str, endpoint: str) -> float:
    environment = os.environ | {
        "AWS_ENDPOINT_URL_S3": endpoint,
        "MLFLOW_S3_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "PYTHONPATH": str(ROOT),
    }
    with tempfile.TemporaryDirectory() as directory:
        done = subprocess.run(
            [sys.executable, "-c", code, uri, f"{directory}/out"],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    return float(json.loads(done.stdout.splitlines()[-1]))


def _report(seconds: dict[str, dict[str, list[float]]], server: str) -> None:
    median: Callable[[list[float]], float] = statistics.median
    result: dict[str, Any] = {"server": server}
    lines = ["| what | adroit, s | mlflow, s | ratio |", "|---|---|---|---|"]
    for place, ways in seconds.items():
        ours, theirs = median(ways["adroit"]), median(ways["mlflow"])
        lines.append(f"| {place} | {ours:.2f} | {theirs:.2f} | {theirs / ours:.1f} |")
        result[place] = {**ways, "ratio": theirs / ours}
    table = "\n".join(lines)
    print(f"From {server}:\n\n{table}\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
