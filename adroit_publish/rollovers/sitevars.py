"""A target's sitevars: the places they are in, and what a pointer has to point at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from adroit_publish.bundle.content import Inline
from adroit_publish.bundle.digest import Digest
from adroit_publish.bundle.version_names import PublishedVersion
from adroit_publish.checkout import Checkout
from adroit_publish.config.flavors import find_flavor
from adroit_publish.config.sitevars import Pointer
from adroit_publish.config.targets import Target
from adroit_publish.custody.signature import admit_signed
from adroit_publish.edge.user import user_name
from adroit_publish.errors import ConfigError, PublishError, RefusedError
from adroit_publish.evidence.sitevar_file import FileDocuments
from adroit_publish.evidence.sitevar_ssm import Parameters
from adroit_publish.evidence.sitevars import Change, Seen, Sitevars, history_folder
from adroit_publish.rollovers.book import enter_pointer, weights_in
from adroit_publish.rollovers.regions import set_everywhere
from adroit_publish.stores.bundle_store import BundleStore
from adroit_publish.stores.chain import check_enterable, last_number
from adroit_publish.stores.changes import in_region, keyed
from adroit_publish.stores.contract import KeyTaken, Objects, Stat
from adroit_publish.stores.ledger import Step, entries, pointed_to
from adroit_publish.stores.lock import Held, hold
from adroit_publish.stores.s3.objects import S3Objects


class StoredDocuments:
    """Small documents that change, in a place of objects.

    Args:
        objects: The place.
    """

    def __init__(self, objects: Objects) -> None:
        self.location = objects.location
        self._objects = objects

    def read(self, key: str) -> Seen | None:
        stat = self._objects.stat(key)  # first: a tag older than the bytes only fails a `put`
        if stat is None:
            return None
        return Seen(b"".join(bytes(chunk) for chunk in self._objects.read(key)), stat.tag)

    def put(self, key: str, data: bytes, seen: Seen | None) -> bool:
        content, digest = Inline(data), Digest.of(data)
        try:
            if seen is None:
                self._objects.create(key, content, digest)
            else:
                self._objects.replace(key, content, digest, Stat(len(seen.data), seen.tag))
        except KeyTaken:
            return False
        return True

    def keys(self, prefix: str) -> Iterator[str]:
        return self._objects.keys(prefix)


def sitevars_of(target: Target, store: BundleStore) -> dict[str, Sitevars]:
    """Returns the sitevars of ``target`` by region; nothing is read yet. Of one: ``{"": it}``.

    Args:
        target: The target.
        store: Its bundle store: the history is kept there, and the locks where they are needed.

    Raises:
        ConfigError: The target has none.
    """
    addresses = target.sitevar_addresses
    if not addresses:
        raise ConfigError(
            f"Target {target.name} has no sitevars.",
            where="adroit.toml",
            wanted='sitevars = "file:PATH", "s3://BUCKET/KEY" or "ssm:/PREFIX"; or a table of them '
            "by region",
        )
    return {region: _open(target, store, region, at) for region, at in addresses.items()}


def chosen(sitevars: Mapping[str, Sitevars], region: str | None) -> dict[str, Sitevars]:
    """Returns the sitevars of one region; of every region where none is named.

    Raises:
        ConfigError: The target has no such region.
    """
    if region is None:
        return dict(sitevars)
    if region not in sitevars:
        raise ConfigError(
            f"The target has no region {region!r}.",
            where="adroit.toml",
            wanted=", ".join(filter(None, sitevars)) or "no --region: its sitevar is of everywhere",
        )
    return {region: sitevars[region]}


def _open(target: Target, store: BundleStore, region: str, address: str) -> Sitevars:
    kept = StoredDocuments(store.objects)
    scheme, _, rest = address.partition(":")
    if scheme == "ssm":

        def lock(model: str) -> AbstractContextManager[Held]:
            return hold(store.objects, f"{history_folder(model, region)}lock", user_name())

        return Sitevars(Parameters(rest, target.account, lock), None, kept, region)
    place, _, name = address.rpartition("/")
    if scheme == "s3":
        objects = S3Objects(place, account=target.account)
        return Sitevars(StoredDocuments(objects), name, kept, region)
    return Sitevars(FileDocuments(Path(place.removeprefix("file:") or "/")), name, kept, region)


@dataclass(frozen=True)
class Pointing:
    """What ``point_everywhere`` came to.

    Attributes:
        before: By region that was set, what it said before; None: nothing.
        error: Names the regions that could not be set, or says why a change is not entered; None:
            everything was done.
    """

    before: Mapping[str, Pointer | None]
    error: PublishError | None


def point_everywhere(
    checkout: Checkout,
    sitevars: Mapping[str, Sitevars],
    store: BundleStore,
    model_name: str,
    pointer: Pointer,
    expected: Callable[[Sitevars], Pointer | None],
    why: str,
) -> Pointing:
    """Points a model at flavors by hand, in all regions at once, and enters that in the ledger.

    A region that fails stops no other. The same command again does what is missing.

    Args:
        checkout: The checkout that has the flavors.
        sitevars: Where the pointer is, by region.
        store: The target's bundle store, where the ledger is.
        model_name: The model.
        pointer: What its entry is to say.
        expected: Tells what a sitevar says now; None: nothing. Called in threads.
        why: The reason; the history keeps it.

    Raises:
        PublishError: As ``check_pointer`` and ``check_enterable``; nothing was set.
    """
    check_pointer(checkout, store, model_name, pointer)
    check_enterable(store, model_name)
    before: dict[str, Pointer | None] = {}
    made: dict[str, tuple[Change | None, int]] = {}

    def set_one(region: str) -> None:
        there = sitevars[region]
        now, since = expected(there), last_number(store, model_name)
        change = there.set(model_name, pointer, expected=now, who=user_name(), why=why)
        before[region], made[region] = now, (change, since)

    errors = []
    try:
        if len(sitevars) == 1:  # its own error says it all
            set_one(*sitevars)
        else:
            set_everywhere(sitevars, set_one)
    except PublishError as error:
        errors.append(error)
    were_set = [region for region in sitevars if region in made]
    try:
        for region in were_set:
            _enter(checkout, sitevars[region], store, model_name, pointer, *made[region])
    except PublishError as error:
        errors.append(error)
    return Pointing({region: before[region] for region in were_set}, next(iter(errors), None))


def _enter(
    checkout: Checkout,
    sitevars: Sitevars,
    store: BundleStore,
    model_name: str,
    pointer: Pointer,
    change: Change | None,
    since: int,
) -> None:
    """Enters a pointer that was set by hand; without a change, unless whoever set it has."""
    known = pointed_to(entries(store, model_name), sitevars.region) or {}
    before = weights_in(change.before) if change else known
    if change is None:
        if known == weights_in(pointer):
            return
        change = sitevars.history(model_name)[-1]
    live = [
        {"flavor": flavor, "version": str(checkout.flavors[flavor].version), "weight": percent}
        for flavor, percent in pointer.weights
    ]
    facts = in_region({"live": live, "why": change.why}, sitevars.region)
    key = keyed(f"sitevar change {change.number}", sitevars.region)
    step = Step("pointed", facts, key, change.who)
    enter_pointer(store, sitevars, model_name, step, before, since)


def check_pointer(
    checkout: Checkout, store: BundleStore, model_name: str, pointer: Pointer
) -> None:
    """Lets a pointer pass whose flavors are in flavors.yaml, of this model, published and signed.

    Raises:
        ConfigError: There is no such flavor.
        RefusedError: It is of another model, or its version is not in the store, or not signed as
            the target demands.
        StoreError: The store failed.
    """
    for name in pointer.flavors:
        flavor = find_flavor(checkout.flavors, name)
        of_model = checkout.project(flavor).model_name
        if of_model != model_name:
            raise RefusedError(
                f"The flavor {name} is of another model.",
                where="flavors.yaml",
                got=of_model,
                wanted=model_name,
            )
        version = flavor.version
        if not isinstance(version, PublishedVersion):
            raise RefusedError(
                f"The flavor {name} is not published.",
                where="flavors.yaml",
                got=version or "no version",
                wanted="a published version",
                next_step=f"python publish_mlflow_model_flow.py run --flavor={name}",
            )
        published = store.find(model_name, version)
        if published is None:
            raise RefusedError(
                f"The version of the flavor {name} is not in this target's store.",
                where=store.location,
                got=version,
                next_step="publish the flavor here, or choose another --target",
            )
        admit_signed(store, published, name)
