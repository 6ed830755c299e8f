"""A rollover that goes on by itself: it tells its news, waits for a person, and may go back.

What was told last is kept with the rollover, so that cron tells it once and not every minute.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from adroit_publish.errors import PublishError, RefusedError
from adroit_publish.evidence.webhook import post
from adroit_publish.rollover.needs import next_share
from adroit_publish.rollover.news import news
from adroit_publish.rollover.state import Approval, Rollover
from adroit_publish.rollovers.steps import Outcome, advance_until
from adroit_publish.rollovers.verbs import Rolling, move
from adroit_publish.stores.rollovers import find_rollover


def tell_news(rolling: Rolling, outcome: Outcome) -> None:
    """Tells the webhook what a command came to, once; nothing that fails here fails a command."""
    line = news(outcome.rollover, outcome.before, outcome.lacks)
    if line is None or line == outcome.rollover.told:
        return
    with suppress(PublishError):  # another operator was first, and tells it
        kept = rolling.rollovers.get(outcome.rollover.model, outcome.rollover.id)
        if kept.rollover.told != line:
            rolling.rollovers.keep(kept, replace(kept.rollover, told=line))
            post(line)


def unhealthy(outcome: Outcome) -> str | None:
    """Returns how the new version is measured to be worse; None where it is not."""
    return next((lack.found for lack in outcome.lacks if lack.verdict == "unhealthy"), None)


def advance_unattended(
    rolling: Rolling,
    model: str | None,
    until: str | None,
    wait: Callable[[Outcome], None],
    *,
    rollback: bool,
) -> tuple[Outcome, bool]:
    """Advances a step, or until a state is reached, and goes back where it is told to.

    Args:
        rolling: Where.
        model: The model; None: the one that has a live rollover.
        until: The state, or None for one step.
        wait: Told what is missing; returns when it is time to look again.
        rollback: Whether to go back as soon as the new version is measured to be worse.

    Returns:
        What it came to, and whether it went back.

    Raises:
        PublishError: As ``move`` does.
    """
    if until is None:
        outcome = move(rolling, model, "advance")
    else:

        def told(outcome: Outcome) -> None:
            tell_news(rolling, outcome)
            wait(outcome)

        outcome = advance_until(
            rolling.rollovers,
            find_rollover(rolling.rollovers, model),
            rolling.world,
            until=until,
            who=rolling.who,
            wait=told,
            stop=lambda outcome: rollback and unhealthy(outcome) is not None,
        )
    worse = unhealthy(outcome)
    if not rollback or worse is None:
        return outcome, False
    tell_news(rolling, outcome)
    return move(rolling, outcome.rollover.model, "rollback", f"unhealthy: {worse}"), True


def approve(rolling: Rolling, model: str | None, why: str) -> tuple[Rollover, Approval]:
    """Lets a rollover go on to the share that waits for a person.

    Args:
        rolling: Where.
        model: The model; None: the one that has a live rollover.
        why: What the person has to say; kept with who they are.

    Returns:
        The rollover, and the approval.

    Raises:
        RefusedError: Nothing waits for a person, or another operator changed it meanwhile.
    """
    kept = find_rollover(rolling.rollovers, model)
    rollover, share = kept.rollover, next_share(kept.rollover)
    waits = [at for at in rollover.checks.approve_at if rollover.shares[0] < at <= share]
    if not waits or rollover.state not in ("proposed", "deployed", "verified", "pointed"):
        raise RefusedError(
            "No step waits for a person.",
            where=rolling.rollovers.where(rollover),
            got=f"{rollover.state}, the next share is {share:g} %",
            wanted=", ".join(f"{at:g} %" for at in rollover.checks.approve_at) or "no share at all",
        )
    approval = Approval(rolling.world.now_s(), rolling.who, why, share)
    approvals = (*rollover.approvals, approval)
    kept = rolling.rollovers.keep(kept, replace(rollover, approvals=approvals))
    return kept.rollover, approval
