"""Real scoring servers on free ports: ours from a bundle's directory, and MLflow's own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PATIENCE_S = 60


@dataclass(frozen=True)
class Reply:
    """An HTTP answer: status, headers with lower-case names, body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


def ask(
    url: str, body: bytes | str | None = None, headers: Mapping[str, str] | None = None
) -> Reply:
    """Returns the answer to a GET, or to a POST where there is a body; of any status."""
    data = body.encode() if isinstance(body, str) else body
    request = urllib.request.Request(url, data, dict(headers or {}))
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=_PATIENCE_S) as answer:
            return Reply(answer.status, _lower(answer.headers), answer.read())
    except urllib.error.HTTPError as error:
        return Reply(error.code, _lower(error.headers), error.read())


class LiveServer:
    """A running process of ours: its address, and every line it logs.

    Args:
        process: Its standard error is a pipe, and nobody else's.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []
        self.raw: list[str] = []
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def url(self) -> str:
        """Its address, once it is ready; fails where it ended before."""
        assert self._ready.wait(_PATIENCE_S), "not ready in time"
        ready = self.events("ready")
        assert ready, "".join(self.raw)
        return f"http://127.0.0.1:{ready[0]['port']}"

    def events(self, message: str) -> list[dict[str, Any]]:
        """Returns what was logged under ``message`` so far."""
        return [line for line in self.lines if line["message"] == message]

    def terminate(self) -> None:
        """Sends SIGTERM."""
        self.process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """Returns its exit code, once it has ended and its log is read."""
        code = self.process.wait(_PATIENCE_S)
        self._reader.join(_PATIENCE_S)
        return code

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self.raw.append(line)
            try:
                self.lines.append(json.loads(line))
            except ValueError:
                continue
            if self.lines[-1]["message"] == "ready":
                self._ready.set()
        self._ready.set()


@contextmanager
def serving(
    root: Path, *arguments: str, environ: Mapping[str, str] | None = None
) -> Iterator[LiveServer]:
    """Runs the bundle in ``root`` by its own runtime; ended at the end, if it has not."""
    python = [sys.executable, "-m", "adroit.serving"]
    place = ["--root", str(root), "--host", "127.0.0.1", "--port", "0"]
    own = {"PYTHONPATH": str(root / "runtime"), "PYTHONSAFEPATH": "1"}
    with started([*python, *place, *arguments], environ=own | dict(environ or {})) as server:
        yield server


@contextmanager
def started(
    command: Sequence[str], *, environ: Mapping[str, str], cwd: Path | None = None
) -> Iterator[LiveServer]:
    """Runs a command that ends up serving, and gives what it logs."""
    process = subprocess.Popen(
        command,
        env={**os.environ, **environ},
        cwd=cwd,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    server = LiveServer(process)
    try:
        yield server
    finally:
        process.send_signal(signal.SIGINT)  # a command that is killed would leave its server
        with suppress(subprocess.TimeoutExpired):
            process.wait(_PATIENCE_S)  # an orphan would go on answering
        process.kill()
        server.wait()


@contextmanager
def mlflow_serving(model: Path, workers: int = 1) -> Iterator[str]:
    """Runs ``mlflow models serve`` for a model directory and gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"]
    process = subprocess.Popen(
        [*command, "-m", str(model), "--port", str(port), "--workers", str(workers)],
        cwd=model.parent,  # where it makes a tracking database of its own
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stderr
        said = []
        for line in process.stderr:
            said.append(line)
            if "running on" in line:
                break
        else:
            raise AssertionError("".join(said))
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
