"""The processes that predict, and how the server asks them.

    server ── loader ──┬── worker      the loader loads the model and forks the workers, which
          └────────────┴── worker      share its memory; each has a socket to the server

A model that cannot be forked (see ``native``) is loaded by each worker anew: then a loader is a
worker. The server itself never imports the model, so nothing a model does can stop it. ``pool``
is the server's side; ``loader`` and ``worker`` are the other one; ``frames`` is what they say.
"""

from __future__ import annotations

__all__: list[str] = []
