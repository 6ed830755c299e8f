"""A stream as a pickle's reader wants it: exact, and past what nobody looks at without a copy."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import BinaryIO

_CHUNK_BYTES = 1 << 20
_LINE_BYTES = 64 << 10
_NESTED_BYTES = 256 << 20
NESTED = (b"PK\x03\x04", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x93NUMPY")
"""How what may hold pickles begins; a pickle itself begins with 0x80 and its protocol."""


class Unreadable(Exception):
    """A file that claims to be a pickle, or an archive of them, cannot be read to its end."""


class Hostile(Unreadable):
    """The same of what no other bytes are by chance, whatever its file is called."""


class Bytes:
    """A stream that gives what is asked for, or raises ``Unreadable``."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._buffer = b""
        self._at = 0
        self.position = 0

    def read(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._buffer):
            self._fill(size)
            end = size
        data = self._buffer[self._at : end]
        self._at = end
        self.position += size
        return data

    def peek(self, size: int) -> bytes:
        """Returns the next bytes, at most ``size`` and fewer at the end, and stays before them."""
        if len(self._buffer) - self._at < size:
            self._buffer = self._buffer[self._at :] + self._stream.read(_CHUNK_BYTES // 16)
            self._at = 0
        return self._buffer[self._at : self._at + size]

    def line(self) -> str:
        """Returns the next line without its end."""
        end = self._buffer.find(b"\n", self._at)
        if end < 0:
            self.peek(_LINE_BYTES)
            end = self._buffer.find(b"\n", self._at)
        if end < 0:
            raise Unreadable("a line does not end")
        line = self._buffer[self._at : end]
        self._at = end + 1
        self.position += len(line) + 1
        return line.decode("utf-8", "replace")

    def skip(self, size: int) -> bytes:
        """Passes over bytes; returns none of them."""
        self.position += size
        left = size - (len(self._buffer) - self._at)
        if left <= 0:
            self._at += size
            return b""
        self._buffer, self._at = b"", 0
        if self._stream.seekable():
            self._stream.seek(left, io.SEEK_CUR)  # past the end, whatever is read next is missing
            return b""
        while left:
            count = len(self._stream.read(min(left, _CHUNK_BYTES)))
            if not count:
                raise Unreadable("it is cut off")
            left -= count
        return b""

    def payload(self, size: int, nested: Callable[[bytes], bool]) -> bool:
        """Passes over bytes; hands them on where they begin as what may hold pickles.

        Returns:
            Whether they were pickles, and were read.
        """
        if not (size > 2 and _may_hold_pickles(self.peek(min(size, 8)))):
            self.skip(size)
            return False
        if size > _NESTED_BYTES:
            raise Unreadable("what is nested in it is too large to be looked at")
        return nested(self.read(size))

    def text_payload(self, size: int, nested: Callable[[bytes], bool]) -> bool:
        """Does the same with a text, as protocols below 3 write bytes."""
        head = self.peek(16)[:size].decode("utf-8", "ignore").encode("latin-1", "ignore")
        if not _may_hold_pickles(head):
            self.skip(size)
            return False
        if size > 2 * _NESTED_BYTES:
            raise Unreadable("what is nested in it is too large to be looked at")
        data = self.read(size)
        try:
            return nested(data.decode().encode("latin-1"))
        except UnicodeError:
            return False  # a text it is

    def _fill(self, size: int) -> None:
        pieces = [self._buffer[self._at :]]
        have = len(pieces[0])
        while have < size:
            piece = self._stream.read(max(size - have, _CHUNK_BYTES // 16))
            if not piece:
                raise Unreadable("it is cut off")
            pieces.append(piece)
            have += len(piece)
        self._buffer, self._at = b"".join(pieces), 0


def _may_hold_pickles(head: bytes) -> bool:
    return head.startswith(NESTED) or (head[:1] == b"\x80" and head[1:2] <= b"\x05")
