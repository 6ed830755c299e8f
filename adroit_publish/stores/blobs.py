"""The blobs of a bundle store: by digest, shared by all models.

A blob that is there is believed where its size and the checksum that the place vouches for agree;
one without such a checksum is read. Every read is verified to the last byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from adroit_publish.bundle.content import Content
from adroit_publish.bundle.digest import Descriptor, Digest, document_of, verified
from adroit_publish.errors import StoreError, VerificationError
from adroit_publish.stores.contract import KeyTaken, Objects, Progress, Stat, unheard

_DOCUMENT_LIMIT_BYTES = 64 << 20


class BlobStore:
    """Blobs in one place; ``location`` is its name for users."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self.location = objects.location
        self.on_this_machine = objects.on_this_machine

    def put_blob(
        self, descriptor: Descriptor, content: Content, progress: Progress = unheard
    ) -> bool:
        """Makes sure that the blob is there; returns whether it was sent.

        Args:
            content: Its bytes, read only where they have to be sent.
            progress: Told as bytes are accepted.

        Raises:
            StoreError: The place failed.
            VerificationError: ``content`` is not what ``descriptor`` says.
        """
        key = blob_key(descriptor.digest)
        stat = self.objects.stat(key, checksum=True, content=content)
        if stat is not None and self._is(stat, descriptor):
            return False
        try:
            if stat is None:
                self.objects.create(key, content, descriptor.digest, progress)
            else:  # rotted: it is healed
                self.objects.replace(key, content, descriptor.digest, stat)
        except KeyTaken:
            if self.has_blob(descriptor):
                return False
            raise StoreError(
                "A blob changed while it was stored.",
                where=f"{self.location}/{key}",
                transient=True,
                next_step="run the same command again",
            ) from None
        return True

    def heal_blob(self, descriptor: Descriptor, content: Content) -> None:
        """Replaces whatever has a blob's name, and reads the blob back; raises as ``put_blob``."""
        key = blob_key(descriptor.digest)
        stat = self.objects.stat(key)
        with suppress(KeyTaken):  # another writer was first; what is there is read
            if stat is None:
                self.objects.create(key, content, descriptor.digest)
            else:
                self.objects.replace(key, content, descriptor.digest, stat)
        for _ in self.read_blob(descriptor):
            pass

    def has_blob(self, descriptor: Descriptor, *, at_a_glance: bool = False) -> bool:
        """Tells whether the blob is there: by its checksum, and by reading it where there is none.

        With ``at_a_glance`` its length has to do where it would have to be read.
        """
        checksum = not (at_a_glance and self.objects.checksum_reads)
        stat = self.objects.stat(blob_key(descriptor.digest), checksum=checksum)
        return stat is not None and self._is(stat, descriptor, at_a_glance=at_a_glance)

    def read_blob(self, descriptor: Descriptor) -> Iterator[memoryview | bytes]:
        """Yields a blob's bytes; raises VerificationError at their end unless they are the blob's.

        Raises:
            StoreError: The place failed, or has no such blob.
            VerificationError: The bytes are not what the descriptor says.
        """
        pieces = self.objects.read(blob_key(descriptor.digest))
        where = f"{self.location}/{blob_key(descriptor.digest)}"
        yield from verified(pieces, descriptor.digest, descriptor.size_bytes, where)

    def read_range(
        self, descriptor: Descriptor, start: int, stop: int
    ) -> Iterator[memoryview | bytes]:
        """Yields the bytes ``[start, stop)`` of a blob, unverified."""
        yield from self.objects.read(blob_key(descriptor.digest), start, stop)

    def document(self, descriptor: Descriptor) -> bytes:
        """Returns a blob that is a document, verified; raises as ``document_of``."""
        where = f"{self.location}/{blob_key(descriptor.digest)}"
        return document_of(descriptor, self.read_blob(descriptor), _DOCUMENT_LIMIT_BYTES, where)

    def _is(self, stat: Stat, descriptor: Descriptor, *, at_a_glance: bool = False) -> bool:
        """Tells whether an object is a blob; it is read where the place does not vouch for it."""
        if stat.size_bytes != descriptor.size_bytes:
            return False
        if stat.sha256 is not None or at_a_glance:
            return stat.sha256 in (None, descriptor.digest)
        try:
            for _ in self.read_blob(descriptor):
                pass
        except VerificationError:
            return False
        return True


def blob_key(digest: Digest) -> str:
    """Returns the key of a blob."""
    return f"blobs/sha256/{digest.hex}"
