"""YAML text as a tree that knows where every part of it stands, within limits; TOML within the same.

Floor 2: pure."""

__all__: list[str] = []
