"""The runs that this process has begun and not ended, and how they end when it does.

MLflow leaves a run RUNNING for ever when its process ends otherwise than by ``end_run``. Here each
run is ended with the process: by the interpreter's exit, by an exception that nobody catches, by
``sys.exit``, and by SIGTERM, which Metaflow and clusters send (Python alone dies of it without a
word). What Python does not see (SIGKILL, a power cut) ``adroit_publish doctor`` finds: a run is
tagged with its process.

| the process ends by | its runs are |
|---|---|
| its last line, or ``sys.exit()`` | FINISHED |
| an exception, a Metaflow task that failed | FAILED |
| SIGTERM or Ctrl-C, or with a ``with`` block open in another thread | KILLED |

A forked child has no runs: they are its parent's.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from adroit.training import metaflow_task, tracking

PROCESS_TAG = "adroit.process"
"""``HOST PID START``: START in clock ticks since the machine booted, 0 where it cannot be told."""

_open: dict[str, str] = {}  # run id -> tracking store
_in_blocks: set[str] = set()
_task_failed: Callable[[], bool] = bool
_terminated = False


class Terminated(SystemExit):
    """SIGTERM came: the process unwinds, as for Ctrl-C, and ends with 143."""


def process_tag() -> dict[str, str]:
    """Returns the tag by which ``doctor`` tells whether a run's process is still there."""
    return {PROCESS_TAG: f"{socket.gethostname()} {os.getpid()} {_start_ticks(os.getpid())}"}


def begun(run_id: str, tracking_uri: str, *, in_block: bool = False) -> None:
    """Notes that a run of this process is open.

    Args:
        run_id: The run.
        tracking_uri: The store that has it.
        in_block: Whether a ``with`` block is going to end it.
    """
    global _task_failed
    _watch_for_sigterm()
    if not _open:
        atexit.unregister(_end_all)
        atexit.register(_end_all)  # before MLflow's own, which was registered earlier
        _task_failed = metaflow_task.outcome()
    _open[run_id] = tracking_uri
    if in_block:
        _in_blocks.add(run_id)


def ended(run_id: str) -> None:
    """Notes that a run was ended; one that is not open is left alone."""
    _open.pop(run_id, None)
    _in_blocks.discard(run_id)
    if not _open:
        _let_sigterm_be()


def is_open(run_id: str) -> bool:
    """Returns whether this very process, and not the one it was forked from, has the run open."""
    return run_id in _open


def status_of(error: BaseException | None) -> str:
    """Returns what a run is whose block was left: without an exception, or with this one."""
    if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
        return "FINISHED"
    return "KILLED" if isinstance(error, Terminated | KeyboardInterrupt) else "FAILED"


def _end_all() -> None:
    logging.disable()  # of what MLflow says of a store that is gone, one line is told
    for run_id, tracking_uri in list(_open.items()):
        status = "KILLED" if run_id in _in_blocks or _terminated else _status_at_exit()
        try:
            with tracking.store(tracking_uri, patient=False) as client:
                client.set_terminated(run_id, status)
        except Exception as error:  # noqa: BLE001 - other runs are still to be ended
            print(f"MLflow run {run_id} was left RUNNING: {error}", file=sys.stderr)
    _open.clear()


def _status_at_exit() -> str:
    error = getattr(sys, "last_value", None)  # what the interpreter printed; a notebook's goes on
    if isinstance(error, KeyboardInterrupt):
        return "KILLED"
    failed = error is not None and not hasattr(sys, "ps1")
    return "FAILED" if failed or _task_failed() else "FINISHED"


def _watch_for_sigterm() -> None:
    with suppress(ValueError):  # only the main thread may
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, _terminate)


def _let_sigterm_be() -> None:
    with suppress(ValueError):
        if signal.getsignal(signal.SIGTERM) is _terminate:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    global _terminated
    _terminated = True
    raise Terminated(128 + number)


def _start_ticks(process_id: int) -> str:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return "0"


def _forget() -> None:
    _open.clear()
    _in_blocks.clear()
    if threading.current_thread() is threading.main_thread():
        _let_sigterm_be()


os.register_at_fork(after_in_child=_forget)
