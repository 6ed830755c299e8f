"""Sessions with AWS, and its errors in the user's words.

Floor 3: imports the floors below."""

from __future__ import annotations

__all__: list[str] = []
