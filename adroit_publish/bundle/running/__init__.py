"""Parts of what runs a version: what it may use, and what keeps it in a cluster.

``deployment`` puts them together. Values and rules; nothing here touches a cluster.
"""

from __future__ import annotations

__all__: list[str] = []
