"""P11: /invocations of our server and of ``mlflow models serve``, for the same model in one run.

    python benchmarks/bench_serving.py [--rounds 3] [--seconds 5] [--workers 1]
                                       [--connections 1,8,64] [--rows 1,1000]

The example project's model, logged as its flow logs it; a request is that many rows of its input
example (10 columns, ``dataframe_split``). wrk asks each server in turn, over and over; the medians
of the rounds count. ``pyfunc.predict`` of the same rows in a loop of this process is what a worker
could do without a server. Our server is asked as it is, and with ``serve.batch``. BentoML is a peer
where ADROIT_BENCH_BENTOML names an interpreter that has it, mlflow and what the model needs. Prints
a table in Markdown and one line of JSON. All servers have the same number of processes that
predict, on this machine's cores, which wrk shares.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.servers.live_servers import ask, mlflow_serving, serving
from tests.support.serving_bundles import bundle

OURS, BATCHED, THEIRS = "adroit.serving", "adroit.serving, batches", "mlflow models serve"
BENTOML = "BentoML"
BENTOML_SERVICE = """
import bentoml, mlflow.pyfunc, pandas

@bentoml.service(workers={workers}, traffic={{"timeout": 60, "concurrency": 4096}})
class Model:
    def __init__(self):
        self.model = mlflow.pyfunc.load_model({model!r})

    @bentoml.api(route="/invocations")
    def invocations(self, dataframe_split: dict) -> dict:
        answers = self.model.predict(pandas.DataFrame(**dataframe_split))
        frame = hasattr(answers, "to_dict")
        return {{"predictions": answers.to_dict("records") if frame else answers.tolist()}}
