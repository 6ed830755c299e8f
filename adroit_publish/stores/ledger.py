"""The ledger: who pointed production where, and who undid or deleted what; added to, never changed.

``chain`` keeps the entries: the store numbers them, and that is their order. The time in an entry
is its writer's word, and decides nothing but what ``--at`` answers. A step is entered once, by its
key: what is continued after a crash enters nothing twice.

Publishes and promotions have no entry: the records of the versions tell of them, and ``history``
reads both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from adroit_publish.bundle.document import canonical_json
from adroit_publish.bundle.kept import Fields, WrittenByNewer, reading, table, text
from adroit_publish.config.names import name_problem
from adroit_publish.errors import PublishError, RefusedError, StoreError
from adroit_publish.stores.bundle_store import BundleStore
from adroit_publish.stores.chain import (
    SCHEMA,
    Chain,
    Link,
    read_chain,
)
from adroit_publish.stores.contract import KeyTaken

KINDS = {
    "pointed": ("live",),
    "rolled-back": ("live",),
    "changed-outside": ("live",),
    "explained": ("entry", "live"),
    "deleted": ("flavor", "version"),
    "held": ("flavor", "version"),
    "unheld": ("flavor", "version"),
}
"""What each kind of entry has to say. ``live`` is what the sitevar holds from then on: a list of
``{"flavor", "version", "weight"}``, weights in percent; empty where it no longer names the model,
a version empty where it is not known. Where a target has several sitevars, ``region`` says which
one an entry is of. ``explained`` came late: it is the author of the
``changed-outside`` entry with the number ``entry``, or, where that says something else, of a change
just before it.
"""
POINTING = ("pointed", "rolled-back", "changed-outside")
UNKNOWN = "unknown"
"""Who changed the sitevar by other means than this program."""
NOT_SIGNED = "not_signed"
"""The fact of an entry that says why it is not signed; a rollback does not wait for a key."""
_TIME = "%Y%m%dT%H%M%S.%fZ"
_ATTEMPTS = 40
_SKEW = timedelta(minutes=1)
"""Clocks that differ by less are not told apart: what comes later is dated later."""


@dataclass(frozen=True)
class LedgerEntry:
    """One thing that happened to a model.

    Attributes:
        utc: When.
        model: The model's name.
        kind: One of ``KINDS``, or ``published`` or ``promoted``.
        who: Who did it.
        facts: What ``KINDS`` asks for, and whatever else is worth knowing; JSON values.
        key: The step it records; empty for a publish and a promotion.
        number: Its place in the ledger's chain; 0 for a publish, a promotion, and what was
            entered before there was a chain.
    """

    utc: datetime
    model: str
    kind: str
    who: str
    facts: Mapping[str, Any]
    key: str = ""
    number: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Returns it as JSON values."""
        return vars(self) | {"utc": self.utc.isoformat(), "facts": dict(self.facts)}


@dataclass(frozen=True)
class Step:
    """What is to be entered; attributes as those of ``LedgerEntry``."""

    kind: str
    facts: Mapping[str, Any]
    key: str
    who: str


@dataclass(frozen=True)
class Share:
    """A flavor that was live.

    Attributes:
        flavor: Its name.
        version: The version behind it at that time.
        weight: Its share of the requests, in percent.
        region: Where; empty where a target has one sitevar.
    """

    flavor: str
    version: str
    weight: float
    region: str = ""


def append(
    store: BundleStore,
    model: str,
    kind: str,
    facts: Mapping[str, Any],
    *,
    key: str,
    who: str,
    now: datetime,
) -> LedgerEntry:
    """Records a step, once: where its key has an entry already, that one stands.

    Args:
        store: Where.
        model: The model's name.
        kind: One of ``KINDS``.
        facts: JSON values; see ``KINDS``.
        key: Names the step among all of the model, such as a rollover's id and step.
        who: Who does it.
        now: The time, aware of its zone.

    Returns:
        The entry that stands.

    Raises:
        RefusedError: The entry that stands says that something else was done.
        StoreError: The store failed, or other writers were faster each time.
        VerificationError: The ledger is damaged.
    """
    check_step(model, kind, facts, key)

    def step(_told: Sequence[LedgerEntry]) -> Step:
        return Step(kind, facts, key, who)

    return record(store, model, step, now)


def record(
    store: BundleStore,
    model: str,
    decide: Callable[[Sequence[LedgerEntry]], Step],
    now: datetime,
) -> LedgerEntry:
    """Enters what ``decide`` returns of the entries that are there, under the next number.

    Args:
        store: Where.
        model: The model's name.
        decide: Told all entries, oldest first; again where another writer was faster.
        now: The time, aware of its zone.
    """
    for _ in range(_ATTEMPTS):
        chain = read_chain(store, model)
        told = entries_of(chain)
        step = decide(told)
        if same := next((entry for entry in told if entry.key == step.key), None):
            return _same(same, step, store)
        utc = _dated(now, told)
        entry = LedgerEntry(utc, model, step.kind, step.who, step.facts, step.key)
        entry, link = _link(chain, entry)
        try:
            chain.add(link)
        except KeyTaken:
            continue
        return replace(entry, number=chain.number + 1)
    raise StoreError(
        "Other writers of the ledger were faster each time.",
        where=f"{store.location}/ledger/{model}",
        transient=True,
        next_step="run the same command again",
    )


