"""The fronts: they parse, call the verbs, render, and choose the exit code. No rules live here.

``commands`` is ``adroit-publish``, and ``options`` what its commands share; ``flow/`` is what the
two Metaflow flows share, ``entry/`` how a person gets to all of these; ``render`` and ``progress``
print. May import everything; nothing imports them.
"""

__all__: list[str] = []
