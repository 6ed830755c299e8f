"""One repository of an image registry: blobs, manifests by digest, and last a tag.

* A manifest is verified against its digest whenever it is read, and read back after it was sent.
* A tag is read before it is written. One that names this very manifest is success; one that
  names another is refused and left alone, also where the registry would overwrite it.

Source: OCI distribution specification 1.1, "Pulling manifests", "Pushing manifests".
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from adroit_publish.bundle.digest import Descriptor, Digest
from adroit_publish.bundle.manifest import INDEX_MEDIA_TYPE, MANIFEST_MEDIA_TYPE
from adroit_publish.edge.patience import COSTLY_ATTEMPTS
from adroit_publish.errors import PublishError, RefusedError, StoreError, VerificationError
from adroit_publish.registry.blobs import Blobs
from adroit_publish.registry.errors import failure
from adroit_publish.registry.image_reference import ImageReference, Tag

DOCKER_MANIFEST_MEDIA_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX_MEDIA_TYPE = "application/vnd.docker.distribution.manifest.list.v2+json"
_MANIFEST_MEDIA_TYPES = (
    MANIFEST_MEDIA_TYPE,
    INDEX_MEDIA_TYPE,
    DOCKER_MANIFEST_MEDIA_TYPE,
    DOCKER_INDEX_MEDIA_TYPE,
)


@dataclass(frozen=True)
class StoredManifest:
    """A manifest as a registry holds it, verified."""

    descriptor: Descriptor
    data: bytes = field(repr=False)


class ImageRepository(Blobs):
    """A repository on a registry: its blobs, its manifests and its tags."""

    def find(self, name: Tag | Digest) -> StoredManifest | None:
        """Returns the manifest of that tag or digest, or None where there is none.

        Raises:
            RefusedError, StoreError: As ``Registry.call``; or it is an image of the kind before
                2016.
            VerificationError: What it gave is not what it, or the digest, says.
        """
        what, where = "The manifest could not be read", self._where(name)
        answer = self.registry.call(
            "GET",
            self._manifest_url(name),
            self.pull_scopes,
            what,
            headers={"Accept": ", ".join(_MANIFEST_MEDIA_TYPES)},
        )
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise failure(answer, what, where)
        media_type = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if media_type.startswith("application/vnd.docker.distribution.manifest.v1"):
            raise RefusedError(
                "An image is of Docker's schema 1, which nothing current can read.",
                where=where,
                next_step="push it again with a current Docker",
            )
        told = name if isinstance(name, Digest) else answer.headers.get("Docker-Content-Digest")
        descriptor = Descriptor.of(_own_media_type(answer.body) or media_type, answer.body)
        if told not in (None, descriptor.digest):
            raise VerificationError(
                "A manifest is not what its digest says.",
                where=where,
                got=descriptor.digest,
                wanted=told,
            )
        return StoredManifest(descriptor, answer.body)

    def resolve(self, name: Tag | Digest) -> StoredManifest:
        """Returns a manifest; raises as ``find``, and RefusedError where there is none."""
        found = self.find(name)
        if found is None:
            raise RefusedError(
                "The registry has no such image.",
                where=self._where(name),
                next_step="push the image there, or name one that is there",
            )
        return found

    def put_manifest(self, manifest: Descriptor, data: bytes) -> bool:
        """Makes sure that a manifest is there, by digest; returns whether it was sent.

        Raises:
            PublishError: As ``find``; what the manifest names has to be there before.
            VerificationError: The registry did not keep these bytes.
        """
        try:
            if self.find(manifest.digest) is not None:
                return False
        except VerificationError:
            pass  # rotted; it may be healed by sending it again
        self._put_manifest(manifest.digest, manifest, data)
        if self.find(manifest.digest) is None:
            raise VerificationError(
                "The registry took a manifest and does not have it.",
                where=self._where(manifest.digest),
            )
        return True

    def tag(self, tag: Tag, manifest: Descriptor, data: bytes) -> bool:
        """Gives the manifest a name that nothing else has; returns False where it had it already.

        Raises:
            RefusedError: The tag names another manifest; it is left as it is.
            VerificationError: The registry got other bytes, again and again.
            PublishError: As ``find``.
        """
        if self._names_only(tag, manifest):
            return False
        try:
            self._put_manifest(tag, manifest, data)
        except VerificationError:
            raise
        except PublishError:
            # Another writer was first, or the answer was lost: what is there decides.
            if self._names_only(tag, manifest):
                return True
            raise
        if not self._names_only(tag, manifest):
            raise StoreError(
                "The registry took a tag and does not have it.", where=self._where(tag)
            )
        return True

    def referrers_index(self, subject: Digest) -> bytes | None:
        """Returns the registry's own list of what refers to a manifest, an image index.

        None where it has no referrers API. Raises as ``find`` does.
        """
        what = "The referrers of an image could not be listed"
        answer = self.registry.call(
            "GET", f"{self.url}/referrers/{subject}", self.pull_scopes, what
        )
        if answer.status in (404, 405):
            return None
        if answer.status != 200:
            raise failure(answer, what, self._where(subject))
        return answer.body

    def replace_tag(self, tag: Tag, manifest: Descriptor, data: bytes) -> None:
        """Gives the manifest a name, whatever had it before; raises as ``find`` does.

        For the one tag that is a list and has to change: the referrers of a manifest on a
        registry without the API for them.
        """
        self._put_manifest(tag, manifest, data)

    def _put_manifest(self, name: Tag | Digest, manifest: Descriptor, data: bytes) -> None:
        """Sends a manifest until the registry says that it has these bytes.

        By a tag a registry takes whatever arrives, for the address has no digest to check it by.
        """
        what = "The manifest could not be stored"
        for _ in range(COSTLY_ATTEMPTS):
            answer = self.registry.call(
                "PUT",
                self._manifest_url(name),
                self.push_scopes,
                what,
                headers={"Content-Type": manifest.media_type},
                body=data,
            )
            if answer.status not in (200, 201, 202):
                raise failure(answer, what, self._where(name))
            stored = answer.headers.get("Docker-Content-Digest", manifest.digest)
            if stored == manifest.digest:
                return
        raise VerificationError(
            "The registry got other bytes than were to be sent.",
            where=self._where(name),
            got=stored,
            wanted=manifest.digest,
            next_step="find what changes them on the way, and have that tag removed from the "
            "registry; then run the same command again",
        )

    def _names_only(self, tag: Tag, manifest: Descriptor) -> bool:
        found = self.find(tag)
        if found is None:
            return False
        if found.descriptor.digest == manifest.digest:
            return True
        raise RefusedError(
            "A tag that was published may not change.",
            where=self._where(tag),
            got=found.descriptor.digest,
            wanted=manifest.digest,
            next_step="find out who wrote it; the tag of a version is never moved",
        )

    def _manifest_url(self, name: Tag | Digest) -> str:
        return f"{self.url}/manifests/{name}"

    def _where(self, name: Tag | Digest) -> str:
        return str(ImageReference(self.repository, name))


def _own_media_type(data: bytes) -> str | None:
    """Returns what the manifest says that it is, which no server on the way can change."""
    try:
        media_type = json.loads(data)["mediaType"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return media_type if isinstance(media_type, str) else None
