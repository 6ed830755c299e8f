"""What the server and its workers send each other: a JSON object, and bytes.

    a key; 8 bytes: the lengths of both, big-endian; the JSON; the bytes

A model may write to every descriptor that its process has, and some do. So each server has a random
key that opens a frame: what comes between frames is not one, and is passed over.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

_LENGTHS = struct.Struct("!II")
_FACTS_BYTES = 16 << 20
_BODY_BYTES = 1 << 30
KEY_BYTES = 16


class FrameError(Exception):
    """What was read is not a frame."""


@dataclass(frozen=True)
class Frame:
    """One message.

    Attributes:
        facts: A JSON object.
        body: Bytes that ``facts`` describes.
    """

    facts: Mapping[str, Any]
    body: bytes = b""

    def encoded(self, key: bytes) -> bytes:
        """Returns the frame as it is sent."""
        facts = json.dumps(self.facts).encode()
        return key + _LENGTHS.pack(len(facts), len(self.body)) + facts + self.body

    def parts(self, key: str) -> Iterator[tuple[Mapping[str, Any], bytes]]:
        """Yields each entry of the list ``facts[key]`` with its ``size`` bytes of the body."""
        start = 0
        for entry in self.facts[key]:
            yield entry, self.body[start : start + entry["size"]]
            start += entry["size"]


@dataclass
class Decoder:
    """Puts frames together from the pieces that arrive.

    Attributes:
        key: What opens a frame.
    """

    key: bytes
    _waiting: bytearray = field(default_factory=bytearray)

    def feed(self, piece: bytes) -> Iterator[Frame]:
        """Yields the frames that ``piece`` completes.

        Raises:
            FrameError: What comes after the key is not a frame.
        """
        self._waiting += piece
        while self._at_key():
            head = self._waiting[len(self.key) : len(self.key) + _LENGTHS.size]
            if len(head) < _LENGTHS.size:
                return
            facts_end, end = (len(self.key) + length for length in _ends(head))
            if len(self._waiting) < end:
                return
            facts = bytes(self._waiting[len(self.key) + _LENGTHS.size : facts_end])
            body = bytes(self._waiting[facts_end:end])
            del self._waiting[:end]
            yield _parsed(facts, body)

    def _at_key(self) -> bool:
        """Passes over what is before a key; False where there is none yet."""
        start = self._waiting.find(self.key)
        del self._waiting[: start if start >= 0 else -(len(self.key) - 1)]
        return start >= 0


def receive(connection: socket.socket, key: bytes) -> Frame | None:
    """Returns the next frame of a blocking socket; None where the other side has closed it.

    Raises:
        FrameError: What came is not a frame.
    """
    head = _exactly(connection, len(key) + _LENGTHS.size)
    if head is None:
        return None
    if not head.startswith(key):
        raise FrameError("another key")
    facts_end, end = _ends(head[len(key) :])
    rest = _exactly(connection, end - _LENGTHS.size)
    if rest is None:
        return None
    split = facts_end - _LENGTHS.size
    return _parsed(rest[:split], rest[split:])


def _ends(head: bytes | bytearray) -> tuple[int, int]:
    facts_bytes, body_bytes = _LENGTHS.unpack(head)
    if facts_bytes > _FACTS_BYTES or body_bytes > _BODY_BYTES:
        raise FrameError(f"lengths of {facts_bytes} and {body_bytes} bytes")
    facts_end = _LENGTHS.size + facts_bytes
    return facts_end, facts_end + body_bytes


def _parsed(facts: bytes, body: bytes) -> Frame:
    try:
        value = json.loads(facts)
    except (ValueError, RecursionError) as error:
        raise FrameError("no JSON") from error
    if not isinstance(value, dict):
        raise FrameError("no JSON object")
    return Frame(value, body)


def _exactly(connection: socket.socket, size: int) -> bytes | None:
    pieces = bytearray(size)
    view, got = memoryview(pieces), 0
    while got < size:
        count = connection.recv_into(view[got:])
        if not count:
            return None
        got += count
    return bytes(pieces)
