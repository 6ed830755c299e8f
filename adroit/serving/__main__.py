"""Serves the bundle in an image: ``python -m adroit.serving``, the image's entrypoint.

    python -m adroit.serving [serve] [--root DIR] [--deep] [--host HOST] [--port PORT]

SageMaker starts an image with the one argument ``serve``, so that is accepted. The rest comes from
the environment, which is what every platform can set:

    ADROIT_...                how much it takes (see ``limits``)
    ADROIT_FLAVOR, ADROIT_VERSION   labels of metrics and tags of features, where given
    SAGEMAKER_BIND_TO_PORT    the port, where SageMaker wants another one
    DD_...                    Datadog's agent (see ``dogstatsd``); without one no feature is sent

In order: take the port without listening, check the bundle's files, have the model loaded in a
process of its own (import the handler, load, predict the model's input example), listen. What goes
wrong before that is one line of log that names the stage, and exit code 1; 2 where the command line
or the environment is wrong.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from adroit.serving.bundle import DEFAULT_ROOT, Bundle
from adroit.serving.features.dogstatsd import Agent
from adroit.serving.limits import limits_of
from adroit.serving.logs import log_as_json
from adroit.serving.metrics import Metrics
from adroit.serving.server import Application, serve
from adroit.serving.workers import native
from adroit.serving.workers.loader import labels
from adroit.serving.workers.pool import Pool
from adroit.serving.workers.processes import LoaderEndedError
from adroit.serving.workers.stages import Start


def main(arguments: list[str]) -> int:
    """Serves until a signal ends it, and returns the exit code."""
    options = _parser(os.environ).parse_args(arguments)
    try:
        limits_of(os.environ, {})
        Agent.named(os.environ)
    except ValueError as error:
        print(f"adroit.serving: {error}", file=sys.stderr)
        return 2
    log_as_json()
    # A server of somebody's model reports to nobody but whom its owner names.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    pools: list[Pool] = []

    def end(number: int, _frame: object) -> None:
        for pool in pools:
            pool.end_loading()
        os._exit(128 + number)

    # As process 1 of a container, signals are ignored unless handled; loading may take long.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    native.outlive_signals()
    start = Start()
    try:
        listener = _bound(options.host, options.port)
        start.enter("bundle")
        bundle = Bundle.read(options.root)
        bundle.check(deep=options.deep)
    except Exception as error:  # noqa: BLE001  told in one line
        start.failed(error)
        return 1
    limits = limits_of(os.environ, bundle.document["serve"])
    metrics = Metrics(labels(bundle, os.environ), _shared_metrics())
    pool = Pool(str(options.root), limits, metrics)
    pools.append(pool)
    native.hide(True)
    try:
        model = pool.load()
    except LoaderEndedError as error:
        return _ended_as(error.exit_code)
    serve(Application(bundle, pool, metrics, limits, model), pool, limits, listener)
    return 0


def _ended_as(exit_code: int) -> int:
    """Ends as the loader did, whose log says why: a signal that ended the model is seen."""
    if exit_code < 0:
        with suppress(OSError):  # of SIGKILL and SIGSTOP
            signal.signal(-exit_code, signal.SIG_DFL)
        os.kill(os.getpid(), -exit_code)
    return exit_code


def _shared_metrics() -> Path | None:
    """Returns where prometheus_client is to keep what workers count; None where it is not there."""
    if importlib.util.find_spec("prometheus_client") is None:
        return None
    with suppress(OSError):  # nowhere to write
        name = os.environ.get("PROMETHEUS_MULTIPROC_DIR") or tempfile.mkdtemp(prefix="adroit-")
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = name
        return Path(name)
    return None


def _bound(host: str, port: int) -> socket.socket:
    """Returns a socket that holds the port and refuses connections until it listens."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(address)
    return listener


def _parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m adroit.serving", description="Serve a bundle.")
    parser.add_argument("command", nargs="?", choices=["serve"], help="what SageMaker gives")
    parser.add_argument("--root", type=Path, default=DEFAULT_ROOT, help="holds bundle.json")
    parser.add_argument("--deep", action="store_true", help="check digests too, not sizes alone")
    parser.add_argument("--host", default="0.0.0.0")
    port = environ.get("SAGEMAKER_BIND_TO_PORT") or "8080"
    parser.add_argument("--port", type=int, default=port, help="0: one that is free, in the log")
    return parser


if __name__ == "__main__":
    code = main(sys.argv[1:])
    logging.shutdown()
    sys.stdout.flush()
    # Not sys.exit: threads and atexit hooks of the model could hold the process for ever.
    os._exit(code)
