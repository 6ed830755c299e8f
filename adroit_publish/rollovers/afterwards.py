"""What is left to be done and said once a rollover was rolled back or finished.

A rollback sets the sitevar and asks nobody but the old servers before. Everything else comes here:
the hold that keeps CI from publishing the new flavor again, and what could not be checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from adroit_publish.config.flavors_edit import set_hold
from adroit_publish.config.flavors_entries import delete_flavor
from adroit_publish.errors import PublishError
from adroit_publish.rollover.state import Rollover
from adroit_publish.rollovers.steps import Outcome
from adroit_publish.rollovers.verbs import Rolling, move
from adroit_publish.stores.ledger import NOT_SIGNED, entries
from adroit_publish.writeback.one_flavor import FlavorEdited, InGit, edit_flavor

_READINGS = ("published", "flavors", "answering")


def after_rollback(rolling: Rolling, rollover: Rollover, in_git: InGit) -> Iterator[str]:
    """Holds the new flavor, and yields what there is to know, a line each, as it is found out.

    Args:
        rolling: Where.
        rollover: It was rolled back.
        in_git: Whether the hold is committed, and pushed.
    """
    old, new = rollover.old, rollover.new
    edit = partial(set_hold, flavor=new.flavor, why=f"rolled back: {rollover.history[-1].why}")
    try:
        held = edit_flavor(rolling.checkout.root, new.flavor, edit, f"Hold {new.flavor}", in_git)
    except PublishError as error:
        yield f"{new.flavor} is not held in flavors.yaml: {error.what}"
        yield f"next: python -m adroit_publish hold {new.flavor} --why TEXT"
    else:
        yield f"{new.flavor} is held, so that CI does not publish it again"
        yield from filter(None, [held.line()])
    yield from _ledger_lines(rolling, rollover)
    evidence, _ = rolling.world.read(rollover, _READINGS)
    for name in _READINGS:
        if name in evidence.absent:
            yield f"could not be checked: {name}: {evidence.absent[name]}"
    if evidence.published:
        yield from (f"warning: {problem}" for problem in evidence.published.old)
    if evidence.flavors and evidence.flavors.old != old.version:
        here = evidence.flavors.old or "no such flavor"
        yield (
            f"warning: {old.flavor} is live as {old.version}; flavors.yaml here says {here}: "
            "do not deploy it from that"
        )


def _ledger_lines(rolling: Rolling, rollover: Rollover) -> Iterator[str]:
    """Yields why the ledger does not have the rollback, or has it without a signature."""
    try:
        told = entries(rolling.store, rollover.model)
    except PublishError as error:
        yield f"warning: the ledger cannot be read: {error.what}"
        return
    ours = [entry.facts for entry in told if entry.facts.get("rollover") == rollover.id]
    reasons = dict.fromkeys(facts[NOT_SIGNED] for facts in ours if NOT_SIGNED in facts)
    yield from (f"not signed: the ledger's entry of this: {reason}" for reason in reasons)


def finish(
    rolling: Rolling, model: str | None, in_git: InGit
) -> tuple[Outcome, FlavorEdited | None]:
    """Deletes the old flavor where its evidence is there; in git too where that is asked for.

    Args:
        rolling: Where.
        model: The model; None: the one that has a live rollover.
        in_git: Whether the deletion is committed, and pushed.

    Returns:
        What it came to; and the edit, where the flavor is gone from this clone's file.
    """
    outcome = move(rolling, model, "finish")
    rollover = outcome.rollover
    gone_here = {lack.evidence for lack in outcome.lacks} <= {"gone"}
    if not (gone_here and rollover.state in ("retiring", "retired")):
        return outcome, None
    old = rollover.old
    edit = partial(delete_flavor, flavor=old.flavor, expected=old.version)
    subject = f"Delete {old.flavor}: {rollover.new.flavor} has its traffic"
    edited = edit_flavor(rolling.checkout.root, old.flavor, edit, subject, in_git)
    if in_git.push and rollover.state == "retiring":
        outcome = move(rolling, rollover.model, "finish")
    return outcome, edited
