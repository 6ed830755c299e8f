"""Reading a layer back: exactly the tars that ``layer`` writes, and nothing else.

Every header that is read is written again and has to come out the same; so links, devices, odd
modes, absolute paths, ``..`` and every other thing a tar can hold are refused without a rule for
each of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from adroit_publish.bundle.layer import ROOT, tar_header
from adroit_publish.errors import VerificationError

_BLOCK = 512
_PAX_LIMIT_BYTES = 1 << 16


@dataclass(frozen=True)
class Member:
    """One entry of a layer: its POSIX path in the image; a directory's has no trailing slash."""

    path: str
    size_bytes: int
    executable: bool
    directory: bool


class TarReader:
    """The members of one layer, in order, read from a stream of chunks of any size.

    The stream is read to its end, so that a verifying iterator gets to its verdict.
    """

    def __init__(self, chunks: Iterator[memoryview | bytes], where: object) -> None:
        self._chunks = chunks
        self._where = where
        self._rest = memoryview(b"")
        self._unread = 0
        self._padding = 0

    def files(self, paths: Collection[str]) -> dict[str, bytes]:
        """Returns some files by their path in the image; raises as ``members`` does."""
        wanted = (member for member in self.members() if member.path in paths)
        return {member.path: b"".join(map(bytes, self.content())) for member in wanted}

    def members(self) -> Iterator[Member]:
        """Yields the members; the content of each may be read by ``content`` before the next.

        Raises VerificationError where it is no layer of ours, or not all of it is there.
        """
        while True:
            for _ in self.content():
                pass
            self._exactly(self._padding)
            header = self._exactly(_BLOCK)
            if not any(header):
                break
            member = self._member(header)
            self._unread = member.size_bytes
            self._padding = -member.size_bytes % _BLOCK
            yield member
        if any(self._exactly(_BLOCK)) or len(self._rest) or any(len(c) for c in self._chunks):
            raise self._foreign("bytes after its end")

    def content(self) -> Iterator[memoryview]:
        """Yields the content of the member that ``members`` gave last."""
        while self._unread:
            piece = self._piece(self._unread)
            self._unread -= len(piece)
            yield piece

    def _member(self, header: bytes) -> Member:
        extended = b""
        keywords: dict[str, str] = {}
        if header[156:157] == b"x":
            size = self._octal(header[124:136])
            if size > _PAX_LIMIT_BYTES:
                raise self._foreign("an oversized extended header")
            body = self._exactly(size)
            extended = header + body + self._exactly(-size % _BLOCK)
            keywords = self._keywords(body)
            header = self._exactly(_BLOCK)
        try:
            path = keywords.get("path") or header[:100].rstrip(b"\0").decode("ascii")
            size = int(keywords["size"]) if "size" in keywords else self._octal(header[124:136])
        except ValueError:
            raise self._foreign("a name or a size that cannot be read") from None
        directory = header[156:157] == b"5"
        executable = header[100:108] == b"0000755\0"
        again = tar_header(path, size_bytes=size, directory=directory, executable=executable)
        plain = path.removesuffix("/") if directory else path
        inside = plain == ROOT or plain.startswith(ROOT + "/")
        if again != extended + header or not inside or set(plain.split("/")) & {"", ".", ".."}:
            raise self._foreign(repr(path[:200]))
        return Member(plain, size, executable, directory)

    def _keywords(self, body: bytes) -> dict[str, str]:
        keywords = {}
        while body:
            digits = body.partition(b" ")[0]
            if not digits.isdigit() or not 0 < int(digits) <= len(body):
                raise self._foreign("a broken extended header")
            record, body = body[len(digits) + 1 : int(digits) - 1], body[int(digits) :]
            key, _, value = record.partition(b"=")
            keywords[key.decode(errors="replace")] = value.decode(errors="replace")
        return keywords

    def _octal(self, field: bytes) -> int:
        try:
            return int(field.rstrip(b"\0"), 8)
        except ValueError:
            raise self._foreign("a size that cannot be read") from None

    def _exactly(self, count: int) -> bytes:
        gathered = bytearray()
        while len(gathered) < count:
            gathered += self._piece(count - len(gathered))
        return bytes(gathered)

    def _piece(self, limit: int) -> memoryview:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                raise self._foreign("its end before it is complete")
            self._rest = memoryview(chunk)
        piece, self._rest = self._rest[:limit], self._rest[limit:]
        return piece

    def _foreign(self, got: str) -> VerificationError:
        for _ in self._chunks:
            pass  # a verifying iterator says that these are not the layer's bytes
        return VerificationError(
            "A layer is not one that this program writes.", where=self._where, got=got
        )
