"""YAML text as a tree that knows where every part of it stands, within limits.

Floor 2: pure."""

from __future__ import annotations

__all__: list[str] = []
