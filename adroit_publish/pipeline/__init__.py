"""The verbs: publish, write back, pull, verify. Each is its stages in order, a few lines a stage.

May import every floor below. The clock and the environment are read here and handed down.
"""

__all__ = ["inspect", "prepare", "publish", "pull", "release", "workspace", "write_back"]
