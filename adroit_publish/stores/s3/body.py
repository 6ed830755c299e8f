"""A request's body: a range of some content, streamed, counted and repeatable."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator

from adroit_publish.bundle.content import Content
from adroit_publish.bundle.digest import Digest, sha256_of
from adroit_publish.errors import VerificationError
from adroit_publish.stores.contract import Progress, unheard


class SentBody:
    """The bytes ``[start, stop)`` of a content; iterating begins again at the first of them.

    Attributes:
        expected: What the bytes must be: their sha256, or their CRC-32.
        failure: What the content failed with, if it did.
        heard: Called whenever the server has taken bytes.
    """

    def __init__(
        self,
        content: Content,
        expected: Digest | int,
        progress: Progress = unheard,
        start: int = 0,
        stop: int | None = None,
    ) -> None:
        self.content = content
        self.expected = expected
        self.start, self.stop = start, content.size_bytes if stop is None else stop
        self.size_bytes = self.stop - self.start
        self.failure: Exception | None = None
        self.heard: Callable[[], object] = lambda: None
        self._progress = progress
        self._sent_bytes = 0

    def __iter__(self) -> Iterator[memoryview | bytes]:
        try:
            for chunk in self.content.chunks(self.start, self.stop):
                self._sent_bytes += len(chunk)
                self._progress(len(chunk))
                if self._sent_bytes > self.size_bytes:
                    break
                yield chunk
                self.heard()
            if self._sent_bytes != self.size_bytes:
                raise VerificationError(
                    "A blob has the wrong length.",
                    got=f"{self._sent_bytes} bytes",
                    wanted=f"{self.size_bytes} bytes",
                )
        except Exception as error:
            self.failure = error  # the HTTP client wraps it in one of its own
            raise

    def take_back(self) -> None:
        """Tells the progress that what was sent did not count."""
        sent, self._sent_bytes = self._sent_bytes, 0
        if sent:
            self._progress(-sent)

    def recheck(self) -> None:
        """Finds out whose fault wrong bytes are.

        Raises:
            VerificationError: The content is not what it was said to be; else the way was bad.
        """
        got: object
        if isinstance(self.expected, Digest):
            got = sha256_of(self.content)
        else:
            got = crc32_of(self.content, self.start, self.stop)
        if got != self.expected:
            raise VerificationError(
                "A blob changed after its digest was taken.",
                got=got,
                wanted=self.expected,
                next_step="run the same command again while nothing writes to its files",
            )


def crc32_of(content: Content, start: int, stop: int, also: hashlib._Hash | None = None) -> int:
    """Returns the CRC-32 of a range, and feeds the same bytes to ``also``."""
    value = 0
    for chunk in content.chunks(start, stop):
        value = zlib.crc32(chunk, value)
        if also is not None:
            also.update(chunk)
    return value
