"""The chain of custody: which run may become a version, and whether every place still holds it.

Floor 4: imports the floors below, and ``places``."""

__all__: list[str] = []
