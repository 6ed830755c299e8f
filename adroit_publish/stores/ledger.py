"""The ledger: who pointed production where, and who undid or deleted what; added to, never changed.

    ledger/<model>/<utc>-<step><content>.json     canonical JSON; utc as 20261124T161513.123456Z

``step`` is the first 16 hex digits of the sha256 of the step's key, so that a listing tells whether
a step was recorded: what is continued after a crash records nothing twice. ``content`` is that of
the object itself, so that an entry that was tampered with shows. An entry is dated after the newest
one before it, also where two operators' clocks differ: entries in order are what happened in order.

Publishes and promotions have no entry: the records of the versions tell of them, and ``history``
reads both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from adroit_publish.bundle.content import Inline
from adroit_publish.bundle.digest import Digest
from adroit_publish.bundle.document import canonical_json, parse_json_object
from adroit_publish.bundle.kept import Fields, WrittenByNewer, reading, table, text
from adroit_publish.bundle.record import Record
from adroit_publish.config.names import name_problem
from adroit_publish.errors import RefusedError, VerificationError
from adroit_publish.stores.bundle_store import BundleStore
from adroit_publish.stores.contract import KeyTaken
from adroit_publish.stores.records import records

SCHEMA = 1
KINDS = {
    "pointed": ("live",),
    "rolled-back": ("live",),
    "deleted": ("flavor", "version"),
    "held": ("flavor", "version"),
}
"""What each kind of entry has to say. ``live`` is what the sitevar holds from then on: a list of
``{"flavor", "version", "weight"}``, weights in percent; empty where it no longer names the model.
"""
PUBLISHED = "published"
PROMOTED = "promoted"
_TIME = "%Y%m%dT%H%M%S.%fZ"
_NAME = re.compile(r"(\d{8}T\d{6}\.\d{6}Z)-([0-9a-f]{16})([0-9a-f]{16})\.json")


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
    """

    utc: datetime
    model: str
    kind: str
    who: str
    facts: Mapping[str, Any]
    key: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Returns it as JSON values."""
        return vars(self) | {"utc": self.utc.isoformat(), "facts": dict(self.facts)}


@dataclass(frozen=True)
class Share:
    """A flavor that was live.

    Attributes:
        flavor: Its name.
        version: The version behind it at that time.
        weight: Its share of the requests, in percent.
    """

    flavor: str
    version: str
    weight: float


@dataclass(frozen=True)
class Live:
    """What a sitevar said of a model for a while.

    Attributes:
        since_utc: From when on.
        who: Who set it.
        shares: What it named; nothing where the model had been taken out of it.
    """

    since_utc: datetime
    who: str
    shares: tuple[Share, ...]


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
        StoreError: The store failed.
        VerificationError: The entry that stands is damaged.
    """
    if kind not in KINDS or not facts.keys() >= set(KINDS[kind]) or not key or not _is_model(model):
        raise ValueError(f"no entry of a ledger: {kind!r} {key!r} of {model!r}, {dict(facts)}")
    _shares(facts.get("live", ()))
    step, names = Digest.of(key.encode()).hex[:16], _names(store, model)
    for name in names:
        if name[-37:-21] == step:
            return _same(_read(store, model, name), kind, facts, store)
    if names:
        now = max(now, _time_of(names[-1]) + timedelta(microseconds=1))
    entry = LedgerEntry(now.astimezone(UTC), model, kind, who, facts, key)
    data = canonical_json(entry.as_dict() | {"schema": SCHEMA})
    digest = Digest.of(data)
    name = f"{entry.utc.strftime(_TIME)}-{step}{digest.hex[:16]}.json"
    with suppress(KeyTaken):  # by the same bytes, as the name says; they are read back
        store.objects.create(f"ledger/{model}/{name}", Inline(data), digest)
    return _read(store, model, name)


