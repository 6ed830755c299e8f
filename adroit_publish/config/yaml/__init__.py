"""YAML text as a tree that knows where every part of it stands, within limits.

Floor 2: pure."""

__all__: list[str] = []
