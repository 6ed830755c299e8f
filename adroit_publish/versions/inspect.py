"""Looking at what is published: lists, one version's facts, and the check of every byte."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from typing import Any, TypeVar

from adroit_publish.bundle.layer import layer_kind
from adroit_publish.bundle.version_names import PublishedVersion
from adroit_publish.checkout import Checkout
from adroit_publish.config.flavors import Flavor
from adroit_publish.config.names import nearest
from adroit_publish.config.sitevars import Pointer
from adroit_publish.config.targets import Target
from adroit_publish.custody.check import verify
from adroit_publish.custody.report import is_of_the_place
from adroit_publish.custody.signature import NotSigned, admit_signed
from adroit_publish.decide import (
    Cannot,
    EnvMoved,
    InOtherTarget,
    InRollover,
    NotImported,
    OnHold,
    Publish,
    Republish,
    State,
    UpToDate,
)
from adroit_publish.errors import ConfigError, PublishError, VerificationError
from adroit_publish.places import open_places
from adroit_publish.publish.planning import held_again
from adroit_publish.publish.survey import Standing, Survey
from adroit_publish.stores.bundle_store import BundleStore, Published
from adroit_publish.stores.ledger import entries
from adroit_publish.stores.live import live_at
from adroit_publish.version import Version
from adroit_publish.versions.signatures import signatures

T = TypeVar("T")
THREADS = 8
_WORDS = {State.PUBLISH: "pending", State.UP_TO_DATE: "published", State.OTHER_TARGET: "not here"}


@dataclass(frozen=True)
class VersionRow:
    """One published version in a list.

    Attributes:
        run_id: The MLflow run it was made from, or None where that cannot be read.
        created_utc: When it was first published, ISO 8601, or None where no record says.
        size_bytes: Its own layers together, or None where that cannot be read.
        flavors: Flavors of the checkout that name it.
        damage: What of it cannot be read, a line each; empty where all can.
    """

    version: str
    run_id: str | None
    created_utc: str | None
    who: str | None
    size_bytes: int | None
    flavors: tuple[str, ...]
    damage: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Returns it as JSON values; ``damage`` only where there is one."""
        return {name: value for name, value in asdict(self).items() if name != "damage" or value}


@dataclass(frozen=True)
class FlavorRow:
    """One flavor in the status.

    Attributes:
        state: As ``plan`` has it, by these words: ``pending`` for what waits to be published,
            ``published`` for what is up to date, ``not here`` for what is in another target,
            ``damaged`` (where that was asked for) for what is not whole in every place, and
            ``refused`` for what is not signed as the target demands.
        age_days: Days since it was published, or None.
        live_percent: Its share of its model's requests, by the sitevar; None where that does not
            name it, or cannot be read.
        live_version: The version that it was pointed to with, by the ledger: what flavors.yaml
            says may be another one by now. None where it is not live, or nobody entered that.
    """

    flavor: str
    version: str | None
    state: str
    age_days: float | None = None
    detail: str = ""
    live_percent: float | None = None
    live_version: str | None = None


def list_versions(
    checkout: Checkout | None, store: BundleStore, model_name: str
) -> list[VersionRow]:
    """Returns the published versions of a model, oldest first; a damaged one says so itself.

    Raises:
        RefusedError: The store denies access.
        StoreError: The store cannot be reached.
    """
    named: dict[str, list[str]] = {}
    for flavor in checkout.flavors.values() if checkout else ():
        named.setdefault(flavor.version or "", []).append(flavor.name)
    rows = (
        _version_row(store, model_name, name, tuple(named.get(name, ())))
        for name in store.version_names(model_name)
    )
    return sorted(filter(None, rows), key=lambda row: (row.created_utc or "", row.version))


def _version_row(
    store: BundleStore, model_name: str, name: str, flavors: tuple[str, ...]
) -> VersionRow | None:
    """Returns the row of a version; None where it was never committed."""
    damage: list[str] = []

    def readable(read: Callable[[], T]) -> T | None:
        try:
            return read()
        except PublishError as error:
            if is_of_the_place(error):
                raise
            damage.append(f"{error.where}: {error.what}")
            return None

    published = readable(lambda: store.find(model_name, name))
    if published is None:
        return VersionRow(name, None, None, None, None, flavors, damage[0]) if damage else None
    version = Version(store, published)
    first = next(iter(readable(lambda: version.records) or ()), None)
    return VersionRow(
        version.name,
        readable(lambda: version.bundle.run_id),
        first.created_utc if first else None,
        first.who if first else None,
        readable(lambda: sum(layer.size_bytes for layer in version.manifest.own_layers)),
        flavors,
        "\n".join(dict.fromkeys(damage)),
    )


def check_model(store: BundleStore, model_name: str) -> None:
    """Refuses a model that this store has neither a version of nor an entry of its ledger.

    Raises:
        ConfigError: There is no such model; the names most like it are listed.
        StoreError: The store failed.
    """
    known = {*store.models(), *store.objects.children("ledger/")}
    if model_name not in known:
        raise ConfigError(
            "There is no such model in this store.",
            where=store.location,
            got=model_name,
            wanted=nearest(model_name, known),
            next_step="see its name in projects/*/config.yaml, and that the target is right",
        )


