"""The contract between an artifact store and the cache that downloads from it.

A ``RemoteRoot`` lists the files below one place and streams byte ranges of them. A read never
retries: it says by the class of what it raises whether trying again may help (``TransientFault``)
or not (``PublishError``). ``edge.patience`` is the one rule for how long to try.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from adroit_publish.artifacts.arrival.stated import Stated
from adroit_publish.bundle.listing import RemoteFile
from adroit_publish.edge.patience import Patience
from adroit_publish.errors import SourceError

CHUNK_BYTES = 1 << 20
CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 20.0

T = TypeVar("T")


class TransientFault(Exception):
    """A request failed in a way that may be gone the next time, maybe after ``retry_after_s``."""

    def __init__(self, why: str, retry_after_s: float | None = None) -> None:
        super().__init__(why)
        self.retry_after_s = retry_after_s


class CorruptBody(TransientFault):
    """What arrived is not what the store says it stored; none of it may be kept."""


@dataclass(frozen=True)
class Body:
    """Bytes on their way.

    Attributes:
        start: Offset in the file of the first byte: the one asked for, or 0 where the store does
            not honour ranges.
        chunks: The bytes in pieces of at most ``CHUNK_BYTES``; may raise TransientFault.
        stated: What the store says of the whole file's bytes.
    """

    start: int
    chunks: Iterator[bytes]
    stated: Stated


class RemoteRoot(Protocol):
    """A place in an artifact store that holds one model's files.

    Attributes:
        piece_bytes: Files longer than this are fetched as ranges of this length side by side;
            None where a range costs the store as much as the whole file.
    """

    piece_bytes: int | None

    def list_files(self) -> tuple[RemoteFile, ...]:
        """Returns the files below the root as the store lists them.

        Raises:
            SourceError: The store cannot be reached for too long, or answers what is no listing.
            RefusedError: The store wants other credentials.
        """
        ...

    def read(
        self, file: RemoteFile, start: int, stop: int, tag: str | None
    ) -> AbstractContextManager[Body]:
        """Streams bytes ``[start, stop)`` of a file.

        Args:
            file: As it was listed.
            start: Offset of the first byte; more than 0 only with a tag, or where files are
                fetched as ranges.
            stop: Offset behind the last byte.
            tag: Of the bytes that are wanted; None for whatever is there.

        Raises:
            TransientFault: Trying again may help.
            PublishError: It does not; among them, that the file has bytes of another tag now.
        """
        ...

    def stated(self, file: RemoteFile, tag: str) -> Stated:
        """Returns what the store says of a file now, given the tag of the bytes that are here.

        The body is not read. Raises as ``read`` does.
        """
        ...


def persist(work: Callable[[], T], what: str, patience: Patience | None = None) -> T:
    """Returns what ``work`` returns, trying again after each TransientFault.

    ``what`` are the words for it: "The listing of ...". Raises SourceError where patience ran out.
    """
    patience = patience or Patience()
    while True:
        try:
            return work()
        except TransientFault as fault:
            pause(patience, what, fault)


def pause(patience: Patience, what: str, fault: TransientFault) -> None:
    """Waits before the next try, or raises SourceError where patience has run out."""
    error = SourceError(
        f"{what} failed {patience.failures + 1} times.",
        got=str(fault),
        next_step="run the same command again once the server answers; what has arrived is kept",
    )
    patience.wait_or_raise(error, fault.retry_after_s)
