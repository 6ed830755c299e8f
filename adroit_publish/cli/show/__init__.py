"""``show``: one version, as a person or a machine reads it."""

__all__: list[str] = []
