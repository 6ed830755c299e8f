"""The picture of a rollover: ``page`` makes it, self-contained, out of what is kept of its looks.

May import what ``cli`` may."""

from __future__ import annotations

__all__: list[str] = []
