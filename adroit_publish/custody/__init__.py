"""The chain of custody: whether every place still holds what was published, and healing.

Floor 4: imports the floors below, and ``places``."""

from __future__ import annotations

__all__: list[str] = []
