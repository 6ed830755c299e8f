"""What a model's ledger tells, however much of it is right: its history, and what was live."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from adroit_publish.bundle.record import Record
from adroit_publish.config.names import name_problem
from adroit_publish.errors import VerificationError
from adroit_publish.stores.bundle_store import BundleStore
from adroit_publish.stores.chain import look_at_chain, read_chain, signed_number, unsigned_tip
from adroit_publish.stores.ledger import (
    NOT_SIGNED,
    POINTING,
    LedgerEntry,
    Share,
    entries_of,
    entry_of,
    region_of,
    shares_in,
    weights_of,
)
from adroit_publish.stores.records import records

PUBLISHED = "published"
PROMOTED = "promoted"


@dataclass(frozen=True)
class Told:
    """What a ledger says, whatever its state.

    Attributes:
        proven: Entries of a chain that is whole, up to the last one that is signed as demanded.
        unproven: The others that can be read.
        problems: What is damaged or not signed.
    """

    proven: list[LedgerEntry]
    unproven: list[LedgerEntry]
    problems: list[VerificationError]

    @property
    def all(self) -> list[LedgerEntry]:
        """Everything that can be read, in the order of the numbers."""
        return sorted([*self.proven, *self.unproven], key=lambda entry: entry.number)


def look(store: BundleStore, model: str) -> Told:
    """Returns what a model's ledger says, as far as it can be read.

    Raises:
        StoreError: The store failed.
    """
    if name_problem(model):
        return Told([], [], [])
    chain, problems = look_at_chain(store, model)
    if not problems:
        problems = [unsigned for unsigned in [unsigned_tip(chain)] if unsigned]
    signed = signed_number(chain)
    proven: list[LedgerEntry] = []
    unproven: list[LedgerEntry] = []
    for link in (*chain.links, *chain.damaged):
        try:
            entry = entry_of(link, model)
        except VerificationError as error:
            problems.append(error)
        else:
            is_proven = link.number <= signed and link not in chain.damaged
            (proven if is_proven else unproven).append(entry)
    return Told(proven, unproven, problems)


def history(store: BundleStore, model: str) -> list[LedgerEntry]:
    """Returns what was published and all entries, oldest first; raises as ``entries`` does.

    An entry that is not signed as demanded says so: ``NOT_SIGNED``, and why, as far as is known.

    A publish says ``version``, ``run_id`` and, where it is one, ``republished_from``; a promotion
    ``version``, ``from`` and ``to``. Versions that were collected as garbage took their records
    with them.
    """
    published = [
        LedgerEntry(
            _time(record.created_utc),
            model,
            PROMOTED if record.promoted else PUBLISHED,
            str(record.who),
            {"version": version.version, **_facts(record)},
        )
        for version in store.versions(model)
        for record in records(store, version)
    ]
    told, reached = [], datetime.min.replace(tzinfo=UTC)
    for entry in _marked(store, model):
        reached = max(reached, entry.utc)  # a slow clock changes no order
        told.append((reached, entry))
    told += [(entry.utc, entry) for entry in published]
    return [entry for _, entry in sorted(told, key=lambda pair: pair[0])]


def _marked(store: BundleStore, model: str) -> list[LedgerEntry]:
    """Returns all entries; those that are not signed as demanded say so."""
    if name_problem(model):
        return []
    chain = read_chain(store, model)
    signed = signed_number(chain)
    return [
        entry
        if entry.number <= signed
        else replace(entry, facts={NOT_SIGNED: "no accepted key signed it", **entry.facts})
        for entry in entries_of(chain)
    ]


@dataclass(frozen=True)
class Live:
    """What the sitevar said of a model for a while, or those of all regions.

    Attributes:
        since_utc: From when on.
        who: Who made the last change.
        shares: What it named; nothing where the model had been taken out of it.
    """

    since_utc: datetime
    who: str
    shares: tuple[Share, ...]


def live_at(entries: Iterable[LedgerEntry], when: datetime) -> Live | None:
    """Returns what was live at ``when``, or None where nothing had been pointed to yet.

    Args:
        entries: Entries of one model, oldest first.
        when: Aware of its zone; what happened at this very moment had happened.
    """
    told = list(entries)
    authors, live = authors_of(told), None
    by_region: dict[str, tuple[Share, ...]] = {}
    for entry in told:
        if entry.kind in POINTING and entry.utc <= when:
            author, region = authors.get(entry.number, entry), region_of(entry)
            by_region = {
                place: by_region[place] for place in by_region if bool(place) == bool(region)
            }
            by_region[region] = tuple(
                replace(share, region=region) for share in shares_in(author.facts["live"])
            )
            live = Live(
                entry.utc,
                author.who,
                tuple(share for shares in by_region.values() for share in shares),
            )
    return live


def live_flavors(told: Iterable[LedgerEntry]) -> set[str]:
    """Returns the flavors that the last word gives a share of the requests, in any region."""
    live = live_at(told, datetime.max.replace(tzinfo=UTC))
    return {share.flavor for share in live.shares} if live else set()


def authors_of(told: Sequence[LedgerEntry]) -> dict[int, LedgerEntry]:
    """Returns by number who came late to say that a ``changed-outside`` entry is theirs."""
    by_number = {entry.number: entry for entry in told if entry.kind in POINTING}
    late = [(entry.facts["entry"], entry) for entry in told if entry.kind == "explained"]
    return {
        number: entry
        for number, entry in late
        if number in by_number  # else it was lost: a damaged ledger is read as far as it goes
        and weights_of(by_number[number].facts["live"]) == weights_of(entry.facts["live"])
    }


def _facts(record: Record) -> dict[str, Any]:
    promoted = record.promoted.as_dict() if record.promoted else {}
    made_from = {"run_id": record.run_id, "republished_from": record.republished_from}
    return promoted | {name: value for name, value in made_from.items() if value}


def _time(text: object) -> datetime:
    """Returns a record's time; the beginning of time where it has none that can be read."""
    try:
        time = datetime.fromisoformat(str(text))
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
    return time if time.tzinfo else time.replace(tzinfo=UTC)
