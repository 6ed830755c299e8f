"""The project's files as a commit has them, and commits of ours: everything that touches git.

Floor 3: imports the floors below and ``artifacts``."""

__all__: list[str] = []
