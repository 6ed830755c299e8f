"""Logs as one JSON object a line, on standard error, without what a request held.

    {"time": "...Z", "level": "INFO", "logger": "adroit.serving", "message": "request",
     "request_id": "...", "status": 200, "seconds": 0.004, ...}

An exception is shown by its type and the places it came through, never by its message: a model's
messages quote its inputs ("could not convert string to float: '...'"). What a model logs of its own
is its own affair.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import datetime, timezone

_FRAMES = 20
_CAUSES = 3
logger = logging.getLogger("adroit.serving")


def log_as_json() -> None:
    """Makes every logger of the process write JSON lines to standard error, from INFO up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines())
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # its news are told here


def event(message: str, *, level: int = logging.INFO, **facts: object) -> None:
    """Logs something that happened, with its facts as keys of their own.

    Args:
        message: What happened, always the same words.
        level: As of ``logging``.
        facts: JSON values; those that are None are left out.
    """
    logger.log(level, message, extra={"facts": facts})


def frames_of(error: BaseException) -> list[str]:
    """Returns where an exception came through, innermost last: ``file:line function``."""
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]


def causes_of(error: BaseException) -> list[BaseException]:
    """Returns what an exception came from, the nearest first, at most ``_CAUSES``."""
    causes: list[BaseException] = []
    cause = error.__cause__ or error.__context__
    while cause is not None and cause not in causes and len(causes) < _CAUSES:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    return causes


def words_of(error: BaseException) -> str:
    """Returns an exception's message; a model's exception may fail to give one."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001  the exception is the model's, and so is its __str__
        return "(it cannot be shown)"


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        # Not datetime.UTC: an image may have Python 3.10.
        time = datetime.fromtimestamp(record.created, timezone.utc)  # noqa: UP017
        line: dict[str, object] = {
            "time": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        facts = getattr(record, "facts", {})
        line |= {key: value for key, value in facts.items() if value is not None}
        if record.exc_info and record.exc_info[1]:
            error = record.exc_info[1]
            line |= {"error_type": type(error).__name__, "frames": frames_of(error)}
        return json.dumps(line, default=str)
