"""Digests and descriptors, and the reader that believes nobody.

Source: OCI image specification, "Content Descriptors". Only sha256 is written; a digest of any
other algorithm is refused where it is read.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from adroit_publish.bundle.content import Content
from adroit_publish.errors import VerificationError

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Digest(str):
    """A sha256 digest as registries spell it: ``sha256:`` and 64 lower-case hex digits.

    Raises:
        VerificationError: The text is no such digest.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Digest:
        if not _DIGEST.fullmatch(text):
            raise VerificationError(
                "A digest is malformed.", got=repr(text[:100]), wanted="sha256:<64 hex digits>"
            )
        return super().__new__(cls, text)

    @classmethod
    def of(cls, data: bytes) -> Digest:
        """Returns the digest of ``data``."""
        return cls("sha256:" + hashlib.sha256(data).hexdigest())

    @property
    def hex(self) -> str:
        """The 64 hex digits without the algorithm."""
        return self[7:]


def is_hex(name: str) -> bool:
    """Tells whether a name is a sha256 digest without its algorithm."""
    return _DIGEST.fullmatch(f"sha256:{name}") is not None


@dataclass(frozen=True)
class Descriptor:
    """What names a blob: its media type, digest and length.

    ``annotations`` are free text about it; part of whatever document the descriptor stands in.
    """

    media_type: str
    digest: Digest
    size_bytes: int
    annotations: Mapping[str, str] = field(default_factory=dict, compare=False)

    @classmethod
    def of(
        cls, media_type: str, data: bytes, annotations: Mapping[str, str] | None = None
    ) -> Descriptor:
        """Returns the descriptor of ``data``."""
        return cls(media_type, Digest.of(data), len(data), annotations or {})

    def as_dict(self) -> dict[str, Any]:
        """Returns the descriptor in OCI's spelling."""
        value: dict[str, Any] = {
            "mediaType": self.media_type,
            "digest": str(self.digest),
            "size": self.size_bytes,
        }
        if self.annotations:
            value["annotations"] = dict(self.annotations)
        return value

    @classmethod
    def from_dict(cls, value: Any, where: object = None) -> Descriptor:
        """Returns the descriptor of OCI's spelling ``value``; raises VerificationError."""
        try:
            media_type, digest, size = value["mediaType"], value["digest"], value["size"]
            annotations = value.get("annotations") or {}
            ok = isinstance(media_type, str) and bool(_DIGEST.fullmatch(digest))
            ok = ok and type(size) is int and size >= 0 and isinstance(annotations, dict)
        except (KeyError, TypeError, AttributeError):
            ok = False
        if not ok:
            raise VerificationError(
                "A descriptor is malformed.", where=where, got=repr(value)[:200]
            )
        return cls(media_type, Digest(digest), size, annotations)


def sha256_of(content: Content) -> Digest:
    """Returns the digest of ``content``, reading it once."""
    hasher = hashlib.sha256()
    for chunk in content.chunks():
        hasher.update(chunk)
    return Digest("sha256:" + hasher.hexdigest())


def document_of(
    descriptor: Descriptor, chunks: Iterable[memoryview | bytes], limit_bytes: int, where: object
) -> bytes:
    """Returns a blob in one piece; raises VerificationError, unread, where it is too long."""
    if descriptor.size_bytes > limit_bytes:
        raise VerificationError(
            "A document is too large.",
            where=where,
            got=f"{descriptor.size_bytes} bytes",
            wanted=f"at most {limit_bytes} bytes",
        )
    return b"".join(map(bytes, chunks))


def verified(
    chunks: Iterator[memoryview | bytes], digest: Digest, size_bytes: int, where: object
) -> Iterator[memoryview | bytes]:
    """Yields ``chunks`` and raises at their end unless they were the bytes of ``digest``.

    Nothing that was yielded may be acted on before the iterator is exhausted.

    Raises:
        VerificationError: More or fewer than ``size_bytes`` bytes, or another digest.
    """
    hasher = hashlib.sha256()
    count = 0
    for chunk in chunks:
        count += len(chunk)
        if count > size_bytes:
            break
        hasher.update(chunk)
        yield chunk
    if count != size_bytes:
        got = f"more than {size_bytes}" if count > size_bytes else str(count)
        raise VerificationError(
            "A blob has the wrong length.",
            where=where,
            got=f"{got} bytes",
            wanted=f"{size_bytes} bytes",
        )
    if hasher.hexdigest() != digest.hex:
        raise VerificationError(
            "A blob is not what its digest says.",
            where=where,
            got="sha256:" + hasher.hexdigest(),
            wanted=digest,
        )
