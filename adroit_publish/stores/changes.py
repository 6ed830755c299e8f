"""Changes of the sitevar, entered in the ledger in their order and under their authors' names.

The ledger orders entries by who comes first, and a change is entered after it was made: of two
writers at once, the later one may come first. Each knows what it replaced, which tells.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from adroit_publish.stores.bundle_store import BundleStore
from adroit_publish.stores.ledger import (
    UNKNOWN,
    LedgerEntry,
    Step,
    check_step,
    pointed_to,
    record,
    region_of,
    weights_of,
)
from adroit_publish.stores.live import authors_of


@dataclass(frozen=True)
class SitevarChange:
    """A change of the sitevar that was made.

    Attributes:
        before: What it replaced, percent by flavor; empty: nothing.
        after: What it set.
        since: The number of the last entry when it had not been made yet.
        current: Tells what the sitevar says now.
    """

    before: Mapping[str, float]
    after: Mapping[str, float]
    since: int
    current: Callable[[], Mapping[str, float]]


def enter_change(
    store: BundleStore, model: str, step: Step, made: SitevarChange, now: datetime
) -> LedgerEntry:
    """Records a change of the sitevar where it belongs, whoever else writes at the same time.

    Where the last entry is not what the change replaced, somebody changed it by other means, or has
    not come to the ledger yet: that is entered first, as ``changed-outside``. Who comes late finds
    it there, and is entered as ``explained``: as the author of that entry, or, where it says
    something else, of a change that took place just before it.

    Args:
        store: Where.
        model: The model's name.
        step: The change: ``facts`` have ``live``.
        made: What was changed.
        now: The time, aware of its zone.

    Raises:
        RefusedError, StoreError, VerificationError: As ``append`` does, and ``made.current``.
    """
    check_step(model, step.kind, step.facts, step.key)

    region = str(step.facts.get("region", ""))

    def next_step(told: Sequence[LedgerEntry]) -> Step:
        if any(entry.key == step.key for entry in told):
            known = pointed_to(told, region) or {}
            if known == made.after or made.current() != made.after:
                return step
            again = f"{step.key}, again after entry {told[-1].number}"  # undone in between
            return replace(step, key=again)
        gap = _gap([entry for entry in told if region_of(entry) == region], made, region)
        if gap is not None:
            facts = {**step.facts, "entry": gap, "before": dict(made.before)}
            return Step("explained", facts, step.key, step.who)
        if (pointed_to(told, region) or {}) == made.before:
            return step
        return changed_outside(made.before, told, step.who, region)

    while True:
        entry = record(store, model, next_step, now)
        if entry.key.startswith(step.key):
            return entry


def changed_outside(
    weights: Mapping[str, float], told: Sequence[LedgerEntry], noticed_by: str, region: str = ""
) -> Step:
    """Returns the step that enters what the sitevar was found to say."""
    shares = [
        {"flavor": flavor, "version": "", "weight": percent}
        for flavor, percent in sorted(weights.items())
    ]
    number = told[-1].number if told else 0
    facts = in_region({"live": shares, "noticed_by": noticed_by}, region)
    key = keyed(f"changed outside after {number}", region)
    return Step("changed-outside", facts, key, UNKNOWN)


def in_region(facts: Mapping[str, Any], region: str) -> dict[str, Any]:
    """Returns an entry's facts with the region whose sitevar it is of, where there are several."""
    return {**facts, "region": region} if region else dict(facts)


def keyed(key: str, region: str) -> str:
    """Returns a step's key in a region: each region's sitevar has a step of its own."""
    return f"{key} in {region}" if region else key


def _gap(told: Sequence[LedgerEntry], made: SitevarChange, region: str) -> int | None:
    """Returns the number of the ``changed-outside`` entry that a late change is, or came before.

    A change that the sitevar still says is not late.
    """
    known, authors = pointed_to(told, region) or {}, authors_of(told)
    gaps, unclaimed = [], []
    for place, entry in enumerate(told):
        if entry.kind != "changed-outside" or entry.number <= made.since:
            continue
        author, replaced = authors.get(entry.number), pointed_to(told[:place], region) or {}
        if author is None:
            unclaimed.append((entry.number, replaced, weights_of(entry.facts["live"])))
        if author is None or author.facts["before"] != replaced:  # else nothing fits in between
            gaps.append((entry.number, replaced))
    if not gaps:
        return None
    says = made.current()
    late = says != made.after
    exact = [number for number, *change in unclaimed if change == [made.before, made.after]]
    if exact and (late or known == made.after):
        return exact[0]
    same = [number for number, _, found in unclaimed if found == made.after]
    if late and same:
        return same[0]
    if known == made.before or not late or known != says:
        return None
    inside = [number for number, replaced in gaps if replaced == made.before]
    return next(iter([*inside, *(number for number, _ in gaps)]))
