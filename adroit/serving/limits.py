"""How much a server takes: from the bundle's serve section, and from the environment before it.

ADROIT_WORKERS             processes that predict (serve.workers; 2, or 1 that cannot be forked)
ADROIT_THREADS             predictions at once in a worker with serve.thread_safe (2), else 1
ADROIT_QUEUE               requests that wait for a worker (64, or 32 for each worker if more)
ADROIT_CONNECTIONS         connections at once (4096, or what the system allows if less)
ADROIT_BODY_LIMIT_BYTES    largest body of a request (32 MiB), also after decompression
ADROIT_HEAD_S, ADROIT_BODY_S   until the head (10) and the body (60) of a request are there
ADROIT_DRAIN_S             most seconds to take new requests after SIGTERM (8: less than the 10
                           that `docker stop` waits)
ADROIT_WORKER_MEMORY_BYTES most private memory of a worker (no limit)
ADROIT_NAN=null            answers have null where MLflow's have NaN and Infinity
ADROIT_DRIFT_WINDOW_S      how far back adroit_feature_psi looks (3600)
ADROIT_LOG_PERCENT         share of answered requests in the log; failures are all there (100)
MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT   seconds for one request (60)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_THREADS = 2
_QUEUED, _QUEUED_BY_WORKER = 64, 32


@dataclass(frozen=True)
class Limits:
    """How much the server takes.

    Attributes:
        body_bytes: Largest body of a request.
        workers: Processes that predict; None where nobody has said how many.
        threads: Predictions at once in each.
        most_rows: Most rows of requests that are predicted together; 0: none are.
        wait_s: How long a request may wait for others to be predicted with.
        queue: Requests that wait for a worker; None for a number by the workers.
        connections: At once.
        head_s: Until a request's head is there.
        body_s: Until its body is there.
        prediction_s: Until it is answered.
        drain_s: Most seconds between SIGTERM and the last new connection.
        memory_bytes: Most private memory of a worker; None for no limit.
        nan_as_null: Whether answers are strict JSON.
        log_share: Of the requests that are answered well, those in the log: 0 to 1.
        drift_window_s: How far back the features of requests are held against those of X_test.
    """

    body_bytes: int
    workers: int | None
    threads: int
    most_rows: int
    wait_s: float
    queue: int | None
    connections: int
    head_s: float
    body_s: float
    prediction_s: float
    drain_s: float
    memory_bytes: int | None
    nan_as_null: bool
    log_share: float
    drift_window_s: float

    def queue_for(self, workers: int) -> int:
        """Returns how many requests may wait for so many workers."""
        return self.queue or max(_QUEUED, _QUEUED_BY_WORKER * workers * self.threads)


def limits_of(environ: Mapping[str, str], serve: Mapping[str, Any]) -> Limits:
    """Returns the limits that the environment sets, or else the bundle, or else the defaults.

    Args:
        environ: Of the process.
        serve: The serve section of bundle.json.

    Raises:
        ValueError: One of them is not a positive number.
    """
    batch = serve.get("batch") or {}
    threads = int(_positive(environ, "ADROIT_THREADS", _THREADS))
    return Limits(
        body_bytes=int(_positive(environ, "ADROIT_BODY_LIMIT_BYTES", 32 << 20)),
        workers=_whole(environ, "ADROIT_WORKERS") or serve.get("workers"),
        threads=threads if serve.get("thread_safe") else 1,
        most_rows=int(batch.get("max_rows", 64)) if batch else 0,
        wait_s=float(batch.get("max_wait_ms", 2)) / 1000 if batch else 0.0,
        queue=_whole(environ, "ADROIT_QUEUE"),
        connections=int(_positive(environ, "ADROIT_CONNECTIONS", 4096)),
        head_s=_positive(environ, "ADROIT_HEAD_S", 10),
        body_s=_positive(environ, "ADROIT_BODY_S", 60),
        prediction_s=_positive(environ, "MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT", 60),
        drain_s=_positive(environ, "ADROIT_DRAIN_S", 8),
        memory_bytes=_whole(environ, "ADROIT_WORKER_MEMORY_BYTES"),
        nan_as_null=environ.get("ADROIT_NAN") == "null",
        log_share=_positive(environ, "ADROIT_LOG_PERCENT", 100) / 100,
        drift_window_s=_positive(environ, "ADROIT_DRIFT_WINDOW_S", 3600),
    )


def _whole(environ: Mapping[str, str], name: str) -> int | None:
    return int(_positive(environ, name, 0)) if environ.get(name) else None


def _positive(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name) or str(default)
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} is {text!r}; it is a positive number")
    return value
