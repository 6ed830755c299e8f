"""Projects of models: a new one, which trains and publishes as it is; and a rehearsal of one.

Floor 5: imports the floors below."""

__all__: list[str] = []
