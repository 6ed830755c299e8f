"""Conda envs baked into images.

Floor 5: imports the floors below."""

from __future__ import annotations

__all__: list[str] = []
