"""Conda envs baked into images.

Floor 5: imports the floors below."""

__all__: list[str] = []
