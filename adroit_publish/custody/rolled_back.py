"""Versions that were rolled back: held, whichever flavor of their model would get one again.

A version hashes its content, so the live flavor that is republished with the source of the one
that was rolled back becomes exactly that version. The hold in flavors.yaml is of a flavor, and of
the clones that have it; this is of the version, and of everybody: it stands in the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from adroit_publish.errors import RefusedError
from adroit_publish.stores.bundle_store import BundleStore
from adroit_publish.stores.ledger import LedgerEntry, is_hold_of_rollback
from adroit_publish.stores.live import look


class RolledBack(RefusedError):
    """A flavor would get a version that was rolled back, and that nobody has released since."""


def rolled_back(
    store: BundleStore, model: str, warn: Callable[[str], None] = lambda _line: None
) -> dict[str, LedgerEntry]:
    """Returns by version the entries that hold what rollovers of a model rolled back.

    An entry that is damaged or not signed as demanded holds a version, and releases none. One that
    can no longer be read stops no publish, which makes nothing live; no rollover begins by it.

    Args:
        store: Where the ledger is.
        model: The model.
        warn: Told what is wrong with the ledger, a line each.

    Raises:
        StoreError: The store failed.
    """
    told = look(store, model)
    for problem in told.problems:
        warn(
            f"ledger: {problem.what} ({problem.where}); "
            "what cannot be read of it holds no version; "
            f"next: python -m adroit_publish verify-ledger {model}"
        )
    held: dict[str, LedgerEntry] = {}
    for entry in told.proven:
        if is_hold_of_rollback(entry):
            held[entry.facts["version"]] = entry
        elif entry.kind == "unheld":
            flavor = entry.facts["flavor"]
            held = {name: past for name, past in held.items() if past.facts["flavor"] != flavor}
    unproven = filter(is_hold_of_rollback, told.unproven)
    return held | {entry.facts["version"]: entry for entry in unproven}


def refuse_rolled_back(flavor: str, version: str, held: Mapping[str, LedgerEntry]) -> None:
    """Lets a version pass that a flavor is to get.

    Args:
        flavor: The flavor; empty for a version that no flavor gets.
        version: What it would get.
        held: As ``rolled_back`` returns it.

    Raises:
        RolledBack: The version is held.
    """
    if entry := held.get(version):
        raise refusal(flavor, version, entry)


def refusal(flavor: str, version: str, entry: LedgerEntry) -> RolledBack:
    """Returns the error that names a held version, and how to release it."""
    return RolledBack(
        f"{flavor or 'This'} would become {version}, and {version} was rolled back.",
        where=f"history {entry.model}, by {entry.who} at {entry.utc:%Y-%m-%d %H:%M:%S} UTC",
        got=entry.facts.get("why"),
        wanted="another version, or its reason gone",
        next_step=f"python -m adroit_publish unhold {entry.facts['flavor']}",
    )
