"""What runs next to a model, asks it as a client would, and reports what it saw.

    python -I -c SOURCE ROOT

This file is sent as text into the sandbox, or into a container of the image, and is the only thing
there that reports. It imports the standard library and what the conda env has, never a line of the
bundle. So it needs no ``adroit``, and runs under the Python of the env, from 3.10 on.

It is told ``{"nonce": "...", "model_env": {...}, "together": false}`` on standard input, or where a
container has none, in ADROIT_REPORTER. In order: list what is installed; start the server that an
image starts, as a process of its own; wait until it answers; send it the model's input example, as
MLflow kept it for that purpose, twice; end it. The model's process inherits no descriptor of this
one, nor the nonce, and cannot look into this process, which is marked as one whose memory and
descriptors no other may open. It can end itself or answer with anything, as it can where it is
served, and nothing else.

Standard output carries one JSON document:

    {"schema": 2, "nonce": "...", "python_version": "3.11.7", "packages": {"numpy": "2.1.0", ...},
     "import_names": ["json", ...], "asked": true, "start_seconds": 0.1 | null,
     "answer_seconds": 0.1 | null, "status": 200 | null,
     "outputs": JSON, "outputs_sha256": hex | null, "whole": true, "repeats": true,
     "together": {"alone": [JSON, ...], "others": [[JSON, JSON], ...]} | null,
     "problem": "..." | null, "ended": null | exit code, "peak_memory_bytes": 1}

``outputs`` are the ``predictions`` of the answer; where it has none, as a chat model's, the answer
itself. Not-a-number and the infinities are strings, because strict JSON has no such numbers.
``problem`` says why there is no answer. ``together`` is what each row of the example was answered
alone, and the other answers that came when many were asked at once.

Source: prctl(2), PR_SET_DUMPABLE; ptrace(2), "Ptrace access mode checking"; MLflow documentation,
"Local Inference Server Specification"; Protocol Buffers documentation, ProtoJSON format.
"""

from __future__ import annotations

import ctypes
import hashlib
import http.client
import json
import math
import os
import platform
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

SCHEMA = 2
WHOLE_BYTES = 8 << 20  # outputs up to here are reported whole
ROWS = 1000
ROWS_BYTES = 1 << 20
_ANSWER_BYTES = 256 << 20
_BODY_BYTES = 32 << 20  # what the server takes unless told otherwise
_SHOWN_CHARS = 2000
_PAUSE_S = 0.02
_CLIENTS, _QUESTIONS, _DIFFERENT = 16, 400, 10
_PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER = 4, 36
_REAP_S = 2.0


def main(root: Path) -> None:
    """Writes the report of the bundle in ``root``."""
    _hide()
    for name in ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM"):  # a model may send them
        signal.signal(getattr(signal, name), lambda *_: None)
    told = json.loads(os.environ.pop("ADROIT_REPORTER", "") or sys.stdin.read())
    report: dict[str, Any] = {"schema": SCHEMA, "nonce": told["nonce"], **_installed(root)}
    environ = {**os.environ, **told["model_env"]}
    report |= _observed(root, environ, together=told["together"])
    sys.stdout.write(json.dumps(report))
    sys.stdout.flush()


def _hide() -> None:
    """Keeps every process without capabilities out of this one's memory and descriptors."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0):
            raise SystemExit("this process cannot be hidden from the model's")
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # to know what the workers took


def _observed(root: Path, environ: dict[str, str], *, together: bool) -> dict[str, Any]:
    question = _question(root / "model")
    if question is not None and len(question) > _BODY_BYTES:
        environ["ADROIT_BODY_LIMIT_BYTES"] = str(len(question))
    environ["MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT"] = "100000"  # whoever runs this ends it in time
    server = _ModelServer(root, environ)
    seen: dict[str, Any] = {
        "asked": question is not None,
        "start_seconds": server.wait(),
        "answer_seconds": None,
        "status": None,
        "outputs": None,
        "outputs_sha256": None,
        "whole": True,
        "repeats": True,
        "together": None,
        "problem": None,
    }
    if seen["start_seconds"] is not None and question is not None:
        try:
            seen |= _answered(server, question)
            if together and seen["problem"] is None:
                seen["together"] = _together(server, json.loads(question))
        except (OSError, http.client.HTTPException, ValueError, RecursionError) as error:
            seen["problem"] = f"POST /invocations: {error!r}"[:_SHOWN_CHARS]
    return seen | server.end()


def _answered(server: _ModelServer, question: bytes) -> dict[str, Any]:
    """Returns what came back for the question, the first time and the second."""
    started = time.monotonic()
    status, answer = server.ask("POST", "/invocations", question)
    seen: dict[str, Any] = {"answer_seconds": time.monotonic() - started, "status": status}
    if status == 200:
        again, second = server.ask("POST", "/invocations", question)
        status, answer = (200, answer) if again == 200 else (again, second)
    if status != 200:
        shown = answer[:_SHOWN_CHARS].decode(errors="replace")
        return seen | {"status": status, "problem": f"POST /invocations: {status} {shown}"}
    outputs = outputs_of(answer)
    whole = len(canonical(outputs)) <= WHOLE_BYTES
    return seen | {
        "outputs": outputs if whole else bounded(outputs),
        "outputs_sha256": sha256(outputs),
        "whole": whole,
        "repeats": canonical(outputs_of(second)) == canonical(outputs),
    }


def _together(server: _ModelServer, question: dict[str, Any]) -> dict[str, Any]:
    """Returns the answers to each row alone, and those that differ when many clients ask."""
    rows = [json.dumps(row).encode() for row in _rows(question)]

    def asked(number: int) -> Any:
        return outputs_of(server.ask("POST", "/invocations", rows[number])[1])

    alone = [asked(number) for number in range(len(rows))]
    numbers = [number % len(rows) for number in range(_QUESTIONS)] if rows else []
    with ThreadPoolExecutor(_CLIENTS) as clients:
        answers = clients.map(asked, numbers)
        pairs = [[alone[n], answer] for n, answer in zip(numbers, answers, strict=True)]
    others = [pair for pair in pairs if canonical(pair[0]) != canonical(pair[1])]
    return {"alone": bounded(alone), "others": bounded(others, rows=_DIFFERENT)}


def _rows(question: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns a question for each row of a table or list; none where it is neither."""
    form, table = next(iter(question.items()))
    if form == "dataframe_split":
        split = {key: value for key, value in table.items() if key != "index"}
        parts: list[Any] = [{**split, "data": [row]} for row in split["data"]]
    else:
        parts = [[row] for row in table] if isinstance(table, list) else []
    return [{**question, form: part} for part in parts[:_CLIENTS]]


