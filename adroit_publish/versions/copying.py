"""The layers and referrers of a version on their way from one target's places to another's.

A layer goes from store to store, and from registry to registry: mounted where both repositories
are on one, else streamed. It is read only where it is missing, verified as it is read, and never
held as a whole. Documents are small, and are held.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial

from adroit_publish.bundle.content import Inline
from adroit_publish.bundle.digest import Descriptor, Digest
from adroit_publish.bundle.layer import layer_kind
from adroit_publish.bundle.manifest import Manifest, parse_referrer
from adroit_publish.edge.threads import Together
from adroit_publish.errors import VerificationError
from adroit_publish.places import Places
from adroit_publish.publish.upload import SENDING_THREADS
from adroit_publish.registry import referrers as registry_referrers
from adroit_publish.registry.repository import ImageRepository
from adroit_publish.stores.blobs import blob_key
from adroit_publish.stores.bundle_store import BundleStore, Published
from adroit_publish.stores.contract import Progress
from adroit_publish.stores.stored_blob import StoredBlob


@dataclass(frozen=True)
class CopiedLayer:
    """One layer of a promoted version.

    Attributes:
        kind: ``env``, ``model``, ``runtime``, ``source`` or ``record``.
        sent: Whether it was sent, by place; False where it was there, or was mounted.
    """

    kind: str
    digest: str
    size_bytes: int
    sent: Mapping[str, bool]


@dataclass(frozen=True)
class Referrer:
    """A manifest that refers to a version, with all that it names.

    Attributes:
        manifest: As the store lists it, with what it is annotated with there.
        blobs: Its config and its documents, each with its bytes.
        stored: Whether the store lists it; else the registry alone does.
    """

    manifest: Descriptor
    data: bytes = field(repr=False)
    blobs: tuple[tuple[Descriptor, bytes], ...] = field(repr=False)
    stored: bool


@dataclass(frozen=True)
class Carrier:
    """Brings layers from one target's places to another's.

    Attributes:
        repositories: Where the destination's registry may take layers from, the nearest first.
    """

    here: Places
    there: Places
    repositories: tuple[ImageRepository, ...]

    def can_have(self, layer: Descriptor) -> bool:
        """Tells whether a layer is in the destination's repository, or can be taken from one."""
        images = (self.there.images, *self.repositories)
        return any(repository.has_blob(layer) for repository in images if repository)

    def to_store(self, layer: Descriptor, progress: Progress) -> bool:
        """Makes sure that the store has a layer of our own; tells whether it was sent."""
        return self.there.store.put_blob(layer, StoredBlob(self.here.store, layer), progress)

    def to_images(self, images: ImageRepository, layer: Descriptor, progress: Progress) -> bool:
        """Makes sure that the registry has a layer; tells whether it was sent."""
        if images.has_blob(layer):
            return False
        for repository in self.repositories:
            if repository.has_blob(layer):
                return images.take_blob(layer, repository, progress)
        return images.put_blob(layer, StoredBlob(self.here.store, layer), progress)


def copy_layers(
    carrier: Carrier, manifest: Manifest, progress: Progress
) -> tuple[CopiedLayer, ...]:
    """Makes sure that the destination has every layer; returns what became of each, bottom up.

    Args:
        progress: Told of every byte that is there, just copied or from before.

    Raises:
        PublishError: Whatever a place failed with; the other copies are stopped.
        VerificationError: A layer is damaged at the source.
    """
    store, images = carrier.there.store, carrier.there.images
    copies: list[dict[str, Future[bool]]] = []
    with Together(SENDING_THREADS * len(carrier.there.all), "copy") as threads:
        heard = threads.heeding(progress)
        for layer in manifest.layers:
            copy = {}
            if layer in manifest.own_layers:
                copy[store.location] = threads.start(_carried, carrier.to_store, layer, heard)
            if images:
                to_images = partial(carrier.to_images, images)
                copy[images.location] = threads.start(_carried, to_images, layer, heard)
            copies.append(copy)
    return tuple(
        CopiedLayer(
            layer_kind(layer),
            str(layer.digest),
            layer.size_bytes,
            {where: sent.result() for where, sent in copy.items()},
        )
        for layer, copy in zip(manifest.layers, copies, strict=True)
    )


def _carried(
    carry: Callable[[Descriptor, Progress], bool], layer: Descriptor, progress: Progress
) -> bool:
    try:
        sent = carry(layer, progress)
    except VerificationError as error:
        raise _damaged(error, layer) from error
    if not sent:
        progress(layer.size_bytes)
    return sent


def read_referrers(here: Places, published: Published) -> tuple[Referrer, ...]:
    """Returns everything that refers to a version, in the store or in the registry, verified.

    Raises:
        StoreError: A place failed.
        VerificationError: A referrer is not what its digest says, or refers to another version.
    """
    by_digest, subject = {}, published.manifest.digest
    for name in here.store.referrers(published):
        manifest = here.store.referrer(published, name)[0]
        data = here.store.document(manifest)
        where = f"{here.store.location}/{blob_key(manifest.digest)}"
        by_digest[manifest.digest] = _referrer(
            here.store, subject, manifest, data, where, stored=True
        )
    images = here.images
    listed = registry_referrers.referrers(images, subject) if images else ()
    for manifest in listed:
        if images and manifest.digest not in by_digest:
            data = images.resolve(manifest.digest).data
            where = f"{images.location}@{manifest.digest}"
            by_digest[manifest.digest] = _referrer(
                images, subject, manifest, data, where, stored=False
            )
    return tuple(by_digest.values())


def copy_referrers(referrers: tuple[Referrer, ...], published: Published, there: Places) -> None:
    """Gives the registry every referrer, byte for byte, and the store what the store had."""
    for referrer in referrers:
        manifest, data = referrer.manifest, referrer.data
        if referrer.stored:
            for descriptor, document in (*referrer.blobs, (manifest, data)):
                there.store.put_blob(descriptor, Inline(document))
            there.store.name_referrer(published.model_name, published.version, manifest)
            manifest = replace(manifest, annotations={})  # the registry's list has its own
        if there.images:
            for descriptor, document in referrer.blobs:
                there.images.put_blob(descriptor, Inline(document))
            subject = published.manifest.digest
            registry_referrers.put_referrer(there.images, subject, manifest, data)


def _referrer(
    place: BundleStore | ImageRepository,
    subject: Digest,
    manifest: Descriptor,
    data: bytes,
    where: str,
    *,
    stored: bool,
) -> Referrer:
    parsed = parse_referrer(data, subject, where)
    blobs = tuple((blob, place.document(blob)) for blob in (parsed.config, *parsed.layers))
    return Referrer(manifest, data, blobs, stored)


def _damaged(error: VerificationError, layer: Descriptor) -> VerificationError:
    return VerificationError(
        "A layer could not be copied as what it is.",
        where=error.where or layer.digest,
        got=error.got or error.what,
        wanted=error.wanted or layer.digest,
        next_step="python -m adroit_publish verify VERSION --repair --target SOURCE heals it from "
        "the source's registry, or names what has to be published again",
    )
