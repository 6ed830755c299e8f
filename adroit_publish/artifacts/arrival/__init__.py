"""A file on its way: what has arrived of it, whose bytes these are, and who vouches for them.

Floor 3: imports the floors below and ``artifacts.remote_root``."""

__all__: list[str] = []
