"""The ledger's entries as objects: numbered, and each with the digest of the one before it.

    ledger/<model>/<number>.json     canonical JSON: the entry's fields, and beside them
                                     {"schema": 2, "number": 7, "previous": "sha256:...",
                                      "digest": "sha256:..."}
                                     and with a signing key "target", the name of the target that
                                     it is for, and "signature", a DSSE envelope, its payload left
                                     out: the entry without "signature" and "digest"

An entry is created under the next number and nothing else, so the store decides the order of two
writers, and nobody's clock. ``previous`` is the ``digest`` of the entry before; ``digest`` is that
of all other fields, so an entry that was tampered with shows by itself, one that was taken out
shows by its number, and one that was put in another's place by the next one's ``previous``. Where
signatures are demanded, the last entry has to be signed: the chain makes that signature cover all
before it. One that is not signed is not damaged: it is read and told of, and no signature is put on
top of it.

Schema 1 named its entries ``<utc>-<step><content>.json`` and had no chain; they come first. The
``previous`` of number 1 is the digest of their names, one a line, which hold digests of their
content: so the chain covers them too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adroit_publish.attestations.demand import Demand
from adroit_publish.attestations.envelope import sign, signer_of
from adroit_publish.attestations.keys import signer_at
from adroit_publish.bundle.content import Inline
from adroit_publish.bundle.digest import Digest
from adroit_publish.bundle.document import canonical_json, parse_json_object
from adroit_publish.bundle.kept import Fields, count, reading, text
from adroit_publish.errors import RefusedError, VerificationError
from adroit_publish.stores.bundle_store import BundleStore

if TYPE_CHECKING:
    from securesystemslib.signer import Signer

SCHEMA = 2
ENTRY_PAYLOAD_TYPE = "application/vnd.adroit.ledger-entry+json"
_OLD_NAME = re.compile(r"(\d{8}T\d{6}\.\d{6}Z)-([0-9a-f]{16})([0-9a-f]{16})\.json")
_NAME = re.compile(r"\d{8}\.json")
_READERS = 8


@dataclass(frozen=True)
class Link:
    """One object of the ledger.

    Attributes:
        number: Its place in the chain, from 1; 0 for those of schema 1.
        fields: What it says, without what links it to the others.
        where: Where it is, for messages.
    """

    number: int
    fields: Mapping[str, Any]
    where: str


@dataclass(frozen=True)
class Chain:
    """A model's ledger as it was read; oldest first.

    Attributes:
        store: Where it is.
        model: The model.
        links: Its objects.
        tip: What the next one has to name as ``previous``.
        damaged: Objects that can be read, and are not what the chain says.
    """

    store: BundleStore
    model: str
    links: tuple[Link, ...]
    tip: Digest
    damaged: tuple[Link, ...] = ()

    @property
    def number(self) -> int:
        """The number of the last link; 0 where the chain has not begun."""
        return self.links[-1].number if self.links else 0

    def next_link(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the next link, not signed."""
        number = self.number + 1
        return {**fields, "schema": SCHEMA, "number": number, "previous": str(self.tip)}

    def signed(self, link: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the next link, signed where the target signs; raises as ``check_enterable``."""
        signer = _next_signer(self)
        if signer is None:
            return dict(link)
        link = {**link, "target": self.store.target}
        envelope = sign(canonical_json(link), signer, ENTRY_PAYLOAD_TYPE)
        signature = parse_json_object(envelope, "an envelope") | {"payload": ""}
        return {**link, "signature": signature}

    def add(self, link: Mapping[str, Any]) -> None:
        """Creates the next link, durable when this returns.

        Raises:
            KeyTaken: Another writer was first: read the chain again.
            StoreError: The store failed.
        """
        data = canonical_json({**link, "digest": str(Digest.of(canonical_json(link)))})
        key = f"ledger/{self.model}/{link['number']:08}.json"
        self.store.objects.create(key, Inline(data), Digest.of(data))


def read_chain(store: BundleStore, model: str) -> Chain:
    """Returns a model's ledger, every link of it what the chain says; signed or not.

    Raises:
        StoreError: The store failed.
        VerificationError: An object is not what its name, its digest or its neighbours say.
    """
    chain, problems = look_at_chain(store, model)
    if problems:
        raise problems[0]
    return chain


def look_at_chain(store: BundleStore, model: str) -> tuple[Chain, list[VerificationError]]:
    """Returns as much of a model's ledger as is right, and everything that is damaged.

    Raises:
        StoreError: The store failed.
    """
    old_names, names, problems = _names(store, model)
    tip = Digest.of("\n".join(old_names).encode())
    links: list[Link] = []
    damaged: list[Link] = []
    with ThreadPoolExecutor(_READERS) as readers:
        contents = readers.map(lambda name: _read(store, model, name), [*old_names, *names])
        for name, data in zip([*old_names, *names], contents, strict=True):
            where = f"{store.location}/ledger/{model}/{name}"
            try:
                if name in old_names:
                    links.append(_old_link(name, data, where))
                    continue
                number = links[-1].number + 1 if links else 1
                link, digest = _link(name, data, where, number, tip)
            except VerificationError as error:
                problems.append(error)
                with suppress(VerificationError):
                    value = parse_json_object(data, where)
                    damaged.append(Link(0 if name in old_names else int(name[:8]), value, where))
            else:
                links.append(link)
                tip = digest
    return Chain(store, model, tuple(links), tip, tuple(damaged)), problems


def check_enterable(store: BundleStore, model: str) -> None:
    """Makes sure that what is entered here now will be accepted, before anything is done.

    Raises:
        ConfigError: The signing key cannot be read.
        RefusedError: The target demands signatures, and its own would not be one of them.
        StoreError: The store or AWS failed.
        VerificationError: The ledger is damaged, or the next signature would cover an entry that
            nobody signed.
    """
    if store.demand or store.signing_key:
        _next_signer(read_chain(store, model))


def signed_number(chain: Chain) -> int:
    """Returns the number of the last link that is signed as demanded, and so all before it.

    The last one's where nothing is demanded; -1 where no link is signed.
    """
    demand = chain.store.demand
    if demand is None:
        return chain.number
    return next((link.number for link in reversed(chain.links) if _is_signed(link, demand)), -1)


def unsigned_tip(chain: Chain) -> VerificationError | None:
    """Returns what is wrong where the last link is not signed as demanded; None where it is."""
    demand = chain.store.demand
    if demand is None or not chain.links or _is_signed(chain.links[-1], demand):
        return None
    last = chain.links[-1]
    by_others = f"another signature, or one for another target: {last.fields.get('target')}"
    return VerificationError(
        "The ledger's last entry is not signed as its target demands.",
        where=last.where,
        got=by_others if "signature" in last.fields else "no signature",
        wanted=f"one for {demand.target} by: {', '.join(demand.addresses)}",
        next_step="find out who wrote it; where it is right, enter the next one by `signing_key` "
        "alone, without `require_signature`",
    )


def _is_signed(link: Link, demand: Demand) -> bool:
    if "signature" not in link.fields or link.fields.get("target") != demand.target:
        return False
    entry = {name: value for name, value in link.fields.items() if name != "signature"}
    payload, signature = canonical_json(entry), canonical_json(link.fields["signature"])
    with suppress(VerificationError):
        return bool(signer_of(signature, demand.keys, link.where, payload, ENTRY_PAYLOAD_TYPE))
    return False


def _next_signer(chain: Chain) -> Signer | None:
    """Returns what signs the next link; None where the target neither signs nor demands it."""
    demand, address = chain.store.demand, chain.store.signing_key
    signer = signer_at(address) if address else None
    if demand is None:
        return signer
    if signer is None or signer.public_key not in demand.keys.values():
        raise RefusedError(
            "What is entered here would not be accepted here.",
            where=f"target {demand.target} in adroit.toml",
            got=f"signing_key {address}" if address else "no signing_key",
            wanted=f"a key of require_signature: {', '.join(demand.addresses)}",
            next_step="add `signing_key`, or do this where the key is",
        )
    if unsigned := unsigned_tip(chain):
        raise unsigned
    return signer


def last_number(store: BundleStore, model: str) -> int:
    """Returns the number of the last entry by its name alone; 0 where the chain has not begun."""
    names = [name for name in store.objects.children(f"ledger/{model}/") if _NAME.fullmatch(name)]
    return int(names[-1][:8]) if names else 0


def _names(store: BundleStore, model: str) -> tuple[list[str], list[str], list[VerificationError]]:
    """Returns the names of schema 1, those of the chain, and what is neither; each sorted."""
    old, new, problems = [], [], []
    for name in store.objects.children(f"ledger/{model}/"):
        if _OLD_NAME.fullmatch(name):
            old.append(name)
        elif _NAME.fullmatch(name):
            new.append(name)
        else:
            problems.append(
                VerificationError(
                    "Something in the ledger is not an entry.",
                    where=f"{store.location}/ledger/{model}/{name}",
                    wanted="NUMBER.json",
                    next_step="find out who put it there; this program did not",
                )
            )
    return old, new, problems


def _read(store: BundleStore, model: str, name: str) -> bytes:
    return b"".join(bytes(chunk) for chunk in store.objects.read(f"ledger/{model}/{name}"))


def _old_link(name: str, data: bytes, where: str) -> Link:
    got = Digest.of(data).hex[:16]
    if got != name[-21:-5]:
        raise _not_what_it_was(where, got, name[-21:-5])
    value = parse_json_object(data, where)
    with reading("An entry of the ledger", where, value.get("schema"), 1):
        return Link(0, value, where)


def _link(name: str, data: bytes, where: str, number: int, previous: Digest) -> tuple[Link, Digest]:
    """Returns a link of the chain and its digest; raises VerificationError where it is not one."""
    try:
        value = parse_json_object(data, where)
        digest = value.pop("digest", None)
        got = str(Digest.of(canonical_json(value)))
        same = data == canonical_json(value | {"digest": got})
    except (VerificationError, ValueError):
        digest, got, same = None, "something that is not JSON", False
    if not same:
        raise _not_what_it_was(where, got, digest)
    with reading("An entry of the ledger", where, value.get("schema"), SCHEMA):
        fields = Fields(value)
        own, before = fields.take("number", count), fields.take("previous", text)
    if (own, f"{own:08}.json") != (number, name):
        raise _not_what_it_was(where, f"number {own}", f"number {number}")
    if before != str(previous):
        raise VerificationError(
            "The ledger's chain is broken.",
            where=where,
            got=f"an entry that follows {before}",
            wanted=f"one that follows {previous}",
            next_step="restore it from a backup of the store; this program never changes one",
        )
    return Link(own, value, where), Digest(got)


def _not_what_it_was(where: str, got: object, wanted: object) -> VerificationError:
    return VerificationError(
        "An entry of the ledger is not what it was.",
        where=where,
        got=got,
        wanted=wanted,
        next_step="restore it from a backup of the store; this program never changes one",
    )
