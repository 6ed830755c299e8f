"""``python -m adroit_publish``: every command, by the room it lives in."""

from adroit_publish.cli import published, serving
from adroit_publish.cli.frame import cli, main

__all__ = ["cli", "main", "published", "serving"]