def _link(chain: Chain, entry: LedgerEntry) -> tuple[LedgerEntry, Mapping[str, Any]]:
    """Returns an entry and its link: signed, or, of a rollback, saying why it could not be."""
    link = chain.next_link({k: v for k, v in entry.as_dict().items() if k != "number"})
    try:
        return entry, chain.signed(link)
    except PublishError as error:
        if entry.kind != "rolled-back" and not is_hold_of_rollback(entry):
            raise
        why = "; ".join(filter(None, (error.what, str(error.where or ""))))
        facts = {**entry.facts, NOT_SIGNED: why}
        return replace(entry, facts=facts), link | {"facts": facts}


def is_hold_of_rollback(entry: LedgerEntry) -> bool:
    """Whether an entry holds the version that a rollover rolled back."""
    return entry.kind == "held" and "rollover" in entry.facts


def entries(store: BundleStore, model: str) -> list[LedgerEntry]:
    """Returns all entries of a model in the order of their numbers, one for each step.

    Signed or not: who goes by one for more than its word asks ``chain.unsigned_tip``.

    Raises:
        StoreError: The store failed.
        VerificationError: An entry is not what its name says, or the chain is broken.
    """
    return entries_of(read_chain(store, model)) if name_problem(model) is None else []


def region_of(entry: LedgerEntry) -> str:
    """Returns the region whose sitevar an entry is of; empty where a target has one sitevar."""
    return str(entry.facts.get("region", ""))


def weights_of(live: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Returns what an entry's ``live`` says of weights: percent by flavor."""
    return {share.flavor: share.weight for share in shares_in(live)}


def pointed_to(told: Iterable[LedgerEntry], region: str = "") -> dict[str, float] | None:
    """Returns the weights that the last entry about a region says; None where none does."""
    pointing = [entry for entry in told if entry.kind in POINTING and region_of(entry) == region]
    live = [entry.facts["live"] for entry in pointing]
    return weights_of(live[-1]) if live else None


def _dated(now: datetime, told: Sequence[LedgerEntry]) -> datetime:
    """Returns the time of a new entry: the writer's, but where its clock is a little slow."""
    now = now.astimezone(UTC)
    if told and timedelta(0) <= told[-1].utc - now < _SKEW:
        return told[-1].utc + timedelta(microseconds=1)
    return now


def check_step(model: str, kind: str, facts: Mapping[str, Any], key: str) -> None:
    """Raises ValueError for an entry that lacks what it has to say."""
    if kind not in KINDS or not facts.keys() >= set(KINDS[kind]) or not key or name_problem(model):
        raise ValueError(f"no entry of a ledger: {kind!r} {key!r} of {model!r}, {dict(facts)}")
    shares_in(facts.get("live", ()))


def entries_of(chain: Chain) -> list[LedgerEntry]:
    """Returns the entries of a chain; raises as ``entries`` does."""
    by_step: dict[str, LedgerEntry] = {}
    for link in chain.links:
        entry = entry_of(link, chain.model)
        by_step.setdefault(entry.key, entry)  # of two recorders at once, in schema 1: the first
    return list(by_step.values())


def entry_of(link: Link, model: str) -> LedgerEntry:
    """Returns what a link says; raises VerificationError where it is damaged or of a newer kind."""
    with reading("An entry of the ledger", link.where, SCHEMA, SCHEMA):
        return _entry(link, model)


def _entry(link: Link, model: str) -> LedgerEntry:
    fields = Fields(link.fields)
    entry = LedgerEntry(
        datetime.fromisoformat(fields.take("utc", text)),
        fields.take("model", text),
        fields.take("kind", text),
        fields.take("who", text),
        fields.take("facts", table),
        fields.take("key", text),
        link.number,
    )
    dated = link.number or link.where.endswith(f"{entry.utc.strftime(_TIME)}{link.where[-38:]}")
    if entry.model != model or not dated:
        raise ValueError(f"{entry.utc} of {entry.model}")
    if entry.kind not in KINDS:
        raise WrittenByNewer(f"the kind {entry.kind}")
    shares_in(entry.facts.get("live", ()))
    return entry


def _same(there: LedgerEntry, step: Step, store: BundleStore) -> LedgerEntry:
    """Returns the entry that stands, unless it says that something else was done."""
    kind = step.kind
    wanted = {"kind": kind} | {name: step.facts[name] for name in KINDS[kind]}
    got = {"kind": there.kind} | {name: there.facts.get(name) for name in KINDS[kind]}
    if there.kind == "explained" and kind in POINTING:
        return there
    if canonical_json(got) != canonical_json(wanted):
        raise RefusedError(
            "The ledger says that something else was done in this step.",
            where=f"{store.location}/ledger/{there.model}, step {there.key}",
            got=got,
            wanted=wanted,
            next_step=f"python -m adroit_publish history {there.model}",
        )
    return there


def shares_in(live: Iterable[Mapping[str, Any]]) -> tuple[Share, ...]:
    """Returns what an entry's ``live`` says; raises KeyError, TypeError or ValueError for less."""
    return tuple(
        Share(str(share["flavor"]), str(share["version"]), float(share["weight"])) for share in live
    )
