"""The check of a version: every byte is read, and every digest recomputed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

from adroit_publish.bundle.digest import Descriptor
from adroit_publish.bundle.document import BundleRecord
from adroit_publish.bundle.layer import ROOT
from adroit_publish.bundle.tar_reader import TarReader
from adroit_publish.errors import PublishError, RefusedError
from adroit_publish.stores.bundle_store import BundleStore, Published, blob_key
from adroit_publish.stores.contract import Progress, unheard


@dataclass
class VerifyReport:
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


def verify(store: BundleStore, published: Published, progress: Progress = unheard) -> VerifyReport:
    """Reads every byte of a version and its records, and recomputes every digest.

    Returns:
        What was read and every problem found; nothing is raised for a damaged object.
    """
    report = VerifyReport(published.version)
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
                check.files(store.bundle_record(published, manifest), files)
    for name in store.referrers(published):
        with check.problems():
            for blob in store.referrer(published, name):
                check.blob(blob)
    return report


class _Checker:
    def __init__(self, store: BundleStore, report: VerifyReport, progress: Progress) -> None:
        self.store = store
        self.report = report
        self.progress = progress

    def problems(self) -> AbstractContextManager[None]:
        return _noted(self.report.problems)

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


def is_of_the_place(error: PublishError) -> bool:
    """Tells whether the store is away or denies access, which says nothing of a version."""
    return isinstance(error, RefusedError) or getattr(error, "transient", False)


@contextmanager
def _noted(problems: list[str]) -> Iterator[None]:
    """Turns a PublishError into a line of the report."""
    try:
        yield
    except PublishError as error:
        if is_of_the_place(error):
            raise
        got = f", got {error.got}" if error.got is not None else ""
        problems.append(f"{error.where}: {error.what.rstrip('.')}{got}")
