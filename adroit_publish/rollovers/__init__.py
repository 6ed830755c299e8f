"""The verbs of a rollover, and the world in which its rules are carried out.

Floor 5: imports the floors below, ``versions`` and ``writeback``."""

from __future__ import annotations

__all__: list[str] = []
