"""Serves the bundle in an image: ``python -m adroit.serving``, the image's entrypoint.

    python -m adroit.serving [serve] [--root DIR] [--deep] [--host HOST] [--port PORT]

SageMaker starts an image with the one argument ``serve``, so that is accepted. The rest comes from
the environment, which is what every platform can set:

    ADROIT_BODY_LIMIT_BYTES   largest body of a request             (32 MiB)
    ADROIT_THREADS            predictions at once (2: a slow one does not hold up the rest, and more
                              of them fight for the interpreter; raise it for a model that waits
                              for other servers)
    ADROIT_DRAIN_S            most seconds to take new requests after SIGTERM (8: less than the 10
                              that `docker stop` waits)
    ADROIT_FLAVOR, ADROIT_VERSION   labels of metrics and tags of features, where given
    SAGEMAKER_BIND_TO_PORT    the port, where SageMaker wants another one
    DD_...                    Datadog's agent (see ``dogstatsd``)

In order: take the port without listening, check the bundle's files, import the handler, load,
predict the model's input example, listen. What goes wrong before that is one line of log that names
the stage, and exit code 1; 2 where the command line or the environment is wrong.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from adroit.serving.bundle import DEFAULT_ROOT, Bundle, BundleError
from adroit.serving.dogstatsd import Agent
from adroit.serving.drift import FeatureLog
from adroit.serving.loading import load_handler
from adroit.serving.logs import causes_of, event, frames_of, log_as_json, words_of
from adroit.serving.metrics import Metrics
from adroit.serving.outputs import OutputError
from adroit.serving.scoring import Scorer
from adroit.serving.server import Application, Limits, serve

_ERROR_CHARS = 2000


def main(arguments: list[str]) -> int:
    """Serves until a signal ends it, and returns the exit code."""
    options = _parser(os.environ).parse_args(arguments)
    try:
        limits, agent = limits_of(os.environ), Agent.of(os.environ)
    except ValueError as error:
        print(f"adroit.serving: {error}", file=sys.stderr)
        return 2
    log_as_json()
    # A server of somebody's model reports to nobody but whom its owner names.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # As process 1 of a container, signals are ignored unless handled; loading may take long.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    stage = ["listen"]
    try:
        listener = _bound(options.host, options.port)
        application = _ready(options.root, options.deep, limits, agent, stage)
    except BaseException as error:  # noqa: BLE001  whatever the model raises is told in one line
        _report(stage[0], error)
        return 1
    host, port = listener.getsockname()[:2]
    serve(application, listener, {"host": host, "port": port, **application.identity})
    application.close()
    return 0


def limits_of(environ: Mapping[str, str]) -> Limits:
    """Returns the limits that the environment sets, or else the defaults.

    Raises:
        ValueError: One of them is not a positive number.
    """
    return Limits(
        body_bytes=int(_positive(environ, "ADROIT_BODY_LIMIT_BYTES", 32 << 20)),
        threads=int(_positive(environ, "ADROIT_THREADS", 2)),
        drain_s=_positive(environ, "ADROIT_DRAIN_S", 8),
    )


def _ready(root: Path, deep: bool, limits: Limits, agent: Agent, stage: list[str]) -> Application:
    """Returns the application of the bundle in ``root`` once its model has predicted."""
    _enter("bundle", stage)
    bundle = Bundle.read(root)
    bundle.check(deep=deep)

    _enter("import_handler", stage)
    handler = load_handler(bundle)

    _enter("load", stage)
    _disable_tracing_without_a_server(os.environ)
    labels = _labels(bundle, os.environ)
    metrics = Metrics(labels)
    started = time.monotonic()
    handler.load(bundle)
    metrics.load_seconds = time.monotonic() - started
    percent = float(getattr(handler, "log_features_percent", 0.0))
    features = FeatureLog(percent, labels, agent) if percent > 0 else None
    scorer = Scorer(handler, bundle, features.offer if features else None)

    _enter("predict", stage)
    if not scorer.predict_example():
        event("the model has no input example; it was not predicted", level=logging.WARNING)
    return Application(bundle, scorer, features, metrics, limits)


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


def _enter(name: str, stage: list[str]) -> None:
    stage[0] = name
    event("starting", stage=name)


def _labels(bundle: Bundle, environ: Mapping[str, str]) -> dict[str, str]:
    given = {"flavor": environ.get("ADROIT_FLAVOR"), "version": environ.get("ADROIT_VERSION")}
    return {
        "model": bundle.model_name,
        "bundle_id": bundle.bundle_id,
        **{name: value for name, value in given.items() if value},
    }


def _bound(host: str, port: int) -> socket.socket:
    """Returns a socket that holds the port and refuses connections until it listens."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(address)
    return listener


def _report(stage: str, error: BaseException) -> None:
    ours = isinstance(error, (BundleError, OutputError)) or stage == "listen"
    event(
        "not serving",
        level=logging.ERROR,
        stage=stage,
        error_type=type(error).__qualname__,
        # No request has come yet: the message can hold none of its values.
        error=words_of(error)[:_ERROR_CHARS],
        causes=[
            f"{type(cause).__name__}: {words_of(cause)[:_ERROR_CHARS]}"
            for cause in causes_of(error)
        ]
        or None,
        frames=None if ours else frames_of(error),
    )


def _positive(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name) or str(default)
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} is {text!r}; it is a positive number")
    return value


def _parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m adroit.serving", description="Serve a bundle.")
    parser.add_argument("command", nargs="?", choices=["serve"], help="what SageMaker gives")
    parser.add_argument("--root", type=Path, default=DEFAULT_ROOT, help="holds bundle.json")
    parser.add_argument("--deep", action="store_true", help="check digests too, not sizes alone")
    parser.add_argument("--host", default="0.0.0.0")
    port = environ.get("SAGEMAKER_BIND_TO_PORT") or "8080"
    parser.add_argument("--port", type=int, default=port, help="0: one that is free, in the log")
    return parser


def _end(number: int, _frame: object) -> NoReturn:
    os._exit(128 + number)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    logging.shutdown()
    sys.stdout.flush()
    # Not sys.exit: threads and atexit hooks of the model could hold the process for ever.
    os._exit(code)
