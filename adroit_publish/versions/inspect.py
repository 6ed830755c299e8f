"""Looking at what is published: lists, one version's facts, and the check of every byte."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from adroit_publish.bundle.digest import Descriptor
from adroit_publish.bundle.document import BundleRecord
from adroit_publish.bundle.layer import KIND_ANNOTATION, ROOT
from adroit_publish.bundle.tar_reader import TarReader
from adroit_publish.checkout import Workspace
from adroit_publish.config.flavors import is_run_id
from adroit_publish.config.names import nearest
from adroit_publish.config.sitevars import Pointer
from adroit_publish.errors import ConfigError, PublishError, RefusedError
from adroit_publish.stores.bundle_store import BundleStore, Published, blob_key
from adroit_publish.stores.contract import Progress, unheard
from adroit_publish.stores.records import records


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


@dataclass
class Report:
    """What a check of a version found.

    Attributes:
        version: The version.
        objects: How many stored objects were read to their end.
        size_bytes: How many bytes that were.
        problems: One line for each object that is missing or wrong, naming it.
    """

    version: str
    objects: int = 0
    size_bytes: int = 0
    problems: list[str] = field(default_factory=list)


def list_versions(
    workspace: Workspace | None, store: BundleStore, model_name: str
) -> list[VersionRow]:
    """Returns the published versions of a model, oldest first.

    Raises:
        StoreError: The store failed.
        VerificationError: A document of a version is damaged.
    """
    named: dict[str, list[str]] = {}
    for flavor in workspace.flavors.values() if workspace else ():
        named.setdefault(flavor.version or "", []).append(flavor.name)
    rows = []
    for published in store.versions(model_name):
        first: Mapping[str, Any] = next(iter(records(store, published)), {})
        layers = store.manifest(published).own_layers
        rows.append(
            VersionRow(
                published.version,
                store.bundle_record(published).run_id,
                first.get("created_utc"),
                first.get("who"),
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


def show(store: BundleStore, published: Published) -> dict[str, Any]:
    """Returns everything that is known of a version, as JSON values.

    Raises:
        StoreError: The store failed.
        VerificationError: A document of the version is damaged.
    """
    manifest = store.manifest(published)
    record = store.bundle_record(published)
    return {
        "model_name": published.model_name,
        "version": published.version,
        "manifest": published.manifest.as_dict(),
        "bundle_id": record.bundle_id,
        "store": store.location,
        "layers": [
            {
                "kind": layer.annotations.get(KIND_ANNOTATION, "env"),
                "digest": layer.digest,
                "size": layer.size_bytes,
            }
            for layer in manifest.layers
        ],
        "bundle": record.as_dict(),
        "records": records(store, published),
    }


def status(
    workspace: Workspace, store: BundleStore, pointers: Mapping[str, Pointer]
) -> list[FlavorRow]:
    """Returns the state of every flavor against one store; a damaged version is a detail.

    Args:
        workspace: The checkout.
        store: The store.
        pointers: What the sitevar says, by model.
    """
    live = {flavor: percent for pointer in pointers.values() for flavor, percent in pointer.weights}
    rows = (_status_of(workspace, store, name) for name in workspace.flavors)
    return [replace(row, live_percent=live.get(row.flavor)) for row in rows]


def _status_of(workspace: Workspace, store: BundleStore, name: str) -> FlavorRow:
    flavor = workspace.flavors[name]
    if flavor.version is None:
        return FlavorRow(name, None, "no version")
    if is_run_id(flavor.version):
        return FlavorRow(name, flavor.version, "pending", detail="its version is a run id")
    try:
        model_name = workspace.project(flavor).model_name
        published = store.find(model_name, flavor.version)
        if published is None:
            return FlavorRow(name, flavor.version, "not here", detail=f"not in {store.location}")
        found = records(store, published)
    except PublishError as error:
        if _is_of_the_place(error):
            raise
        return FlavorRow(name, flavor.version, "not here", detail=error.what)
    age_days = _age_days(found[0]) if found else None
    if flavor.hold is not None:
        return FlavorRow(name, flavor.version, "held", age_days, flavor.hold)
    return FlavorRow(name, flavor.version, "published", age_days)


def _age_days(record: Mapping[str, Any]) -> float | None:
    try:
        created = datetime.fromisoformat(str(record.get("created_utc")))
    except ValueError:
        return None
    return round((datetime.now(UTC) - created).total_seconds() / 86400, 2)


def verify(store: BundleStore, published: Published, progress: Progress = unheard) -> Report:
    """Reads every byte of a version and its records, and recomputes every digest.

    Returns:
        What was read and every problem found; nothing is raised for a damaged object.
    """
    report = Report(published.version)
    check = _Checker(store, report, progress)
    check.blob(published.manifest)
    if report.problems:  # nothing below it can be found
        index = f"{store.location}/{published.model_name}/{published.version}/index.json"
        report.problems.append(f"{index}: names {published.manifest.digest}, which cannot be read")
        return report
    with check.problems():
        manifest = store.manifest(published)
        check.blob(manifest.config)
        files: dict[str, str] = {}
        before = len(report.problems)
        for layer in manifest.own_layers:
            with check.problems():
                files |= check.layer(layer)
        if len(report.problems) == before:  # only layers that were read can be compared
            with check.problems():
                check.files(store.bundle_record(published), files)
    for name in store.referrers(published):
        with check.problems():
            for blob in store.referrer(published, name):
                check.blob(blob)
    return report


class _Checker:
    def __init__(self, store: BundleStore, report: Report, progress: Progress) -> None:
        self.store = store
        self.report = report
        self.progress = progress

    def problems(self) -> _Noted:
        return _Noted(self.report.problems.append)

    def blob(self, descriptor: Descriptor) -> None:
        with self.problems():
            for _ in self._read(descriptor):
                pass

    def layer(self, descriptor: Descriptor) -> dict[str, str]:
        """Returns the sha256 of every file of a layer by its path below opt/adroit."""
        where = f"{self.store.location}/{blob_key(descriptor.digest)}"
        reader = TarReader(self._read(descriptor), where)
        files = {}
        for member in reader.members():
            if member.directory:
                continue
            hasher = hashlib.sha256()
            for piece in reader.content():
                hasher.update(piece)
            path = member.path.removeprefix(ROOT + "/")
            files[path] = f"sha256:{hasher.hexdigest()} {descriptor.digest}"
        return files

    def files(self, record: BundleRecord, files: dict[str, str]) -> None:
        """Notes every file that bundle.json lists and the layers lack, or the other way."""
        listed = {
            f"{kind}/{entry.path}": str(entry.digest)
            for kind, entries in record.files.items()
            for entry in entries
        }
        there = {path: digests for path, digests in files.items() if path != "bundle.json"}
        for path in sorted(listed.keys() | there.keys()):
            if listed.get(path) not in there.get(path, "").split():
                self.report.problems.append(
                    f"{path}: bundle.json says {listed.get(path)}, the layers {there.get(path)}"
                )

    def _read(self, descriptor: Descriptor) -> Iterator[memoryview | bytes]:
        for chunk in self.store.read_blob(descriptor):
            self.progress(len(chunk))
            yield chunk
        self.report.objects += 1
        self.report.size_bytes += descriptor.size_bytes


def _is_of_the_place(error: PublishError) -> bool:
    """Tells whether the store is away or denies access, which says nothing of a version."""
    return isinstance(error, RefusedError) or getattr(error, "transient", False)


class _Noted:
    """Turns a PublishError into a line of the report."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note

    def __enter__(self) -> None: ...

    def __exit__(self, _type: object, error: BaseException | None, _trace: object) -> bool:
        if not isinstance(error, PublishError) or _is_of_the_place(error):
            return False
        got = f", got {error.got}" if error.got is not None else ""
        self._note(f"{error.where}: {error.what.rstrip('.')}{got}")
        return True
