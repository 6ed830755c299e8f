"""The fronts: they parse, call the verbs, render, and choose the exit code. No rules live here.

``commands`` is ``python -m adroit_publish``, and ``options`` what its commands share; ``flow/`` is
what the two Metaflow flows share; ``render`` and ``progress`` print. May import everything; nothing
imports them.
"""

__all__: list[str] = []
