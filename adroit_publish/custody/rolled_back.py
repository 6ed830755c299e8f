"""Versions that were rolled back: held, whichever flavor of their model would get one again.

A version hashes its content, so the live flavor that is republished with the source of the one
that was rolled back becomes exactly that version. The hold in flavors.yaml is of a flavor, and of
the clones that have it; this is of the version, and of everybody: it stands in the ledger.
"""

from __future__ import annotations

from collections.abc import Mapping

from adroit_publish.errors import RefusedError
from adroit_publish.stores.bundle_store import BundleStore
from adroit_publish.stores.ledger import LedgerEntry, entries


class RolledBack(RefusedError):
    """A flavor would get a version that was rolled back, and that nobody has released since."""


def rolled_back(store: BundleStore, model: str) -> dict[str, LedgerEntry]:
    """Returns by version the entries that hold what rollovers of a model rolled back.

    Raises:
        StoreError: The store failed.
        VerificationError: The ledger is damaged.
    """
    held: dict[str, LedgerEntry] = {}
    for entry in entries(store, model):
        if entry.kind == "held" and "rollover" in entry.facts:
            held[entry.facts["version"]] = entry
        elif entry.kind == "unheld":
            flavor = entry.facts["flavor"]
            held = {name: past for name, past in held.items() if past.facts["flavor"] != flavor}
    return held


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
        next_step=f"python -m adroit_publish unhold {entry.facts['flavor']}; "
        "only once the reason is gone",
    )
