"""Looking at what is published: lists, one version's facts, and the check of every byte."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from adroit_publish.bundle.document import BundleRecord
from adroit_publish.bundle.layer import layer_kind
from adroit_publish.bundle.manifest import Manifest
from adroit_publish.bundle.record import Record
from adroit_publish.bundle.version_names import RunId
from adroit_publish.checkout import Checkout
from adroit_publish.config.names import nearest
from adroit_publish.config.sitevars import Pointer
from adroit_publish.errors import ConfigError, PublishError
from adroit_publish.stores.bundle_store import BundleStore, Published
from adroit_publish.stores.records import records
from adroit_publish.versions.verify import is_of_the_place


@dataclass(frozen=True)
class VersionRow:
    """One published version in a list.

    Attributes:
        version: Its name.
        run_id: The MLflow run it was made from.
        created_utc: When it was first published, ISO 8601, or None where no record says.
        who: Who published it, or None.
        size_bytes: Its own layers together.
        flavors: Flavors of the checkout that name it.
    """

    version: str
    run_id: str
    created_utc: str | None
    who: str | None
    size_bytes: int
    flavors: tuple[str, ...]


@dataclass(frozen=True)
class FlavorRow:
    """One flavor in the status.

    Attributes:
        flavor: Its name.
        version: As flavors.yaml has it.
        state: ``no version``, ``pending`` (a run id), ``published``, ``held`` or ``not here``.
        age_days: Days since it was published, or None.
        detail: What else there is to say.
        live_percent: Its share of its model's requests, by the sitevar; None where that does not
            name it, or cannot be read.
    """

    flavor: str
    version: str | None
    state: str
    age_days: float | None = None
    detail: str = ""
    live_percent: float | None = None


def list_versions(
    checkout: Checkout | None, store: BundleStore, model_name: str
) -> list[VersionRow]:
    """Returns the published versions of a model, oldest first.

    Raises:
        StoreError: The store failed.
        VerificationError: A document of a version is damaged.
    """
    named: dict[str, list[str]] = {}
    for flavor in checkout.flavors.values() if checkout else ():
        named.setdefault(flavor.version or "", []).append(flavor.name)
    rows = []
    for published in store.versions(model_name):
        first = next(iter(records(store, published)), None)
        layers = store.manifest(published).own_layers
        rows.append(
            VersionRow(
                published.version,
                store.bundle_record(published).run_id,
                first.created_utc if first else None,
                first.who if first else None,
                sum(layer.size_bytes for layer in layers),
                tuple(named.get(published.version, ())),
            )
        )
    return sorted(rows, key=lambda row: (row.created_utc or "", row.version))


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


@dataclass(frozen=True)
class VersionFacts:
    """Everything that is known of a version.

    Attributes:
        published: The version.
        store: Where it is.
        manifest: Its manifest.
        bundle: Its ``bundle.json``.
        records: Its records, oldest first.
    """

    published: Published
    store: str
    manifest: Manifest
    bundle: BundleRecord
    records: tuple[Record, ...]

    def as_dict(self) -> dict[str, Any]:
        """Returns it as JSON values."""
        return {
            "model_name": self.published.model_name,
            "version": self.published.version,
            "manifest": self.published.manifest.as_dict(),
            "bundle_id": self.bundle.bundle_id,
            "store": self.store,
            "layers": [
                {"kind": layer_kind(layer), "digest": layer.digest, "size": layer.size_bytes}
                for layer in self.manifest.layers
            ],
            "bundle": self.bundle.as_dict(),
            "records": [record.document for record in self.records],
        }


def show(store: BundleStore, published: Published) -> VersionFacts:
    """Returns everything that is known of a version.

    Raises:
        StoreError: The store failed.
        VerificationError: A document of the version is damaged.
    """
    return VersionFacts(
        published,
        store.location,
        store.manifest(published),
        store.bundle_record(published),
        tuple(records(store, published)),
    )


def status(
    checkout: Checkout, store: BundleStore, pointers: Mapping[str, Pointer]
) -> list[FlavorRow]:
    """Returns the state of every flavor against one store; a damaged version is a detail.

    Args:
        checkout: The checkout.
        store: The store.
        pointers: What the sitevar says, by model.
    """
    live = {flavor: percent for pointer in pointers.values() for flavor, percent in pointer.weights}
    rows = (_status_of(checkout, store, name) for name in checkout.flavors)
    return [replace(row, live_percent=live.get(row.flavor)) for row in rows]


def _status_of(checkout: Checkout, store: BundleStore, name: str) -> FlavorRow:
    flavor = checkout.flavors[name]
    if flavor.version is None:
        return FlavorRow(name, None, "no version")
    if isinstance(flavor.version, RunId):
        return FlavorRow(name, flavor.version, "pending", detail="its version is a run id")
    try:
        model_name = checkout.project(flavor).model_name
        published = store.find(model_name, flavor.version)
        if published is None:
            return FlavorRow(name, flavor.version, "not here", detail=f"not in {store.location}")
        of_version = records(store, published)
    except PublishError as error:
        if is_of_the_place(error):
            raise
        return FlavorRow(name, flavor.version, "not here", detail=error.what)
    age_days = _age_days(of_version[0]) if of_version else None
    if flavor.hold is not None:
        return FlavorRow(name, flavor.version, "held", age_days, flavor.hold)
    return FlavorRow(name, flavor.version, "published", age_days)


def _age_days(record: Record) -> float | None:
    try:
        created = datetime.fromisoformat(record.created_utc or "")
    except ValueError:
        return None
    return round((datetime.now(UTC) - created).total_seconds() / 86400, 2)
