"""Published versions into flavors.yaml, and from there into git.

Floor 5: imports the floors below and ``publish``."""

__all__: list[str] = []
