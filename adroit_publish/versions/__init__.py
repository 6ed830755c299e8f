"""What can be done with a published version: look, compare, pull, serve, promote, verify.

Floor 5: imports the floors below and ``publish``."""

from __future__ import annotations

__all__: list[str] = []
