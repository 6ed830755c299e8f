"""HTTP/1.1 on asyncio and h11, with a deadline for everything a client does.

``connection`` is one client's socket: bytes to requests, replies to bytes. ``listener`` holds all
of them, ends what is late, and drains. ``openapi`` describes the endpoints. Nothing here knows
models or workers.
"""

from __future__ import annotations

__all__: list[str] = []
