"""``python -m adroit_publish``: every command, by the room it lives in."""

from adroit_publish.cli import (
    diffing,
    doctor,
    ledger,
    planning,
    promoting,
    published,
    rollover,
    serving,
    sitevars,
)
from adroit_publish.cli.frame import cli, main

__all__ = [
    "cli",
    "diffing",
    "doctor",
    "ledger",
    "main",
    "planning",
    "promoting",
    "published",
    "rollover",
    "serving",
    "sitevars",
]
