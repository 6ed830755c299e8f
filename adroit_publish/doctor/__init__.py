"""Whether this machine can publish, and what to type where it cannot.

Floor 5: imports the floors below and the other rooms of its own."""

__all__: list[str] = []
