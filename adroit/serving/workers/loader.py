"""The process that loads the model: ``python -m adroit.serving.workers.loader``.

The server starts it with a socket and tells it how to serve. It imports the handler, loads,
predicts the model's input example, and says so. From then on it forks a worker for every socket
that the server sends; what was loaded is frozen, so that workers share it. Where the model cannot
be forked, this process becomes a worker itself, and the server starts one for each further worker.
"""

from __future__ import annotations

import array
import gc
import logging
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from adroit.serving.bundle import Bundle
from adroit.serving.features.dogstatsd import Agent
from adroit.serving.features.drift_window import Sampler
from adroit.serving.features.feature_log import FeatureLog
from adroit.serving.features.reference import Reference, read_reference
from adroit.serving.loading import load_handler
from adroit.serving.logs import event, log_as_json
from adroit.serving.scoring import Scorer
from adroit.serving.workers import native
from adroit.serving.workers.frames import Frame, receive
from adroit.serving.workers.stages import Start
from adroit.serving.workers.worker import Worker

_REAP_S = 0.5
_END_S = 1.5
_EXAMPLE_BYTES = 64 << 10
_FD_BYTES = array.array("i").itemsize


@dataclass(frozen=True)
class Instructions:
    """What a loader is told.

    Attributes:
        root: Holds bundle.json.
        body_bytes: The most that the body of a request may become.
        threads: Predictions at once in a worker.
        most_rows: Most rows of requests that are predicted together.
        native_threads: What a worker computes on.
        forks: Whether to fork workers; a process that may not is a worker itself.
        memory_bytes: The most private memory of a worker; None for no limit.
        nan_as_null: Whether answers are strict JSON.
    """

    root: str
    body_bytes: int
    threads: int
    most_rows: int
    native_threads: int
    forks: bool
    memory_bytes: int | None
    nan_as_null: bool

    def frame(self) -> Frame:
        """Returns what is sent to a loader."""
        return Frame(asdict(self))


@dataclass(frozen=True)
class _Loaded:
    scorer: Scorer
    features: Callable[..., FeatureLog] | None
    reference: Reference | None


def main(descriptor: int, key: bytes) -> int:
    """Loads, and forks workers or is one, until the server has gone."""
    control = socket.socket(fileno=descriptor)
    native.end_with_parent()
    told = receive(control, key)
    if told is None:
        return 1
    instructions = Instructions(**told.facts)
    log_as_json()
    # The server ends its workers; a handler of our own is not inherited by what a model starts.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    native.outlive_signals()
    start, pid = Start(), os.getpid()
    try:
        loaded, facts = _load(Path(instructions.root), start)
    except BaseException as error:  # noqa: BLE001  whatever the model raises is told in one line
        native.stay_behind_if_forked(pid)
        start.failed(error)
        return 1
    native.stay_behind_if_forked(pid)
    # One socket that the server gave: what else is open was opened by the model.
    why = native.why_not_forked(own_sockets=1) if instructions.forks else "it is a worker"
    native.hide(True)
    control.sendall(Frame({"loaded": facts, "why_not_forked": why}).encoded(key))
    if why is not None:
        _serve(control, key, loaded, instructions)
        return 0
    gc.collect()
    gc.freeze()
    return _fork_workers(control, key, loaded, instructions)


def _load(root: Path, start: Start) -> tuple[_Loaded, dict[str, Any]]:
    """Returns what predicts, once it has predicted, and what the server is told of it."""
    start.enter("import_handler")
    bundle = Bundle.read(root)
    handler = load_handler(bundle)

    start.enter("load")
    _disable_tracing_without_a_server(os.environ)
    started = time.monotonic()
    handler.load(bundle)
    load_seconds = time.monotonic() - started
    scorer = Scorer(handler, bundle)

    start.enter("predict")
    if not scorer.predict_example():
        event("the model has no input example; it was not predicted", level=logging.WARNING)
    percent, agent = float(getattr(handler, "log_features_percent", 0.0)), Agent.named(os.environ)
    features = None
    if percent > 0 and agent is not None:
        features = partial(FeatureLog, percent, labels(bundle, os.environ), agent)
    reference = read_reference(bundle.model_dir)
    facts = _facts(bundle, scorer, load_seconds) | {
        "logs_features": features is not None,
        "reference": reference.as_dict() if reference else None,
    }
    return _Loaded(scorer, features, reference), facts