def outputs_of(answer: bytes) -> Any:
    """Returns the outputs in an answer's body, as strict JSON; ValueError where it is not JSON."""
    return outputs_in(json.loads(answer))


def outputs_in(body: Any) -> Any:
    """Returns the outputs in the parsed body of an answer, as strict JSON values."""
    chat = not isinstance(body, dict) or "predictions" not in body
    return _strict(body if chat else body["predictions"])


def canonical(value: Any) -> bytes:
    """Returns the one spelling of a JSON value that digests and limits are taken of."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def sha256(value: Any) -> str:
    """Returns the hex digest of ``canonical(value)``."""
    return hashlib.sha256(canonical(value)).hexdigest()


def bounded(value: Any, rows: int = ROWS, size_bytes: int = ROWS_BYTES) -> Any:
    """Returns JSON, or as many first rows as keep both limits; None where not one does."""
    if isinstance(value, list):
        value = value[:rows]
    while len(canonical(value)) > size_bytes:
        if not isinstance(value, list) or len(value) <= 1:
            return None
        value = value[: len(value) // 2]
    return value


def _strict(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, list):
        return [_strict(item) for item in value]
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    return value


def _question(model: Path) -> bytes | None:
    """Returns the body of a request with the model's input example; None where it has none."""
    import yaml  # type: ignore[import-untyped]

    facts = yaml.safe_load((model / "MLmodel").read_bytes())
    example = facts.get("saved_input_example_info") if isinstance(facts, dict) else None
    if not example:
        return None
    if path := example.get("serving_input_path"):
        return (model / str(path)).read_bytes()
    return _converted(str(model))


def _converted(model: str) -> bytes | None:
    """Returns the request for an example of before MLflow 2.15, which kept none next to it."""
    from mlflow.models import Model
    from mlflow.models.utils import convert_input_example_to_serving_input

    metadata = Model.load(model)
    example = metadata.load_input_example(model)
    params = metadata.load_input_example_params(model)
    body = convert_input_example_to_serving_input((example, params) if params else example)
    return None if body is None else body.encode()


class _ModelServer:
    """The bundle's server, in a process of its own that inherits nothing but standard error."""

    def __init__(self, root: Path, environ: dict[str, str]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        serving = ["-X", "faulthandler", "-m", "adroit.serving", "--root", str(root)]
        self._started = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, *serving, "--host", "127.0.0.1", "--port", str(self._port)],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=2,
            start_new_session=True,
        )

    def wait(self) -> float | None:
        """Returns the seconds until it answered /ping; None where it ended instead."""
        while self._process.poll() is None:
            with suppress(OSError, http.client.HTTPException):
                if self.ask("GET", "/ping")[0] == 200:
                    return time.monotonic() - self._started
            time.sleep(_PAUSE_S)
        return None

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Returns the status and the body of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = response.read(_ANSWER_BYTES + 1)
        finally:
            connection.close()
        if len(answer) > _ANSWER_BYTES:
            raise ValueError(f"an answer of more than {_ANSWER_BYTES} bytes")
        return response.status, answer

    def end(self) -> dict[str, Any]:
        """Ends it, and returns how it stood until then and the most memory it took."""
        ended = self._process.poll()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        give_up = time.monotonic() + _REAP_S  # the rest of its processes, which are ours now
        with suppress(ChildProcessError):
            while time.monotonic() < give_up:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    time.sleep(_PAUSE_S)
        return {"ended": ended, "peak_memory_bytes": _peak_memory_bytes()}


def _peak_memory_bytes() -> int:
    import resource

    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _installed(root: Path) -> dict[str, Any]:
    """Returns what the env holds; the bundle's own directories are not part of it."""
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path += [path for path in given if path and not Path(path).is_relative_to(root)]
    return {
        "python_version": platform.python_version(),
        "packages": _packages(),
        "import_names": import_names(),
    }


def _packages() -> dict[str, str]:
    versions: dict[str, str] = {}
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        if name and name not in versions:  # the first on sys.path is the one that is imported
            versions[name] = distribution.version
    return dict(sorted(versions.items()))


def import_names() -> list[str]:
    """Returns the top-level modules that Python and what is installed bring."""
    names = {*sys.stdlib_module_names}
    with suppress(Exception):  # one damaged installation must not hide what the others bring
        names |= metadata.packages_distributions().keys()
    # Debian's packages and some of conda's leave no list of their files.
    for directory in map(Path, sys.path):
        if directory.name in ("site-packages", "dist-packages") and directory.is_dir():
            names |= {
                path.name.partition(".")[0]
                for path in directory.iterdir()
                if path.suffix in (".py", ".so") or (path.is_dir() and not path.suffix)
            }
    return sorted(name for name in names if name.isidentifier() and name != "__pycache__")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
