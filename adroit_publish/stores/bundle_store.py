"""How bundles are laid out over a place of objects, and the order in which they come to be there.

    blobs/sha256/<hex>                        every blob, shared by all models
    <model_name>/<version>/oci-layout
    <model_name>/<version>/index.json         the commit point; a function of content
    <model_name>/<version>/referrers/<hex>    descriptors of records and attestations; added only

What is kept of a blob, and when one that is there is believed, is in ``blobs``.
Source: OCI image specification, "Image Layout".
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from adroit_publish.attestations.demand import Demand
from adroit_publish.bundle.content import Inline
from adroit_publish.bundle.digest import Descriptor, Digest, is_hex
from adroit_publish.bundle.document import (
    BUNDLE_PATH,
    BundleRecord,
    canonical_json,
    parse_bundle_record,
    parse_json_object,
)
from adroit_publish.bundle.manifest import (
    EMPTY,
    EMPTY_BLOB,
    MANIFEST_MEDIA_TYPE,
    OCI_LAYOUT,
    Bundle,
    Manifest,
    index_bytes,
    parse_index,
    parse_manifest,
    parse_referrer,
    referrer_manifest,
)
from adroit_publish.bundle.tar_reader import TarReader
from adroit_publish.bundle.version_names import PublishedVersion
from adroit_publish.config.names import nearest
from adroit_publish.config.project import NO_MODELS
from adroit_publish.errors import ConfigError, RefusedError, StoreError, VerificationError
from adroit_publish.stores.blobs import BlobStore
from adroit_publish.stores.contract import KeyTaken, Objects


@dataclass(frozen=True)
class Published:
    """A version that is in the store; ``manifest`` names its manifest."""

    model_name: str
    version: PublishedVersion
    manifest: Descriptor


class BundleStore(BlobStore):
    """Bundles in one place of objects.

    Attributes:
        demand: What its target asks of signatures; None: nothing.
        signing_key: The address of what signs the entries of ledgers; None: nothing does.
        target: The name of its target, which signed entries are for; empty: not known.
    """

    def __init__(
        self,
        objects: Objects,
        demand: Demand | None = None,
        signing_key: str | None = None,
        target: str = "",
    ) -> None:
        super().__init__(objects)
        self.demand = demand
        self.signing_key = signing_key
        self.target = target or (demand.target if demand else "")

    # Writing, in the order of a publish.

    def put_documents(self, bundle: Bundle) -> None:
        """Stores the config and the manifest of ``bundle``, by digest, still without a name."""
        self.put_blob(bundle.config, Inline(bundle.config_bytes))
        self.put_blob(bundle.manifest, Inline(bundle.manifest_bytes))

    def attach(
        self, model_name: str, version: str, subject: Descriptor, media_type: str, data: bytes
    ) -> Descriptor:
        """Attaches a document to a version, without changing the version's digest.

        Args:
            media_type: What the document is; also its artifact type.

        Returns:
            The descriptor of the referrer's manifest.
        """
        blob = Descriptor.of(media_type, data)
        manifest_data = referrer_manifest(subject, blob)
        manifest = Descriptor.of(MANIFEST_MEDIA_TYPE, manifest_data, {"artifactType": media_type})
        self.put_blob(blob, Inline(data))
        self.put_blob(EMPTY, Inline(EMPTY_BLOB))
        self.put_blob(manifest, Inline(manifest_data))
        self.name_referrer(model_name, version, manifest)
        return manifest

    def name_referrer(self, model_name: str, version: str, manifest: Descriptor) -> None:
        """Lists a manifest that is stored already among what is attached to a version."""
        named = canonical_json(manifest.as_dict())
        self._create_same(f"{model_name}/{version}/referrers/{manifest.digest.hex}", named)

    def commit(self, model_name: str, version: str, manifest: Descriptor) -> bool:
        """Gives the manifest its version's name; from here on it is published.

        Returns:
            Whether this call did it; False where it was there already.

        Raises:
            RefusedError: The version names another manifest.
        """
        self._create_same(f"{model_name}/{version}/oci-layout", OCI_LAYOUT)
        return self._create_same(
            f"{model_name}/{version}/index.json", index_bytes(manifest, version)
        )

    # Reading.

    def models(self) -> Iterator[str]:
        """Yields the names of all models that have an entry, sorted."""
        yield from (name for name in self.objects.children("") if name not in NO_MODELS)

    def versions(self, model_name: str) -> Iterator[Published]:
        """Yields the published versions of a model, sorted by version; raises as ``find``."""
        for version in self.version_names(model_name):
            if published := self.find(model_name, version):
                yield published

    def version_names(self, model_name: str) -> Iterator[str]:
        """Yields the names below a model, sorted: its versions, committed or not; none is read."""
        if _is_name(model_name):
            yield from self.objects.children(f"{model_name}/")

    def find(self, model_name: str, version: str) -> Published | None:
        """Returns the version, or None where it was never committed here.

        Raises:
            VerificationError: Its index is damaged.
        """
        key = f"{model_name}/{version}/index.json"
        if not PublishedVersion.matches(version) or not _is_name(model_name):
            return None
        where = f"{self.location}/{key}"
        try:
            if self.objects.stat(key) is None:
                return None
            manifest = parse_index(self._document(key), version, where)
        except VerificationError as error:
            error.next_step = f"delete {where} and publish its run again: that writes it anew"
            raise
        return Published(model_name, PublishedVersion(version), manifest)

    def get(self, version: str) -> Published:
        """Returns the version, whichever model it is of.

        Raises:
            ConfigError: No model has it, or it is no version at all.
            VerificationError: Its index is damaged.
        """
        if PublishedVersion.matches(version):
            for model_name in self.models():
                if published := self.find(model_name, version):
                    return published
        known = (name for model_name in self.models() for name in self.version_names(model_name))
        raise ConfigError(
            f"There is no version {version} in this store.",
            where=self.location,
            wanted=f"v<8 hex digits>-<12 hex digits>, one of: {nearest(version, known)}",
            next_step="python -m adroit_publish versions MODEL",
        )

    def manifest(self, published: Published) -> Manifest:
        """Returns the parsed manifest of a version; raises as ``document`` does."""
        where = f"{self.location} {published.version}"
        with saying_how_to_heal(published):
            return parse_manifest(self.document(published.manifest), where)

    def bundle_record(self, published: Published, manifest: Manifest) -> BundleRecord:
        """Returns the parsed ``bundle.json`` of a version; raises as ``document`` does."""
        where = f"{self.location} {published.version}"
        own = manifest.own_layers
        with saying_how_to_heal(published):
            reader = TarReader(iter([self.document(own[-1])]) if own else iter([]), where)
            data = reader.files({BUNDLE_PATH}).get(BUNDLE_PATH)
            if data is None:
                raise VerificationError("A version has no bundle record.", where=where)
            return parse_bundle_record(data)

    def attached(self, published: Published, media_type: str) -> Iterator[bytes]:
        """Yields the documents of ``media_type`` that are attached to a version, verified."""
        for name in self.referrers(published):
            for blob in self.referrer(published, name)[1:]:
                if blob.media_type == media_type:
                    yield self.document(blob)

    def referrers(self, published: Published) -> Iterator[str]:
        """Yields the names of what is attached to a version: hex digests, sorted."""
        names = self.objects.children(referrer_key(published, ""))
        yield from (name for name in names if is_hex(name))

    def strays(self, published: Published) -> Iterator[str]:
        """Yields the locations of what lies among a version's referrers and has no digest's name.

        Such as ``.DS_Store``: nobody reads it, and it says nothing of the version.
        """
        for name in self.objects.children(referrer_key(published, "")):
            if not is_hex(name):
                yield f"{self.location}/{referrer_key(published, name)}"

    def referrer(self, published: Published, name: str) -> tuple[Descriptor, ...]:
        """Returns the blobs of one referrer: its manifest, then its documents.

        Raises:
            StoreError: The place failed, or has no such blob.
            VerificationError: The referrer or its manifest is damaged, or of another version.
        """
        manifest = self.referrer_named(published, name, self.referrer_entry(published, name))
        return (manifest, *self.documents_of(published, name, self.document(manifest)))

    def referrer_entry(self, published: Published, name: str) -> bytes:
        """Returns the entry of one referrer; raises as ``referrer``."""
        return self._document(referrer_key(published, name))

    def referrer_named(self, published: Published, name: str, entry: bytes) -> Descriptor:
        """Returns what an entry says of a referrer's manifest; raises as ``referrer``."""
        where = f"{self.location}/{referrer_key(published, name)}"
        manifest = Descriptor.from_dict(parse_json_object(entry, where), where)
        if manifest.digest.hex != name:
            raise VerificationError(
                "A referrer is filed under another digest.", where=where, got=manifest.digest
            )
        return manifest

    def documents_of(
        self, published: Published, name: str, manifest: bytes
    ) -> tuple[Descriptor, ...]:
        """Returns the documents that a referrer's manifest names; raises as ``referrer``."""
        where = f"{self.location}/{referrer_key(published, name)}"
        return parse_referrer(manifest, published.manifest.digest, where).layers

    def _document(self, key: str) -> bytes:
        return b"".join(bytes(chunk) for chunk in self.objects.read(key))

    def _create_same(self, key: str, data: bytes) -> bool:
        """Makes a small object whose bytes are a function of its key; equal bytes are success."""
        try:
            self.objects.create(key, Inline(data), Digest.of(data))
        except KeyTaken:
            there = self._document(key)
            if there == data:
                return False
            raise RefusedError(
                "A version that was published may not change.",
                where=f"{self.location}/{key}",
                got=there[:300].decode(errors="replace"),
                wanted=data[:300].decode(errors="replace"),
                next_step="find out who wrote it; nothing was overwritten",
            ) from None
        return True


@contextmanager
def saying_how_to_heal(published: Published) -> Iterator[None]:
    """Ends the message of a document that is missing or damaged with what to type next."""
    try:
        yield
    except (StoreError, VerificationError) as error:
        if error.next_step is None and not getattr(error, "transient", False):
            error.next_step = (
                f"python -m adroit_publish verify {published.version} (with the same --target)"
            )
        raise


def referrer_key(published: Published, name: str) -> str:
    """Returns the key of what is attached to a version under a name."""
    return f"{published.model_name}/{published.version}/referrers/{name}"


def _is_name(model_name: str) -> bool:
    return "/" not in model_name and model_name not in ("", ".", "..")
