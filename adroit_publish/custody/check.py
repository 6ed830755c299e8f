"""The check of a version in every place that it runs or is kept.

In the store: the manifest, the config, every layer of our own, the files in them against
``bundle.json``, and what refers to the version. In the registry: the tag, the manifest, the config,
every layer of the image, the base's too, and what refers to it. A registry's word for a digest
counts for nothing: a thorough check reads every byte, a shallow one asks (HEAD) for each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from adroit_publish.bundle.digest import Descriptor
from adroit_publish.bundle.document import BundleRecord
from adroit_publish.bundle.layer import ROOT
from adroit_publish.bundle.manifest import RECORD_MEDIA_TYPE, Manifest, parse_manifest
from adroit_publish.bundle.record import parse_record
from adroit_publish.bundle.tar_reader import TarReader
from adroit_publish.custody.image import ImageCheck
from adroit_publish.custody.report import PlaceCheck, VerifyReport
from adroit_publish.errors import VerificationError
from adroit_publish.registry.repository import ImageRepository
from adroit_publish.stores.blobs import blob_key
from adroit_publish.stores.bundle_store import BundleStore, Published, referrer_key
from adroit_publish.stores.contract import Progress, unheard


def verify(
    store: BundleStore,
    published: Published,
    images: ImageRepository | None = None,
    *,
    shallow: bool = False,
    progress: Progress = unheard,
    manifest: Manifest | None = None,
) -> VerifyReport:
    """Looks at a version and its records in every place, and recomputes every digest.

    Args:
        shallow: Whether to ask for each object in place of reading it; records are left out.
        manifest: Its manifest, where it was read a moment ago.

    Returns:
        What was looked at and every problem found; nothing is raised for a damaged object.

    Raises:
        RefusedError, StoreError: A place denies access, or cannot be reached.
    """
    report = VerifyReport(published.version)
    in_store = _Store(store, report, progress)
    manifest = manifest or in_store.manifest(published)
    if manifest is None and images:
        manifest = _manifest_of_images(images, published)
    in_store.check(published, manifest, shallow=shallow)
    if images:
        ImageCheck(images, report, progress).check(published, manifest, shallow=shallow)
    return report


def _manifest_of_images(images: ImageRepository, published: Published) -> Manifest | None:
    try:
        stored = images.find(published.manifest.digest)
        return parse_manifest(stored.data, images.location) if stored else None
    except VerificationError:
        return None


class _Store(PlaceCheck):
    def __init__(self, store: BundleStore, report: VerifyReport, progress: Progress) -> None:
        super().__init__(store.location, report, progress)
        self.store = store

    def manifest(self, published: Published) -> Manifest | None:
        """Returns the version's manifest; notes that it is damaged where it is."""
        with self.noted("blob", published.manifest):
            data = b"".join(bytes(piece) for piece in self.read(published.manifest))
            return parse_manifest(data, f"{self.location} {published.version}")
        return None

    def check(self, published: Published, manifest: Manifest | None, *, shallow: bool) -> None:
        if manifest is None:  # nothing below it can be found
            index = f"{self.location}/{published.model_name}/{published.version}/index.json"
            line = f"{index}: names {published.manifest.digest}, which cannot be read"
            self.note("other", line)
        elif shallow:
            self.ask(
                lambda blob: self.store.has_blob(blob, at_a_glance=True),
                (manifest.config, *manifest.own_layers),
                f"{self.location}/blobs/sha256/",
            )
        else:
            self.blob(manifest.config)
            self.layers(published, manifest)
            self.referrers(published)

    def referrers(self, published: Published) -> None:
        """Notes what is damaged of what refers to the version; a record has to be among it."""
        self.report.strays.extend(self.store.strays(published))
        before = len(self.report.damages)
        read = [self.is_record(published, name) for name in self.store.referrers(published)]
        if not any(read) and len(self.report.damages) == before:
            where = f"{self.location}/{published.model_name}/{published.version}/referrers"
            self.note("other", f"{where}: The record of its publish is missing")

    def is_record(self, published: Published, name: str) -> bool:
        """Notes what is damaged of one referrer; tells whether it is a record that can be read."""
        entry = f"{self.location}/{referrer_key(published, name)}"
        recorded = False
        with self.noted("other", entry=entry):
            data = self.store.referrer_entry(published, name)
            list(self.counted(iter([data]), len(data)))
            manifest = self.store.referrer_named(published, name, data)
            named = self.document(manifest, entry)
            for blob in self.store.documents_of(published, name, named) if named else ():
                document = self.document(blob, entry)
                if document is not None and blob.media_type == RECORD_MEDIA_TYPE:
                    parse_record(document, entry)
                    recorded = True
        return recorded

    def document(self, descriptor: Descriptor, entry: str) -> bytes | None:
        """Returns what an entry leads to; None, and noted, where that is damaged."""
        with self.noted("blob", descriptor, entry):
            return b"".join(map(bytes, self.read(descriptor)))
        return None

    def blob(self, descriptor: Descriptor) -> None:
        with self.noted("blob", descriptor):
            for _ in self.read(descriptor):
                pass

    def layers(self, published: Published, manifest: Manifest) -> None:
        files: dict[str, str] = {}
        before = len(self.report.damages)
        for layer in manifest.own_layers:
            with self.noted("blob", layer):
                files |= self.files_of(layer)
        if len(self.report.damages) == before:  # only layers that were read can be compared
            with self.noted("other"):
                self.compare(self.store.bundle_record(published, manifest), files)

    def files_of(self, layer: Descriptor) -> dict[str, str]:
        """Returns the sha256 of every file of a layer by its path below opt/adroit."""
        where = f"{self.location}/{blob_key(layer.digest)}"
        reader = TarReader(self.read(layer), where)
        files = {}
        for member in reader.members():
            if member.directory:
                continue
            hasher = hashlib.sha256()
            for piece in reader.content():
                hasher.update(piece)
            path = member.path.removeprefix(ROOT + "/")
            files[path] = f"sha256:{hasher.hexdigest()} {layer.digest}"
        return files

    def compare(self, record: BundleRecord, files: dict[str, str]) -> None:
        """Notes every file that bundle.json lists and the layers lack, or the other way."""
        listed = {
            f"{kind}/{entry.path}": str(entry.digest)
            for kind, entries in record.files.items()
            for entry in entries
        }
        there = {path: digests for path, digests in files.items() if path != "bundle.json"}
        for path in sorted(listed.keys() | there.keys()):
            if listed.get(path) not in there.get(path, "").split():
                line = f"{path}: bundle.json says {listed.get(path)}, the layers {there.get(path)}"
                self.note("other", line)

    def read(self, descriptor: Descriptor) -> Iterator[memoryview | bytes]:
        return self.counted(self.store.read_blob(descriptor), descriptor.size_bytes)