def show(version: Version) -> dict[str, Any]:
    """Returns everything that is known of a version as JSON values; raises as ``Version``."""
    signed = signatures(version)
    return {
        "model_name": version.model_name,
        "version": version.name,
        "manifest": version.published.manifest.as_dict(),
        "bundle_id": version.bundle.bundle_id,
        "store": version.store.location,
        "layers": [
            {"kind": layer_kind(layer), "digest": layer.digest, "size": layer.size_bytes}
            for layer in version.manifest.layers
        ],
        "bundle": version.bundle.as_dict(),
        "records": [record.document for record in version.records],
        **({"signatures": [asdict(signature) for signature in signed]} if signed else {}),
    }


def status(
    checkout: Checkout,
    target: Target,
    store: BundleStore,
    pointers: Mapping[str, Sequence[Pointer]],
) -> list[FlavorRow]:
    """Returns the state of every flavor against one target; a damaged version is a detail.

    Args:
        checkout: The checkout.
        target: The target.
        store: Its bundle store.
        pointers: By model what its sitevar says; of every region, where there are several.

    Raises:
        StoreError, RefusedError: The store is away, or denies access.
    """
    live: dict[str, float] = {}
    for pointer in chain(*pointers.values()):
        for flavor, percent in pointer.weights:
            live[flavor] = max(percent, live.get(flavor, 0.0))
    survey = Survey(checkout, target, store, allow_dirty=True)
    with ThreadPoolExecutor(THREADS, "status") as pool:
        rows = list(pool.map(partial(_status_of, survey), checkout.flavors.values()))
    pointed = _pointed_versions(store, pointers)
    return [
        replace(
            row, live_percent=live.get(row.flavor), live_version=pointed.get(row.flavor) or None
        )
        for row in rows
    ]


def _pointed_versions(
    store: BundleStore, pointers: Mapping[str, Sequence[Pointer]]
) -> dict[str, str]:
    """Returns by live flavor the version that the ledger says it was pointed to with."""
    versions: dict[str, str] = {}
    for model, everywhere in pointers.items():
        flavors = {flavor for pointer in everywhere for flavor in pointer.flavors}
        try:
            live = live_at(entries(store, model), datetime.max.replace(tzinfo=UTC))
        except VerificationError:
            continue  # `verify-ledger` is where a damaged one is told
        shares = live.shares if live else ()
        versions |= {s.flavor: s.version for s in shares if s.flavor in flavors}
    return versions


def with_custody(rows: Sequence[FlavorRow], checkout: Checkout, target: Target) -> list[FlavorRow]:
    """Returns the rows: ``damaged`` is not whole, ``refused`` not signed as is demanded.

    Raises:
        PublishError: As ``status``.
    """

    def looked_at(row: FlavorRow) -> FlavorRow:
        unsigned = None
        if not isinstance(row.version, PublishedVersion):
            return row
        try:
            model_name = checkout.project(checkout.flavors[row.flavor]).model_name
            places = open_places(target, model_name)
            published = places.store.find(model_name, row.version)
            if published is None:
                return row
            problems = verify(places.store, published, places.images, shallow=True).problems
            unsigned = _unsigned(places.store, published, row.flavor)
        except PublishError as error:
            if is_of_the_place(error):
                raise
            problems = [error.what]
        if problems:
            return replace(row, state="damaged", detail="\n".join(problems))
        return replace(row, state="refused", detail=unsigned) if unsigned else row

    with ThreadPoolExecutor(THREADS, "check") as pool:
        return list(pool.map(looked_at, rows))


def _unsigned(store: BundleStore, published: Published, flavor: str) -> str | None:
    """Returns why a version's signature is refused as a flavor's; None where it is not."""
    try:
        admit_signed(store, published, flavor)
    except NotSigned as error:
        return f"{error.what} {error.got}"
    return None


def _status_of(survey: Survey, flavor: Flavor) -> FlavorRow:
    standing = survey.look(flavor)
    decision = standing.decision
    state = _WORDS.get(decision.state, decision.state.value)
    row = FlavorRow(flavor.name, flavor.version, state, _age_days(survey, standing))
    match decision:
        case Publish():
            return replace(row, detail="its version is a run id")
        case OnHold(why):
            return replace(row, detail=why)
        case InOtherTarget():
            return replace(row, detail=f"not in {survey.store.location}")
        case Cannot(error):
            if is_of_the_place(error):
                raise error
            return replace(row, detail=error.what)
        case Republish(changes) as stale:
            assert standing.opened is not None
            if held := held_again(survey, flavor, stale, standing.opened):
                detail = f"{held.what} next: {held.next_step}"
                return replace(row, state=State.HELD.value, detail=detail)
            return replace(row, detail="; ".join(changes.lines()))
        case InRollover(rolling):
            return replace(row, detail=f"{rolling.where}: {rolling.got}")
        case NotImported(changes):
            return replace(row, detail="; ".join(changes.lines()))
        case EnvMoved(_, env_now):
            return replace(row, detail=f"the env is {env_now} now")
        case UpToDate() if live := survey.rollover(flavor):
            state, detail = State.ROLLING_OVER.value, f"{live.where}: {live.got}"
            return replace(row, state=state, detail=detail)
        case _:
            return row


def _age_days(survey: Survey, standing: Standing) -> float | None:
    """Returns the days since a flavor's version was published; None where no record says."""
    flavor = standing.flavor
    if not isinstance(flavor.version, PublishedVersion):
        return None
    try:
        model_name = survey.checkout.project(flavor).model_name
        version = survey.versions.find(model_name, flavor.version)
        records = version.records if version else ()
        created = datetime.fromisoformat(records[0].created_utc or "") if records else None
    except ValueError:
        return None
    except PublishError as error:
        if is_of_the_place(error):
            raise
        return None
    if created is None:
        return None
    return round((datetime.now(UTC) - created).total_seconds() / 86400, 2)