"""
UNITS_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0}
SCRIPT = """
wrk.method = "POST"
wrk.body = io.open("%s"):read("*a")
wrk.headers["Content-Type"] = "application/json"
"""


class Measured(NamedTuple):
    """What one server did under one load: the medians of the rounds."""

    server: str
    rows: int
    connections: int
    requests_per_s: float
    p50_ms: float
    p99_ms: float


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--connections", type=_numbers, default=[1, 8, 64])
    parser.add_argument("--rows", type=_numbers, default=[1, 1000])
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("bench_serving: wrk is not installed (a Debian package)")
    with tempfile.TemporaryDirectory() as name:
        limits, measured = measure(Path(name), options)
    _print(measured, limits, options.workers)


def _print(measured: list[Measured], limits: Mapping[int, float], workers: int) -> None:
    """Prints one row a server and load, with its share of the limit and of the best peer."""
    print(
        "| server | rows | connections | requests/s | of the loop | of the best peer | p50, ms "
        "| p99, ms | p99 of its peer |\n|---|---|---|---|---|---|---|---|---|"
    )
    for row in measured:
        peers = [other for other in measured if other.server not in (OURS, BATCHED)]
        alike = [peer for peer in peers if peer[1:3] == row[1:3]]
        best = max(alike, key=lambda peer: peer.requests_per_s)
        figures = (
            f"{row.requests_per_s:.0f} | {row.requests_per_s / (limits[row.rows] * workers):.2f} | "
            f"{row.requests_per_s / best.requests_per_s:.2f} | {row.p50_ms:.1f} | "
            f"{row.p99_ms:.1f} | {row.p99_ms / best.p99_ms:.2f}"
        )
        print(f"| {row.server} | {row.rows} | {row.connections} | {figures} |")
    print(json.dumps({"P11": [row._asdict() for row in measured], "pyfunc.predict": limits}))


def measure(scratch: Path, options: argparse.Namespace) -> tuple[dict[int, float], list[Measured]]:
    """Returns predictions/s of a loop by rows, and the medians of all servers under each load."""
    model = trained_model(scratch)
    payloads = {rows: _payload(scratch, model, rows) for rows in options.rows}
    limits = {rows: loop_rate(model, payload) for rows, payload in payloads.items()}
    batch = {"batch": {"max_rows": 64, "max_wait_ms": 2}}
    plain, batching = (bundle(scratch / name, model, serve=serve) for name, serve in
                       (("plain", {}), ("batching", batch)))  # fmt: skip
    measured = []
    environ = {"ADROIT_WORKERS": str(options.workers), "ADROIT_LOG_PERCENT": "0.001"}
    with (
        serving(plain, environ=environ) as ours,
        serving(batching, environ=environ) as batched,
        mlflow_serving(model, workers=options.workers) as theirs,
        bentoml_serving(scratch, model, options.workers) as bentoml,
    ):
        urls = {OURS: ours.url, BATCHED: batched.url, THEIRS: theirs, **bentoml}
        for rows, payload in payloads.items():
            answers = {_asked(url, payload) for url in urls.values()}
            assert len(answers) == 1, "the servers disagree"
            script = scratch / f"post-{rows}.lua"
            script.write_text(SCRIPT % payload)
            for connections in options.connections:
                seen = rounds_of(urls, script, connections, options.rounds, options.seconds)
                for name, figures in seen.items():
                    medians = [statistics.median(column) for column in zip(*figures, strict=True)]
                    measured.append(Measured(name, rows, connections, *medians))
    return limits, measured


@contextmanager
def bentoml_serving(scratch: Path, model: Path, workers: int) -> Iterator[dict[str, str]]:
    """Runs the model under BentoML, and gives its name and address; nothing where it is not."""
    python = os.environ.get("ADROIT_BENCH_BENTOML")
    if not python:
        print("bench_serving: no BentoML: ADROIT_BENCH_BENTOML names no interpreter")
        yield {}
        return
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    service = BENTOML_SERVICE.format(workers=workers, model=str(model))
    (scratch / "bento_service.py").write_text(service)
    command = [python, "-m", "bentoml", "serve", "bento_service:Model", "--host", "127.0.0.1"]
    process = subprocess.Popen(
        [*command, "--port", str(port)],
        cwd=scratch,
        env={**os.environ, "BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": str(scratch / "bento")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        give_up = time.monotonic() + 120
        while not _is_ready(f"http://127.0.0.1:{port}/readyz"):
            assert process.poll() is None, "BentoML ended"
            assert time.monotonic() < give_up, "BentoML is not ready"
            time.sleep(0.2)
        yield {BENTOML: f"http://127.0.0.1:{port}"}
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _is_ready(url: str) -> bool:
    try:
        return ask(url).status == 200
    except OSError:
        return False


def loop_rate(model: Path, payload: Path, seconds: float = 2.0) -> float:
    """Returns how often a second ``pyfunc.predict`` answers the rows of a request."""
    import mlflow.pyfunc
    import pandas as pd

    split = json.loads(payload.read_text())["dataframe_split"]
    frame, loaded = pd.DataFrame(**split), mlflow.pyfunc.load_model(str(model))
    loaded.predict(frame)
    started, count = time.monotonic(), 0
    while time.monotonic() - started < seconds:
        loaded.predict(frame)
        count += 1
    return count / (time.monotonic() - started)


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


def _payload(scratch: Path, model: Path, rows: int) -> Path:
    """Returns a file with a request of so many rows, those of the input example over and over."""
    split = json.loads((model / "serving_input_example.json").read_text())["dataframe_split"]
    data = [split["data"][row % len(split["data"])] for row in range(rows)]
    file = scratch / f"request-{rows}.json"
    file.write_text(json.dumps({"dataframe_split": {"columns": split["columns"], "data": data}}))
    return file


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _asked(url: str, payload: Path) -> str:
    """Returns the predictions, in one spelling of JSON."""
    reply = ask(f"{url}/invocations", payload.read_bytes(), {"content-type": "application/json"})
    assert reply.status == 200, reply.body
    return json.dumps(reply.json)


def _percentile(said: str, percent: int) -> float:
    found = re.search(rf"^\s+{percent}%\s+([\d.]+)(us|ms|s)$", said, re.MULTILINE)
    assert found, said
    return float(found[1]) * UNITS_MS[found[2]]


if __name__ == "__main__":
    main()
