"""What people are told of a rollover: once, when it comes to be so."""

from __future__ import annotations

from collections.abc import Sequence

from adroit_publish.rollover.needs import Lack, pointed_text
from adroit_publish.rollover.state import Rollover

_TOLD = ("pointed", "draining", "drained", "retired", "rolled back", "abandoned", "held")


def news(rollover: Rollover, before: str, lacks: Sequence[Lack]) -> str | None:
    """Returns the line that people are told after a command; None where there is no news.

    Args:
        rollover: As it is now.
        before: The state it was in when the command began.
        lacks: What is missing for the next step.
    """
    head = f"{rollover.model}: {rollover.old.flavor} to {rollover.new.flavor}"
    by_need = {lack.evidence: lack for lack in lacks}
    unhealthy = next((lack for lack in lacks if lack.verdict == "unhealthy"), None)
    if unhealthy:
        return f"{head}: unhealthy: {unhealthy.found}"
    if "approved" in by_need and len(by_need) == 1:
        return (
            f"{head}: {by_need['approved'].found}: "
            f"python -m adroit_publish rollover approve {rollover.model} --why TEXT"
        )
    if rollover.state not in _TOLD or (before == rollover.state and rollover.state != "pointed"):
        return None
    if lacks and rollover.state != "held":
        return None
    last = rollover.history[-1]
    why = f" ({last.why})" if last.why else ""
    return (
        f"{head}: {rollover.state}{why}, by {last.who}; the sitevar says {pointed_text(rollover)}"
    )
