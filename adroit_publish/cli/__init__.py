"""The fronts: they parse, call the pipeline, render, and choose the exit code. No rules live here.

``commands`` is ``python -m adroit_publish``; ``flow_run`` is what the steps of the Metaflow flows
do, ``flow_checkout`` where they find their files, ``flow_program`` how a flow ends as a program;
``progress`` and ``card`` render. May import everything; nothing imports them.
"""

__all__ = ["card", "commands", "flow_checkout", "flow_program", "flow_run", "progress"]
