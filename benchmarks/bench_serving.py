"""P11: /invocations of our server and of ``mlflow models serve``, for the same model in one run.

    python benchmarks/bench_serving.py [--rounds 3] [--seconds 5]

The example project's model, logged as its flow logs it; each request is its input example (3 rows,
10 columns, ``dataframe_split``). wrk asks each server in turn, over and over, with 1 and with 8
connections; the medians of the rounds count. Prints a table in Markdown and one line of JSON. Both
servers are one process on this machine's cores, which wrk shares.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.servers.live_servers import ask, mlflow_serving, serving
from tests.support.serving_bundles import bundle

CONNECTIONS = (1, 8)
UNITS_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0}
SCRIPT = """
wrk.method = "POST"
wrk.body = io.open("%s"):read("*a")
wrk.headers["Content-Type"] = "application/json"
"""


@dataclass(frozen=True)
class Measured:
    """What one server did under one load: the medians of the rounds."""

    server: str
    connections: int
    requests_per_s: float
    p50_ms: float
    p99_ms: float


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5)
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("bench_serving: wrk is not installed (a Debian package)")
    with tempfile.TemporaryDirectory() as name:
        rows = measure(Path(name), options.rounds, options.seconds)
    print("| server | connections | requests/s | p50, ms | p99, ms |\n|---|---|---|---|---|")
    for row in rows:
        numbers = f"{row.requests_per_s:.0f} | {row.p50_ms:.2f} | {row.p99_ms:.2f}"
        print(f"| {row.server} | {row.connections} | {numbers} |")
    for ours, theirs in zip(rows[::2], rows[1::2], strict=True):
        throughput, p99 = ours.requests_per_s / theirs.requests_per_s, ours.p99_ms / theirs.p99_ms
        said = f"throughput {throughput:.2f} (at least 1), p99 {p99:.2f} (at most 1)"
        print(f"P11, {ours.connections} connections, ours of theirs: {said}")
    print(json.dumps({"P11": [asdict(row) for row in rows]}))


def measure(scratch: Path, rounds: int, seconds: int) -> list[Measured]:
    """Returns the medians of both servers under each load."""
    model = trained_model(scratch)
    ours = bundle(scratch / "bundle", model)
    payload = model / "serving_input_example.json"
    script = scratch / "post.lua"
    script.write_text(SCRIPT % payload)
    rows = []
    with serving(ours) as server, mlflow_serving(model) as theirs:
        urls = {"adroit.serving": server.url, "mlflow models serve": theirs}
        answers = {_asked(url, payload) for url in urls.values()}
        assert len(answers) == 1, "the servers disagree"
        for connections in CONNECTIONS:
            seen = rounds_of(urls, script, connections, rounds, seconds)
            for name, figures in seen.items():
                medians = [statistics.median(column) for column in zip(*figures, strict=True)]
                rows.append(Measured(name, connections, *medians))
    return rows


def rounds_of(
    urls: Mapping[str, str], script: Path, connections: int, rounds: int, seconds: int
) -> dict[str, list[tuple[float, float, float]]]:
    """Returns (requests/s, p50 ms, p99 ms) of every round, by server; a first one warms up."""
    seen: dict[str, list[tuple[float, float, float]]] = {name: [] for name in urls}
    for number in range(rounds + 1):
        for name, url in urls.items():
            figures = wrk(url, script, connections, seconds if number else 1)
            if number:
                seen[name].append(figures)
    return seen


def wrk(url: str, script: Path, connections: int, seconds: int) -> tuple[float, float, float]:
    """Returns requests/s, p50 and p99 in milliseconds; fails where a request did."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script)]
    said = subprocess.run([*command, f"{url}/invocations"], capture_output=True, text=True).stdout
    assert "Non-2xx" not in said, said
    assert "Socket errors" not in said, said
    found = re.search(r"Requests/sec:\s+([\d.]+)", said)
    assert found, said
    return float(found[1]), _percentile(said, 50), _percentile(said, 99)


def trained_model(scratch: Path) -> Path:
    """Returns the directory of the example project's model, logged as its flow logs it."""
    import mlflow

    from adroit.training import NextdoorMLFlowRunPublisher
    from projects.example_metaflow.data_prep import load_tumours
    from projects.example_metaflow.flow import log_model, new_pipeline

    features, labels = load_tumours()
    store = f"sqlite:///{scratch}/mlflow.db"
    mlflow.set_tracking_uri(store)
    os.environ["ADROIT_EXPERIMENT"] = "bench"
    mlflow.create_experiment("bench", (scratch / "artifacts").as_uri())
    with NextdoorMLFlowRunPublisher("bench", tracking_uri=store) as publisher:
        pipeline = new_pipeline().fit(features, labels)
        log_model(publisher, pipeline, features.head(3), labels.head(3))
    return next((scratch / "artifacts").rglob("MLmodel")).parent


def _asked(url: str, payload: Path) -> bytes:
    reply = ask(f"{url}/invocations", payload.read_bytes(), {"content-type": "application/json"})
    assert reply.status == 200, reply.body
    return reply.body


def _percentile(said: str, percent: int) -> float:
    found = re.search(rf"^\s+{percent}%\s+([\d.]+)(us|ms|s)$", said, re.MULTILINE)
    assert found, said
    return float(found[1]) * UNITS_MS[found[2]]


if __name__ == "__main__":
    main()
