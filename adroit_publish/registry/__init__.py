"""An image registry: its repositories, what they hold, and who may ask.

Floor 3: imports the floors below, ``aws`` and ``stores``."""

__all__: list[str] = []
