"""What a place that keeps immutable objects promises.

An object has a key (``blobs/sha256/<hex>``, ``<model>/<version>/index.json``), a length and bytes
that never change. The promises, tested by one suite for every implementation
(tests/test_objects_contract.py):

* ``create`` either makes the whole object or none of it, visible to every later read, and on
  return it is durable. Where the key is taken it raises ``KeyTaken`` and changes nothing; of many
  creators at once exactly one succeeds.
* ``stat`` tells what is there now. With ``checksum=True`` it also tells a sha256 that the place
  vouches for, or None where it can vouch for none: of such an object nothing is known but its
  length, whoever put it there, until it is read.
* ``read`` gives the bytes as they are; who reads verifies.
* ``replace`` swaps the object that ``stat`` showed, and only that one. Two uses: healing a rotted
  blob, and the few documents that change (a rollover's state).
* An unknown outcome is resolved inside, by reading; nothing is deleted on a doubt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from adroit_publish.bundle.content import Content
from adroit_publish.bundle.digest import Digest

Progress = Callable[[int], None]
"""Told how many more bytes have been accepted (negative where a part has to be sent again)."""


def unheard(_size_bytes: int) -> None:
    """A ``Progress`` that tells nobody."""


class KeyTaken(Exception):
    """The key is taken, or the object to be replaced is no longer the one that was seen."""


@dataclass(frozen=True)
class Stat:
    """What is known of a stored object.

    Attributes:
        tag: Changes whenever the object does (an ETag, or device, inode, mtime and length).
        sha256: What the place vouches its bytes to be, or None.
    """

    size_bytes: int
    tag: str
    sha256: Digest | None = None


class Objects(Protocol):
    """A place that keeps immutable objects by key.

    Every method raises StoreError where the place fails (``transient`` where trying again may
    help) and RefusedError where it denies access.

    Attributes:
        location: The place as a user names it: ``file:...`` or ``s3://...``; no credentials.
        on_this_machine: Whether what it holds is on this machine alone.
        checksum_reads: Whether ``stat`` has to read the object to know its sha256.
    """

    location: str
    on_this_machine: bool
    checksum_reads: bool

    def check(self) -> None:
        """Proves, before any work, that the place may be used; raises RefusedError if not."""
        ...

    def stat(
        self, key: str, *, checksum: bool = False, content: Content | None = None
    ) -> Stat | None:
        """Returns what is at ``key``, or None where there is nothing.

        Args:
            key: Where.
            checksum: Whether to tell the sha256 as well.
            content: What ought to be there; checksums that it knows and the place keeps are
                compared, and the place vouches for nothing where they differ.
        """
        ...

    def create(
        self, key: str, content: Content, digest: Digest, progress: Progress = unheard
    ) -> None:
        """Makes the object, whole and durable, or raises and leaves nothing to be seen.

        Args:
            digest: Their sha256, known beforehand; bytes that differ from it are not stored.
            progress: Told as bytes are accepted.

        Raises:
            KeyTaken: Something is there already.
            VerificationError: ``content`` gave other bytes than ``digest``.
        """
        ...

    def replace(self, key: str, content: Content, digest: Digest, seen: Stat) -> None:
        """Puts ``content`` in the place of the object that ``seen`` describes.

        Raises:
            KeyTaken: The object is no longer the one that was seen.
            VerificationError: ``content`` gave other bytes than ``digest``.
        """
        ...

    def read(
        self, key: str, start: int = 0, stop: int | None = None
    ) -> Iterator[memoryview | bytes]:
        """Yields the object's bytes ``[start, stop)``, all of them unless told otherwise.

        A piece is only valid until the next one is asked for. Raises StoreError (not transient)
        where there is nothing.
        """
        ...

    def keys(self, prefix: str) -> Iterator[str]:
        """Yields every key that starts with ``prefix``, in the order of their bytes."""
        ...

    def children(self, prefix: str) -> Iterator[str]:
        """Yields the names directly below ``prefix`` (empty, or ending in ``/``), sorted."""
        ...

    def delete(self, key: str) -> None:
        """Removes the object; success where there is none."""
        ...
