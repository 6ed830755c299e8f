"""One file of a model, fetched piece by piece into its part.

A piece goes on where it broke, and goes on from an earlier pull, only while the store says that the
bytes are of the same tag. Where it gives no tag, a piece that broke begins anew.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Protocol

from adroit_publish.artifacts.arrival.part import Part
from adroit_publish.artifacts.arrival.seal import sha256_of
from adroit_publish.artifacts.arrival.stated import Stated
from adroit_publish.artifacts.remote_root import (
    CorruptBody,
    RemoteRoot,
    TransientFault,
    pause,
    persist,
)
from adroit_publish.bundle.listing import RemoteFile
from adroit_publish.edge.patience import Patience
from adroit_publish.errors import SourceError

MARKED_BYTES = 8 << 20
"""After so many bytes of one stream it is noted that they have arrived."""


class Count(Protocol):
    """Hears of bytes that are here; raises Stopped once the pull as a whole has ended."""

    def __call__(self, size_bytes: int, *, downloaded: bool = False) -> None: ...


class Download:
    """One file on its way into its part; its bytes are counted once each.

    Attributes:
        missing: ``(start, stop)`` of each piece to fetch, once it is planned.
        stated: What the store says of the bytes that arrive.
        is_split: Whether it is fetched in several pieces.
    """

    def __init__(
        self,
        root: RemoteRoot,
        parts: Path,
        file: RemoteFile,
        patience: Callable[[], Patience],
        count: Count,
    ) -> None:
        self.file = file
        self.part = Part(parts, file)
        self.missing: list[tuple[int, int]] = []
        self.stated = Stated(file.tag)
        self._root = root
        self._what = f"The download of {file.path!r}"
        self._patience = patience
        self._count = count
        self._lock = threading.Lock()
        self._left = 0
        self._furthest: dict[int, int] = {}
        split_bytes = root.piece_bytes
        self.is_split = split_bytes is not None and file.size_bytes > split_bytes
        self._piece_bytes = split_bytes if split_bytes and self.is_split else file.size_bytes

    def plan(self) -> None:
        """Finds what is missing: everything, less what an earlier pull has left of these bytes."""
        stretches = self._arrived()
        size_bytes = self.file.size_bytes
        for start in range(0, max(size_bytes, 1), max(self._piece_bytes, 1)):
            at, stop = start, min(start + self._piece_bytes, size_bytes)
            for arrived_start, arrived_stop in stretches:
                if arrived_start <= at < arrived_stop:
                    at = min(arrived_stop, stop)
            self._count(at - start)
            # An empty file is asked for too: that its store says the same is part of the check.
            if at < stop or not size_bytes:
                self.missing.append((at, stop))
        self._left = len(self.missing)

    def _arrived(self) -> tuple[tuple[int, int], ...]:
        arrived = self.part.arrived()
        if arrived:
            ask = partial(self._root.stated, self.file, arrived.tag)
            stated = persist(ask, self._what, self._patience())
            if stated.tag == arrived.tag:
                self.stated = stated
                return arrived.stretches
        self.part.forget()
        return ()

    def fetch(self, start: int, stop: int) -> bool:
        """Fetches one piece; returns whether it was the last. Raises PublishError, or Stopped."""
        with self.part.open() as descriptor:
            self._fetch(descriptor, start, stop)
        with self._lock:
            self._left -= 1
            return self._left == 0

    def _fetch(self, descriptor: int, start: int, stop: int) -> None:
        patience = self._patience()
        at = marked = start
        try:
            while True:
                try:
                    with self._root.read(self.file, at, stop, self.stated.tag) as body:
                        self._check_same(body.stated, begins=body.start, asked=at)
                        if body.start < at:
                            at = marked = body.start
                        for reached in self._written(descriptor, at, stop, body.chunks):
                            at = reached
                            self._heard(start, at, patience)
                            if at - marked >= MARKED_BYTES and not self.is_split:
                                self.part.mark(descriptor, marked, at, self.stated.tag)
                                marked = at
                    if at == stop:
                        break
                    fault = TransientFault(f"the body ended after {at} of {stop} bytes")
                except TransientFault as error:
                    fault = error
                if isinstance(fault, CorruptBody) or self.stated.tag is None:
                    self.part.forget()
                    at = marked = start if self.is_split else 0
                pause(patience, self._what, fault)
        finally:
            if at < stop and not self.is_split:
                with suppress(OSError):
                    self.part.mark(descriptor, marked, at, self.stated.tag)
        if self.is_split:
            self.part.mark(descriptor, start, stop, self.stated.tag)

    def _check_same(self, stated: Stated, *, begins: int, asked: int) -> None:
        """Holds an answer to what the answers before it were of."""
        with self._lock:
            tag = self.stated.tag
            if begins == 0 and not self.is_split and self.file.tag is None:
                if asked:
                    self.part.forget()  # the store has begun anew, maybe with other bytes
                self.stated = stated
            elif stated.tag == tag or (tag is None and begins == asked):
                self.stated = stated if stated.md5 or not self.stated.md5 else self.stated
            elif stated.tag is not None:
                raise SourceError(
                    "A file of the model was replaced while it was read.",
                    where=self.file.path,
                    got=stated.tag,
                    wanted=tag,
                    next_step="run the same command again once nothing writes to the run",
                )

    def _heard(self, start: int, at: int, patience: Patience) -> None:
        """Counts the bytes of a piece that are here for the first time."""
        furthest = self._furthest.get(start, start)
        if at > furthest:
            self._furthest[start] = at
            patience.gained()
        self._count(max(at - furthest, 0), downloaded=True)

    def _written(
        self, descriptor: int, at: int, stop: int, chunks: Iterator[bytes]
    ) -> Iterator[int]:
        """Writes a body into the part and yields the offset reached after each chunk."""
        for chunk in chunks:
            if at + len(chunk) > stop:
                raise SourceError(
                    "The artifact store sends more bytes than it listed.",
                    where=self.file.path,
                    got=f"more than {stop} bytes",
                    wanted=f"{stop} bytes",
                    next_step="check that nothing writes to the run any more, then run it again",
                )
            view = memoryview(chunk)
            while view:
                count = os.pwrite(descriptor, view, at)
                at += count
                view = view[count:]
            yield at

    def fetch_anew(self) -> None:
        """Fetches the whole file again: what is here is not what the store has."""
        self.part.forget()
        self.stated = Stated(self.file.tag)
        with self.part.open() as descriptor:
            for start in range(0, max(self.file.size_bytes, 1), max(self._piece_bytes, 1)):
                stop = min(start + self._piece_bytes, self.file.size_bytes)
                self._fetch(descriptor, start, stop)

    def digest_again(self) -> str:
        """Returns the hex sha256 of the file, fetched once more and kept nowhere."""
        patience = self._patience()
        size_bytes, furthest = self.file.size_bytes, 0
        while True:
            hasher, at = hashlib.sha256(), 0
            fault = TransientFault("the body ended early")
            try:
                with self._root.read(self.file, 0, size_bytes, self.stated.tag) as body:
                    for chunk in body.chunks:
                        self._count(0)
                        hasher.update(chunk)
                        at += len(chunk)
                        if at > furthest:
                            furthest = at
                            patience.gained()
                if at == size_bytes:
                    return hasher.hexdigest()
            except TransientFault as error:
                fault = error
            pause(patience, self._what, fault)

    def sync(self) -> str:
        """Makes what has arrived durable and returns its hex sha256; checks its length."""
        size_bytes = self.part.path.stat().st_size
        if size_bytes != self.file.size_bytes:
            raise SourceError(
                "A download has another length than listed.",
                where=self.file.path,
                got=f"{size_bytes} bytes",
                wanted=f"{self.file.size_bytes} bytes",
                next_step="run the same command again",
            )
        with self.part.open() as descriptor:
            os.fdatasync(descriptor)
        return sha256_of(self.part.path)
