"""What ``serve`` in config.yaml says of processes, batches and resources.

    workers: 2                             # processes; one prediction at a time in each
    thread_safe: false                     # true: threads inside a worker; the publish proves it
    batch: {max_rows: 64, max_wait_ms: 2}  # off unless stated; the publish proves it
    resources: {cpu: 2, memory: 4Gi, gpu: 0}   # or Kubernetes' own requests and limits

All of it is kept in ``bundle.json`` with the rest of the section, and read there by the server.
"""

from __future__ import annotations

from adroit_publish.bundle.running.resources import resource_problems
from adroit_publish.config.yaml.values import Section

KNOWN = ("handler", "workers", "thread_safe", "batch", "resources", "sagemaker")
_MOST_WORKERS, _MOST_ROWS, _MOST_WAIT_MS = 256, 100_000, 1000


def check_serve(serve: Section) -> None:
    """Reports what of these keys is not what it has to be."""
    workers = serve.value("workers")
    if workers is not None and not _is_whole(workers, 1, _MOST_WORKERS):
        message = f"'workers' is {workers!r}; it is a number of processes from 1 to {_MOST_WORKERS}"
        serve.problem("workers", message)
    safe = serve.value("thread_safe")
    if safe is not None and not isinstance(safe, bool):
        serve.problem("thread_safe", f"'thread_safe' is {safe!r}; it is true or false")
    _check_batch(serve)
    for problem in resource_problems({"resources": serve.value("resources")}):
        serve.problem("resources", problem)


def _check_batch(serve: Section) -> None:
    batch = serve.section("batch", ("max_rows", "max_wait_ms"), closed=True)
    rows, wait_ms = batch.value("max_rows"), batch.value("max_wait_ms")
    if rows is not None and not _is_whole(rows, 2, _MOST_ROWS):
        message = f"'max_rows' is {rows!r}; it is a number of rows from 2 to {_MOST_ROWS}"
        batch.problem("max_rows", message)
    number = isinstance(wait_ms, int | float) and not isinstance(wait_ms, bool)
    if wait_ms is not None and not (number and 0 <= wait_ms <= _MOST_WAIT_MS):
        message = f"'max_wait_ms' is {wait_ms!r}; it is a number from 0 to {_MOST_WAIT_MS}"
        batch.problem("max_wait_ms", message)


def _is_whole(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
