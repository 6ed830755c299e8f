"""Tracking stores for tests: real ones to publish from, and a hostile one.

A test module with ``pytest_plugins = ["tests.servers.mlflow_servers"]`` has the fixture
``proxied_server``: the address of one real server for the whole session. ``mlflow_server`` runs
`mlflow server` on a free port of loopback, artifacts proxied. ``log_model`` writes a tiny real
pyfunc model to any store. ``HostileServer`` speaks just enough of MLflow's REST API to lie with it.
"""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import requests

START_TIMEOUT_S = 90
RUN_ID = "0123456789abcdef0123456789abcdef"
MODEL_ID = "m-fedcba9876543210fedcba9876543210"


@pytest.fixture(scope="session")
def proxied_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real tracking server with proxied artifacts, shared by all tests."""
    with mlflow_server(tmp_path_factory.mktemp("mlflow-server")) as url:
        yield url


@contextmanager
def mlflow_server(directory: Path, *arguments: str, **environment: str) -> Iterator[str]:
    """Runs a real tracking server with proxied artifacts and yields its address.

    Args:
        directory: Where it keeps its database and artifacts.
        *arguments: Further arguments of ``mlflow server``.
        **environment: Further environment variables.
    """
    port = free_port()
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
        *("--workers", "1", "--backend-store-uri", f"sqlite:///{directory}/server.db"),
        *("--artifacts-destination", str(directory / "artifacts"), *arguments),
    ]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (directory / "server.log").open("wb") as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=log, env=os.environ | quiet | environment, cwd=directory
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_healthy(url, server, directory / "server.log")
        yield url
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def free_port() -> int:
    """Returns a port of loopback that nothing listens on."""
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait_until_healthy(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if requests.get(f"{url}/health", timeout=2).ok:
                return
        except requests.RequestException:
            time.sleep(0.1)
    raise RuntimeError(f"mlflow server did not start:\n{log.read_text()[-2000:]}")


def log_model(tracking_uri: str, artifact_root: Path | None, *names: str) -> tuple[str, list[str]]:
    """Logs the same tiny pyfunc model under each name to one new run.

    Args:
        tracking_uri: Any tracking store.
        artifact_root: Where the experiment keeps its artifacts; None for the server's default.
        *names: The names, in order; one may occur twice.

    Returns:
        The run id, and the models' ids in the order of ``names``.
    """
    import mlflow
    import mlflow.pyfunc

    class Echo(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
            return model_input

    before = mlflow.get_tracking_uri() if mlflow.tracking.is_tracking_uri_set() else None
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    mlflow.set_tracking_uri(tracking_uri)
    client = mlflow.MlflowClient(tracking_uri)
    name = f"tests-{time.monotonic_ns()}"
    location = artifact_root.as_uri() if artifact_root else None
    experiment = client.create_experiment(name, artifact_location=location)
    with mlflow.start_run(experiment_id=experiment, run_name="tiny") as run:
        ids = [
            mlflow.pyfunc.log_model(name=name, python_model=Echo(), pip_requirements=[]).model_id
            for name in names
        ]
        mlflow.log_metric("accuracy", 0.75)
    mlflow.set_tracking_uri(before)
    del os.environ["MLFLOW_ALLOW_FILE_STORE"]
    return run.info.run_id, ids


@dataclass
class HostileServer:
    """A tracking server of one run and one model, whose every answer a test may replace.

    Attributes:
        location: What it states as the model's artifact location.
        files: Path -> bytes, served by the artifact proxy.
        listed: Path -> stated size, where that differs from ``files``; adds files too.
        replies: Called first with the request's path and its handler; True means: answered.
        requests: Every request's path and headers, in order.
        tls: What makes it a server over https; None for http.
    """

    location: str = "mlflow-artifacts:/0/models/artifacts"
    files: dict[str, bytes] = field(default_factory=lambda: {"MLmodel": b"flavors: {}\n"})
    listed: dict[str, Any] = field(default_factory=dict)
    replies: Callable[[str, BaseHTTPRequestHandler], bool] = lambda path, handler: False
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    tls: ssl.SSLContext | None = None
    url: str = ""

    def answer(self, path: str, query: dict[str, list[str]]) -> dict[str, Any] | bytes | None:
        api = path.partition("/mlflow")[2]
        if api == "/runs/get":
            info = {"run_id": RUN_ID, "run_uuid": RUN_ID, "experiment_id": "0", "run_name": "odd"}
            info |= {"status": "FINISHED", "lifecycle_stage": "active", "artifact_uri": "odd:/"}
            outputs = {"model_outputs": [{"model_id": MODEL_ID, "step": 0}]}
            return {"run": {"info": info, "data": {}, "outputs": outputs}}
        if api.startswith("/logged-models/"):
            info = {"model_id": MODEL_ID, "name": "model", "status": "LOGGED_MODEL_READY"}
            info |= {"artifact_uri": self.location, "experiment_id": "0"}
            info |= {"creation_timestamp_ms": 1, "last_updated_timestamp_ms": 1}
            return {"model": {"info": info, "data": {}}}
        if api == "-artifacts/artifacts":
            return {"files": self._listing(query["path"][0])}
        name = unquote(path.partition("/artifacts/0/models/artifacts/")[2])
        return self.files.get(name)

    def _listing(self, folder: str) -> list[dict[str, Any]]:
        below = folder.removeprefix("0/models/artifacts").strip("/")
        sizes = {name: len(data) for name, data in self.files.items()} | self.listed
        entries: dict[str, dict[str, Any]] = {}
        for name, size in sizes.items():
            inside = name.removeprefix(below + "/") if below else name
            if below and inside == name:
                continue
            first, slash, _ = inside.partition("/")
            entries[first] = {"path": first, "is_dir": bool(slash)}
            if not slash:
                entries[first]["file_size"] = size
        return list(entries.values())

    @contextmanager
    def running(self) -> Iterator[HostileServer]:
        """Serves on a free port of loopback for as long as the block runs."""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # head and body in one packet: else each answer costs 40 ms

            def do_GET(self) -> None:
                outer.requests.append((self.path, dict(self.headers)))
                if outer.replies(self.path, self):
                    return
                address = urlsplit(self.path)
                found = outer.answer(address.path, parse_qs(address.query))
                if found is None:
                    send(self, 404, b'{"error_code": "RESOURCE_DOES_NOT_EXIST"}')
                elif isinstance(found, bytes):
                    send(self, 200, found, "application/octet-stream")
                else:
                    send(self, 200, json.dumps(found).encode())

            def log_message(self, format: str, *args: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if self.tls:
            server.socket = self.tls.wrap_socket(server.socket, server_side=True)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        self.url = f"{'https' if self.tls else 'http'}://127.0.0.1:{server.server_port}"
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


def send(
    handler: BaseHTTPRequestHandler,
    status: int,
    data: bytes,
    kind: str = "application/json",
    **headers: str,
) -> None:
    """Answers a request with a body of a stated length and further headers."""
    handler.send_response(status)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(len(data)))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(data)
