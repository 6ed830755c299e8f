"""Documents attached to an image in a registry, without changing the image's digest.

A referrer is a manifest whose ``subject`` is the image. Registries of distribution 1.1 list them
by the referrers API; for the others the list is an index under the tag ``sha256-<hex>``, which
clients keep. That list is read, extended, written and read again, because another writer may have
done the same meanwhile. There is no conditional write: a writer that had read the list before can
still drop an entry that was checked already. Attaching the same document again mends that, and the
bundle store, which keeps its referrers apart, never loses one.

Source: OCI distribution specification 1.1, "Listing Referrers", "Referrers Tag Schema".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from adroit_publish.bundle.content import Inline
from adroit_publish.bundle.digest import Descriptor, Digest
from adroit_publish.bundle.document import parse_json_object
from adroit_publish.bundle.manifest import (
    EMPTY,
    EMPTY_BLOB,
    INDEX_MEDIA_TYPE,
    MANIFEST_MEDIA_TYPE,
    index_document,
    parse_referrer,
    referrer_manifest,
)
from adroit_publish.errors import StoreError, VerificationError
from adroit_publish.registry.image_reference import Tag
from adroit_publish.registry.repository import ImageRepository

_ATTEMPTS = 10


def attach(
    repository: ImageRepository, subject: Descriptor, media_type: str, data: bytes
) -> Descriptor:
    """Attaches a document to an image; doing it again changes nothing.

    ``media_type`` is also its artifact type.

    Returns:
        The descriptor of the referrer's manifest, the same as in the bundle store.

    Raises:
        StoreError: The registry has no referrers API, and other writers kept changing the list.
        PublishError: As ``ImageRepository.put_blob`` and ``put_manifest``.
    """
    blob = Descriptor.of(media_type, data)
    manifest_data = referrer_manifest(subject, blob)
    manifest = Descriptor.of(MANIFEST_MEDIA_TYPE, manifest_data)
    repository.put_blob(blob, Inline(data))
    repository.put_blob(EMPTY, Inline(EMPTY_BLOB))
    put_referrer(repository, subject.digest, manifest, manifest_data)
    return manifest


def put_referrer(
    repository: ImageRepository, subject: Digest, manifest: Descriptor, data: bytes
) -> None:
    """Attaches a manifest whose blobs are there; raises as ``attach`` does."""
    repository.put_manifest(manifest, data)
    if repository.referrers_index(subject) is None:
        artifact_type = parse_json_object(data, repository.location).get("artifactType")
        entry = manifest.as_dict() | ({"artifactType": artifact_type} if artifact_type else {})
        _extend_list(repository, subject, entry)


def referrers(repository: ImageRepository, subject: Digest) -> tuple[Descriptor, ...]:
    """Returns the descriptors of the manifests that refer to an image, in the registry's order.

    Raises as ``ImageRepository.find``, and VerificationError where the list is malformed.
    """
    data = repository.referrers_index(subject)
    entries = _list(repository, subject) if data is None else _entries(data, repository.location)
    return tuple(Descriptor.from_dict(entry) for entry in entries)


def attached(repository: ImageRepository, subject: Digest, media_type: str) -> Iterator[bytes]:
    """Yields an image's attached documents of ``media_type``, verified; raises as ``read_blob``.

    Raises:
        VerificationError: One of them was made for another image.
    """
    for named in referrers(repository, subject):
        data = repository.resolve(named.digest).data
        manifest = parse_referrer(data, subject, repository.location)
        for blob in manifest.layers:
            if blob.media_type == media_type:
                yield repository.document(blob)


def _extend_list(repository: ImageRepository, subject: Digest, entry: dict[str, Any]) -> None:
    for _ in range(_ATTEMPTS):
        entries = _list(repository, subject)
        if any(each.get("digest") == entry["digest"] for each in entries):
            return
        data = index_document([*entries, entry])
        named = Descriptor.of(INDEX_MEDIA_TYPE, data)
        repository.replace_tag(_list_tag(subject), named, data)
    raise StoreError(
        "The list of an image's referrers kept changing.",
        transient=True,
        where=f"{repository.location}:{_list_tag(subject)}",
        next_step="run the same command again",
    )


def _list(repository: ImageRepository, subject: Digest) -> list[dict[str, Any]]:
    found = repository.find(_list_tag(subject))
    return [] if found is None else _entries(found.data, repository.location)


def _list_tag(subject: Digest) -> Tag:
    return Tag(f"sha256-{subject.hex}")


def _entries(data: bytes, where: str) -> list[dict[str, Any]]:
    entries = parse_json_object(data, where).get("manifests")
    if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
        raise VerificationError("A list of referrers is malformed.", where=where)
    return entries
