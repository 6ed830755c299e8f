"""Bytes that can be read more than once, and where they come from.

A layer is never built on disk: it is a row of parts (tar headers as bytes, files by reference)
that is streamed once to hash it and once to send it. ``Content`` is the word for anything with
a length and repeatable bytes; stores accept nothing else. This module opens no file: what can
be opened is handed in.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from itertools import accumulate
from typing import BinaryIO, Protocol, runtime_checkable

from adroit_publish.errors import SourceError, VerificationError

CHUNK_BYTES = 1 << 20
PART_BYTES = 64 << 20
"""How places that take a long blob in parts cut it."""


@runtime_checkable
class Readable(Protocol):
    """A file by reference: its length is known, and it can be opened as often as needed.

    Implementations are small, frozen and picklable. ``open`` gives a binary stream at the
    first byte; it supports ``seek`` and ``readinto``. It raises SourceError where the file is
    gone.
    """

    @property
    def size_bytes(self) -> int: ...

    def open(self) -> BinaryIO: ...


class Content(Protocol):
    """Repeatable bytes of a known length; it may know its ``part_crc32s``."""

    @property
    def size_bytes(self) -> int: ...

    def chunks(self, start: int = 0, stop: int | None = None) -> Iterator[memoryview | bytes]:
        """Yields the bytes ``[start, stop)`` in pieces of at most ``CHUNK_BYTES``.

        A piece is only valid until the next one is asked for. Raises VerificationError where a
        part gives fewer or more bytes than it declared.
        """
        ...


class Inline:
    """Content that is held in memory: manifests, configs, records."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    @property
    def size_bytes(self) -> int:
        return len(self.data)

    def chunks(self, start: int = 0, stop: int | None = None) -> Iterator[memoryview | bytes]:
        view = memoryview(self.data)[start:stop]
        for at in range(0, len(view), CHUNK_BYTES):
            yield view[at : at + CHUNK_BYTES]


@dataclass(frozen=True)
class InlineFile:
    """A ``Readable`` that is held in memory."""

    data: bytes = field(repr=False)

    @property
    def size_bytes(self) -> int:
        return len(self.data)

    def open(self) -> BinaryIO:
        return BytesIO(self.data)


class Concatenation:
    """Content made of parts, each of them bytes or a ``Readable``, one after the other.

    ``part_crc32s`` are of every ``PART_BYTES`` of the whole, where whoever hashed it kept them: a
    place that checks parts then needs no pass of its own.
    """

    def __init__(
        self, parts: Sequence[bytes | Readable], part_crc32s: Sequence[int] | None = None
    ) -> None:
        self.parts = tuple(parts)
        self.part_crc32s = part_crc32s
        self._ends = list(accumulate(_size_of(part) for part in self.parts))

    @property
    def size_bytes(self) -> int:
        return self._ends[-1] if self._ends else 0

    def chunks(self, start: int = 0, stop: int | None = None) -> Iterator[memoryview | bytes]:
        stop = self.size_bytes if stop is None else stop
        first = bisect_right(self._ends, start)
        for index in range(first, len(self.parts)):
            part = self.parts[index]
            part_start = self._ends[index] - _size_of(part)
            if part_start >= stop:
                return
            part_stop = min(stop, self._ends[index]) - part_start
            yield from _read_part(part, max(0, start - part_start), part_stop)


def _size_of(part: bytes | Readable) -> int:
    return len(part) if isinstance(part, bytes) else part.size_bytes


def _read_part(part: bytes | Readable, start: int, stop: int) -> Iterator[memoryview | bytes]:
    if isinstance(part, bytes):
        yield from Inline(part).chunks(start, stop)
        return
    buffer = memoryview(bytearray(min(CHUNK_BYTES, stop - start) or 1))
    with part.open() as stream:
        if start:
            stream.seek(start)
        at = start
        while at < stop:
            count = _filled(stream, buffer[: stop - at], part)
            if not count:
                raise _changed_while_read(part, got=at, wanted=stop)
            yield buffer[:count]
            at += count
        if stop == part.size_bytes and stream.read(1):
            raise _changed_while_read(part, got=f"more than {stop}", wanted=stop)


def _filled(stream: BinaryIO, buffer: memoryview, part: object) -> int:
    try:
        return int(stream.readinto(buffer))  # type: ignore[attr-defined]
    except OSError as error:
        raise SourceError(
            "A file that is to be packed cannot be read.", where=part, got=error.strerror
        ) from error


def _changed_while_read(part: object, got: object, wanted: object) -> VerificationError:
    return VerificationError(
        "A file changed its length while it was read.",
        where=part,
        got=f"{got} bytes",
        wanted=f"{wanted} bytes",
        next_step="run the same command again",
    )
