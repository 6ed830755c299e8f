"""What can be done with a published version: look, compare, pull, serve, promote, verify.

Floor 5: imports the floors below and ``publish``."""

__all__: list[str] = []
