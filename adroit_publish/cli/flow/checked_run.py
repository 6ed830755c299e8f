"""Metaflow's ``run``, which first asks the flow whether the request can be refused without a run.

Metaflow loads a command when it is asked for, and gives it the flow's parameters while it does: so
this module is loaded in the place of Metaflow's own, and as late.
"""

from __future__ import annotations

from typing import Any

from metaflow.cli_components.run_cmds import run
from metaflow.parameters import current_flow

_start_run = run.callback


def _check_and_run(**options: Any) -> Any:
    flow = current_flow.flow_cls
    asked = object.__new__(flow)  # not the flow of the run, whose attributes are artifacts
    for name, parameter in flow._get_parameters():
        value = options[parameter.name.replace("-", "_").lower()]
        vars(asked)[name] = parameter.kwargs.get("default") if value is None else value
    asked.check()
    return _start_run(**options)


run.callback = _check_and_run