def entries(store: BundleStore, model: str) -> list[LedgerEntry]:
    """Returns all entries of a model, oldest first, one for each step.

    Raises:
        StoreError: The store failed.
        VerificationError: An entry is not what its name says.
    """
    if not _is_model(model):
        return []
    by_step: dict[str, LedgerEntry] = {}
    for name in _names(store, model):
        entry = _read(store, model, name)
        by_step.setdefault(entry.key, entry)  # of two recorders at once, the first one
    return list(by_step.values())


def history(store: BundleStore, model: str) -> list[LedgerEntry]:
    """Returns what was published and all entries, oldest first; raises as ``entries`` does.

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
    return sorted([*published, *entries(store, model)], key=lambda entry: entry.utc)


def live_at(entries: Iterable[LedgerEntry], when: datetime) -> Live | None:
    """Returns what was live at ``when``, or None where nothing had been pointed to yet.

    Args:
        entries: Entries of one model, oldest first.
        when: Aware of its zone; what happened at this very moment had happened.
    """
    live = None
    for entry in entries:
        if "live" in KINDS.get(entry.kind, ()) and entry.utc <= when:
            live = Live(entry.utc, entry.who, _shares(entry.facts["live"]))
    return live


def _names(store: BundleStore, model: str) -> list[str]:
    """Returns the names of a model's entries, oldest first."""
    names = list(store.objects.children(f"ledger/{model}/"))
    for name in names:
        if not _NAME.fullmatch(name):
            raise VerificationError(
                "Something in the ledger is not an entry.",
                where=f"{store.location}/ledger/{model}/{name}",
                wanted="UTC-32HEX.json",
                next_step="find out who put it there; this program did not",
            )
    return names


def _read(store: BundleStore, model: str, name: str) -> LedgerEntry:
    key = f"ledger/{model}/{name}"
    where = f"{store.location}/{key}"
    data = b"".join(bytes(chunk) for chunk in store.objects.read(key))
    got = Digest.of(data)
    if got.hex[:16] != name[-21:-5]:
        raise VerificationError(
            "An entry of the ledger is not what it was.",
            where=where,
            got=got.hex[:16],
            wanted=name[-21:-5],
            next_step="restore it from a backup of the store; this program never changes one",
        )
    value = parse_json_object(data, where)
    with reading("An entry of the ledger", where, value.get("schema"), SCHEMA):
        return _entry(value, model, _time_of(name))


def _entry(value: Any, model: str, utc: datetime) -> LedgerEntry:
    fields = Fields(value)
    entry = LedgerEntry(
        datetime.fromisoformat(fields.take("utc", text)),
        fields.take("model", text),
        fields.take("kind", text),
        fields.take("who", text),
        fields.take("facts", table),
        fields.take("key", text),
    )
    if (entry.utc, entry.model) != (utc, model):
        raise ValueError(f"{entry.utc} of {entry.model}")
    if entry.kind not in KINDS:
        raise WrittenByNewer(f"the kind {entry.kind}")
    _shares(entry.facts.get("live", ()))
    return entry


def _same(
    there: LedgerEntry, kind: str, facts: Mapping[str, Any], store: BundleStore
) -> LedgerEntry:
    """Returns the entry that stands, unless it says that something else was done."""
    wanted = {"kind": kind} | {name: facts[name] for name in KINDS[kind]}
    got = {"kind": there.kind} | {name: there.facts.get(name) for name in KINDS[kind]}
    if canonical_json(got) != canonical_json(wanted):
        raise RefusedError(
            "The ledger says that something else was done in this step.",
            where=f"{store.location}/ledger/{there.model}, step {there.key}",
            got=got,
            wanted=wanted,
            next_step=f"python -m adroit_publish history {there.model}",
        )
    return there


def _shares(live: Iterable[Mapping[str, Any]]) -> tuple[Share, ...]:
    return tuple(
        Share(str(share["flavor"]), str(share["version"]), float(share["weight"])) for share in live
    )


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


def _time_of(name: str) -> datetime:
    return datetime.strptime(name[:23], _TIME).replace(tzinfo=UTC)


def _is_model(model: str) -> bool:
    return name_problem(model) is None
