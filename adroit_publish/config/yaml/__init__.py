"""YAML text as a tree that knows where every part of it stands, and TOML, within the same limits.

Floor 2: pure."""

__all__: list[str] = []
