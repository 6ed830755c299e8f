"""Publish and republish: each verb is its stages in order, a few lines a stage.

Floor 5: imports the floors below."""

__all__: list[str] = []
