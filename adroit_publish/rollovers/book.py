"""What is entered in the ledger of pointers, of rollovers, and of holds; each once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from adroit_publish.config.sitevars import Pointer
from adroit_publish.evidence.sitevars import Sitevars
from adroit_publish.rollover.state import Rollover, Transition
from adroit_publish.stores.bundle_store import BundleStore
from adroit_publish.stores.changes import (
    SitevarChange,
    changed_outside,
    enter_change,
    in_region,
    keyed,
)
from adroit_publish.stores.ledger import (
    LedgerEntry,
    Step,
    append,
    entries,
    pointed_to,
    record,
)


def weights_in(pointer: Pointer | None) -> dict[str, float]:
    """Returns a pointer's percents by flavor; nothing where there is none."""
    return dict(pointer.weights) if pointer else {}


def enter_pointer(
    store: BundleStore,
    sitevars: Sitevars,
    model: str,
    step: Step,
    before: Mapping[str, float],
    since: int,
) -> None:
    """Enters a change of the sitevar that was made just now; see ``stores.changes``.

    Args:
        store: Where the ledger is.
        sitevars: Where the pointer is.
        model: The model.
        step: What is entered.
        before: What the change replaced.
        since: The number of the last entry before it was made.
    """
    after = {share["flavor"]: share["weight"] for share in step.facts["live"]}
    made = SitevarChange(before, after, since, lambda: weights_in(sitevars.get(model).pointer))
    enter_change(store, model, step, made, datetime.now(UTC))


def pointed_step(
    rollover: Rollover, kind: str, number: int, who: str, why: str | None, region: str = ""
) -> Step:
    """Returns the entry of a rollover's sitevar: the share that is being set, or that it has.

    Args:
        rollover: As it is kept.
        kind: ``pointed`` or ``rolled-back``.
        number: How many transitions there are with the one that this belongs to.
        who: Who set it.
        why: The reason.
        region: Whose sitevar it is, where a target has several.
    """
    weights = rollover.weights(rollover.shares_in(region)[-1])
    live = [
        {"flavor": side.flavor, "version": side.version, "weight": weights[side.flavor]}
        for side in (rollover.old, rollover.new)
        if side.flavor in weights
    ]
    facts = in_region({"live": live, "rollover": rollover.id, "why": why}, region)
    return Step(kind, facts, keyed(_key(rollover, number, kind), region), who)


def pointer_keys(rollover: Rollover) -> list[str]:
    """Returns the keys of the entries that a rollover's own changes of the sitevar have."""
    kinds = {("pointing", "pointed"): "pointed", ("rolling back", "rolled back"): "rolled-back"}
    return [
        keyed(_key(rollover, number, kinds[entry.before or "", entry.after]), region)
        for number, entry in enumerate(rollover.history, 1)
        if (entry.before, entry.after) in kinds
        for region in _regions(entry)
    ]


def _regions(entry: Transition) -> list[str]:
    """Returns the regions whose sitevars a transition found set; ``""`` where there is one."""
    return [str(region) for region in entry.facts.get("regions", [""])]


def note(
    store: BundleStore,
    rollover: Rollover,
    current: Callable[[], Mapping[str, float]],
    region: str = "",
) -> None:
    """Enters a rollover's last transition, where it belongs in the ledger.

    Args:
        store: Where the ledger is.
        rollover: As it is about to be kept.
        current: Reads the sitevar.
        region: Whose sitevar that is, where a target has several.
    """
    last = rollover.history[-1]
    now = datetime.fromtimestamp(last.at_s, UTC)
    if last.after == "held":
        note_outside(store, rollover.model, current, last.who, now, region)
    elif (last.before, last.after) == ("pointing", "pointed"):
        _note_pointed(store, rollover, "pointed", now, region)
    elif last.after == "rolled back":
        _note_pointed(store, rollover, "rolled-back", now, region)
        _note_flavor(store, rollover, "held", rollover.new.flavor, rollover.new.version)
    elif last.after == "retired":
        _note_flavor(store, rollover, "deleted", rollover.old.flavor, rollover.old.version)


class _AsEntered(Exception):
    """The ledger says what the sitevar says."""


def note_outside(
    store: BundleStore,
    model: str,
    current: Callable[[], Mapping[str, float]],
    who: str,
    now: datetime,
    region: str = "",
) -> None:
    """Enters what the sitevar says, where the ledger has something else.

    Args:
        store: Where the ledger is.
        model: The model.
        current: Reads the sitevar, once the ledger was read: what was read before may be of the
            time before an entry.
        who: Who noticed.
        now: When, aware of its zone.
        region: Whose sitevar it is, where a target has several.
    """

    def step(told: Sequence[LedgerEntry]) -> Step:
        weights = current()
        if weights == (pointed_to(told, region) or {}):
            raise _AsEntered
        return changed_outside(weights, told, who, region)

    with suppress(_AsEntered):
        record(store, model, step, now)


def note_hold(
    store: BundleStore, model: str, kind: str, facts: Mapping[str, Any], who: str
) -> bool:
    """Enters that a flavor is held or no longer held, unless the ledger says so already.

    Returns whether it was entered.

    Args:
        store: Where the ledger is.
        model: The model.
        kind: ``held`` or ``unheld``.
        facts: ``flavor``, ``version`` and ``why``.
        who: Whose word it is.
    """
    now = datetime.now(UTC)
    last = last_hold(store, model, str(facts["flavor"]))
    if (last.kind, last.facts.get("why")) == (kind, facts.get("why")) if last else kind != "held":
        return False
    key = f"{kind} {facts['flavor']} by hand, {now.isoformat()}"
    append(store, model, kind, facts, key=key, who=who, now=now)
    return True


def last_hold(store: BundleStore, model: str, flavor: str) -> LedgerEntry | None:
    """Returns the last entry that says whether a flavor is held; None where none does."""
    about = [
        entry
        for entry in entries(store, model)
        if entry.kind in ("held", "unheld") and entry.facts["flavor"] == flavor
    ]
    return about[-1] if about else None


def _note_pointed(
    store: BundleStore, rollover: Rollover, kind: str, now: datetime, region: str
) -> None:
    """Enters a pointer that is there by now, unless whoever set it has.

    Who finds it set by another did not get to that: it was who began to.
    """
    begun, last = rollover.history[-2:]
    if region not in _regions(last):
        return
    step = pointed_step(rollover, kind, len(rollover.history), begun.who, last.why, region)
    append(store, rollover.model, kind, step.facts, key=step.key, who=step.who, now=now)


def _note_flavor(
    store: BundleStore, rollover: Rollover, kind: str, flavor: str, version: str
) -> None:
    last = rollover.history[-1]
    append(
        store,
        rollover.model,
        kind,
        {"flavor": flavor, "version": version, "rollover": rollover.id, "why": last.why},
        key=_key(rollover, len(rollover.history), kind),
        who=last.who,
        now=datetime.fromtimestamp(last.at_s, UTC),
    )


def _key(rollover: Rollover, number: int, kind: str) -> str:
    return f"rollover {rollover.id}, step {number}: {kind}"