def _facts(bundle: Bundle, scorer: Scorer, load_seconds: float) -> dict[str, Any]:
    from mlflow.version import VERSION

    signature, example = scorer.metadata.signature, None
    with suppress(OSError, UnicodeDecodeError):
        file = bundle.model_dir / "serving_input_example.json"
        example = file.read_text() if file.stat().st_size <= _EXAMPLE_BYTES else None
    return {
        "mlflow_version": VERSION,
        "load_seconds": load_seconds,
        "signature": signature.to_dict() if signature else None,
        "example": example,
    }


def labels(bundle: Bundle, environ: Mapping[str, str]) -> dict[str, str]:
    """Returns what every metric and every feature carries."""
    given = {"flavor": environ.get("ADROIT_FLAVOR"), "version": environ.get("ADROIT_VERSION")}
    return {
        "model": bundle.model_name,
        "bundle_id": bundle.bundle_id,
        **{name: value for name, value in given.items() if value},
    }


def _disable_tracing_without_a_server(environ: Mapping[str, str]) -> None:
    """Switches MLflow's tracing off, unless a tracking server is named.

    A traced model (an agent, say) would make a tracking database where the server stands; where it
    may not write there, as in our images, its first answer would wait minutes for that to fail.
    """
    if "MLFLOW_TRACKING_URI" in environ:
        return
    with suppress(ImportError):  # an MLflow before tracing
        from mlflow.tracing import disable

        disable()


def _fork_workers(
    control: socket.socket, key: bytes, loaded: _Loaded, instructions: Instructions
) -> int:
    workers: set[int] = set()
    while True:
        _reap(workers)
        if not select.select([control], [], [], _REAP_S)[0]:
            continue
        data, ancillary, _, _ = control.recvmsg(1, socket.CMSG_SPACE(_FD_BYTES))
        if not data:
            break
        (descriptor,) = array.array("i", ancillary[0][2][:_FD_BYTES])
        pid = os.fork()
        if pid == 0:
            control.close()
            _be_a_worker(socket.socket(fileno=descriptor), key, loaded, instructions)
        os.close(descriptor)
        workers.add(pid)
    give_up = time.monotonic() + _END_S  # for the last features; then the kernel ends them
    while workers and time.monotonic() < give_up:
        _reap(workers)
        time.sleep(0.01)
    return 0


def _be_a_worker(
    connection: socket.socket, key: bytes, loaded: _Loaded, instructions: Instructions
) -> None:
    """Never returns: what the loader had begun is not this process's to end."""
    try:
        native.end_with_parent()
        _serve(connection, key, loaded, instructions)
    except BaseException as error:  # noqa: BLE001
        event("worker failed", level=logging.ERROR, error_type=type(error).__name__)
    finally:
        logging.shutdown()
        os._exit(0)


def _serve(
    connection: socket.socket, key: bytes, loaded: _Loaded, instructions: Instructions
) -> None:
    native.hide(False)
    native.compute_on(instructions.native_threads)
    if instructions.memory_bytes is not None:
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (instructions.memory_bytes, hard))
    with suppress(BrokenPipeError, ConnectionResetError):  # the server has gone
        Worker(
            connection,
            key,
            loaded.scorer,
            loaded.features,
            Sampler(loaded.reference) if loaded.reference else None,
            body_bytes=instructions.body_bytes,
            threads=instructions.threads,
            most_rows=instructions.most_rows,
            nan_as_null=instructions.nan_as_null,
        ).run()


def _reap(workers: set[int]) -> None:
    for pid in list(workers):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            workers.discard(pid)
            event("worker ended", pid=pid, exit_code=os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    code = main(int(sys.argv[1]), bytes.fromhex(sys.argv[2]))
    logging.shutdown()
    sys.stdout.flush()
    # Not sys.exit: threads and atexit hooks of the model could hold the process for ever.
    os._exit(code)
