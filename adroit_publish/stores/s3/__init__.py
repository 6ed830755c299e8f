"""S3 as a place of immutable objects, with our own code where the bytes flow.

Floor 3: imports the floors below, ``aws`` and ``stores.contract``."""

__all__: list[str] = []
