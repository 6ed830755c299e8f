"""The fronts: they parse, call the pipeline, render, and choose the exit code. No rules live here.

``commands`` is ``python -m adroit_publish``; ``flow_run`` is what the Metaflow flow says and does
besides Metaflow; ``progress`` and ``card`` render. May import everything; nothing imports them.
"""

__all__ = ["card", "commands", "flow_run", "progress"]
