"""The contract between an artifact store and the cache that downloads from it.

A ``RemoteRoot`` lists the files below one place and streams byte ranges of them. A read never
retries: it says by the class of what it raises whether trying again may help (``TransientFault``)
or not (``PublishError``). ``Patience`` is the one rule for how long to try.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from adroit_publish.bundle.listing import RemoteFile
from adroit_publish.errors import SourceError

CHUNK_BYTES = 1 << 20
GIVE_UP_AFTER_S = 40.0
CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 20.0
_LONGEST_PAUSE_S = 1.0

T = TypeVar("T")


class TransientFault(Exception):
    """A request failed in a way that may be gone the next time.

    Args:
        why: What happened, for the message if patience runs out.
        retry_after_s: How long the server asks to be left alone.
    """

    def __init__(self, why: str, retry_after_s: float | None = None) -> None:
        super().__init__(why)
        self.retry_after_s = retry_after_s


class CorruptBody(TransientFault):
    """What arrived is not what the store says it stored; none of it may be kept."""


class Stopped(Exception):
    """Another download of the same pull failed, or the user interrupted it."""


@dataclass(frozen=True)
class Body:
    """Bytes on their way.

    Attributes:
        start: Offset in the file of the first byte: the one asked for, or 0 where the store does
            not honour ranges.
        chunks: The bytes in pieces of at most ``CHUNK_BYTES``; may raise TransientFault.
    """

    start: int
    chunks: Iterator[bytes]


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

    def read(self, file: RemoteFile, start: int, stop: int) -> AbstractContextManager[Body]:
        """Streams bytes ``[start, stop)`` of a file; raises TransientFault or PublishError."""
        ...


class Patience:
    """How long one file, or one listing, is tried without anything arriving.

    Args:
        what: What is being tried, for the error.
        give_up_after_s: Seconds without progress after which a second failure is the last.
        stopped: Set when the pull as a whole has ended; pauses end with it.
    """

    def __init__(
        self,
        what: str,
        give_up_after_s: float = GIVE_UP_AFTER_S,
        stopped: threading.Event | None = None,
    ) -> None:
        self._what = what
        self._give_up_after_s = give_up_after_s
        self._stopped = stopped or threading.Event()
        self.progress()

    def progress(self) -> None:
        """Something new arrived: the clock and the back-off start again."""
        self._since = time.monotonic()
        self._failures = 0

    def pause(self, fault: TransientFault) -> None:
        """Waits before the next try: jittered, growing, or as long as the server asked.

        Raises:
            SourceError: Nothing arrived for too long.
            Stopped: The pull has ended meanwhile.
        """
        self._failures += 1
        waited_s = time.monotonic() - self._since
        pause_s = random.uniform(0, min(_LONGEST_PAUSE_S, 0.05 * 2**self._failures))
        pause_s = max(pause_s, fault.retry_after_s or 0.0)
        # Never after a single failure: one stalled read may have used up all the time by itself.
        if self._failures > 1 and waited_s + pause_s > self._give_up_after_s:
            raise SourceError(
                f"{self._what} failed {self._failures} times in {waited_s:.0f} s.",
                got=str(fault),
                next_step="run the same command again once the server answers; "
                "what has arrived is kept",
            ) from fault
        if self._stopped.wait(min(pause_s, self._give_up_after_s)):
            raise Stopped


def persist(work: Callable[[], T], patience: Patience) -> T:
    """Returns what ``work`` returns, trying again after each TransientFault while it may.

    Raises:
        SourceError: Patience ran out.
    """
    while True:
        try:
            return work()
        except TransientFault as fault:
            patience.pause(fault)
