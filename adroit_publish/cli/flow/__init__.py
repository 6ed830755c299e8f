"""What the two flows share: their checkout, their steps, and their program.

Floor 6."""

from __future__ import annotations

__all__: list[str] = []
