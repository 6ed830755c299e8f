"""Bodies that came compressed: what they become, up to a limit."""

from __future__ import annotations

import zlib
from typing import Any


class TooLargeError(Exception):
    """The body becomes larger than it may."""


class UnknownEncodingError(Exception):
    """Nothing here reads this Content-Encoding."""


def plain(body: bytes, encoding: str, limit_bytes: int) -> bytes:
    """Returns a body as it was before it was compressed.

    Args:
        body: As it came.
        encoding: Of the header Content-Encoding; empty or ``identity`` for none.
        limit_bytes: The most that it may become.

    Raises:
        TooLargeError: It becomes more.
        UnknownEncodingError: It is neither gzip nor, where ``zstandard`` is installed, zstd.
        ValueError: It is not what its encoding says.
    """
    match encoding.strip().lower():
        case "" | "identity":
            return body
        case "gzip" | "x-gzip":
            return _read(_Gzip(), body, limit_bytes)
        case "zstd":
            return _zstd(body, limit_bytes)
    raise UnknownEncodingError(encoding)


class _Gzip:
    """gzip as RFC 1952 has it: one member or several."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=31)

    def read(self, data: bytes, most_bytes: int) -> bytes:
        whole, rest = b"", data
        while True:
            whole += self._member.decompress(rest, most_bytes - len(whole))
            if len(whole) >= most_bytes:
                return whole
            if not self._member.eof:
                raise ValueError("the gzip data ends too early")
            rest = self._member.unused_data
            if not rest:
                return whole
            self._member = zlib.decompressobj(wbits=31)


def _read(reader: Any, body: bytes, limit_bytes: int) -> bytes:
    try:
        whole: bytes = reader.read(body, limit_bytes + 1)
    except zlib.error as error:
        raise ValueError(f"not gzip: {error}") from error
    if len(whole) > limit_bytes:
        raise TooLargeError
    return whole


def _zstd(body: bytes, limit_bytes: int) -> bytes:
    try:
        import zstandard  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise UnknownEncodingError("zstd") from error
    try:
        with zstandard.ZstdDecompressor().stream_reader(body) as stream:
            whole: bytes = stream.read(limit_bytes + 1)
    except zstandard.ZstdError as error:
        raise ValueError(f"not zstd: {error}") from error
    if len(whole) > limit_bytes:
        raise TooLargeError
    return whole
