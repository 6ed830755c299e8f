"""What the two flows share.

``base`` is what Metaflow sees of it: options and steps. ``start`` and ``steps`` are what the steps
do, ``location`` where they find their files, ``card`` what they leave to be read, ``program`` how a
flow ends as a program.
"""

__all__: list[str] = []
