"""What a store says of a file's bytes: a tag that changes when they do, and a digest of them.

A tag tells whether two answers are of the same bytes; a digest tells whether what arrived is what
was stored. Most stores state one of them, some both, a tracking server's artifact proxy neither
where it stands before a bucket.

Source: RFC 9110, section 8.8 (validators); RFC 1864 (Content-MD5); Amazon S3, "Checking object
integrity" (ETag); Azure, "Get Blob" (x-ms-blob-content-md5); Google Cloud Storage, "x-goog-hash".
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path

MIB = 1 << 20
# What clients cut uploads into: boto3, S3's least, MLflow, rclone and others; tried in this order.
_USUAL_PART_MIB = (8, 5, 10, 16, 15, 32, 25, 50, 64, 100, 128, 256, 512, 1024)
_SURE_AFTER_S = 60.0
_CHECKSUM_BYTES = {"sha256": 32, "sha1": 20, "crc32": 4}


@dataclass(frozen=True)
class Stated:
    """What a store says of one file.

    Attributes:
        tag: Its ETag, quotes included, or the date of its last change; None where neither tells
            one content from another.
        md5: Hex MD5 of the whole file.
        checksum: Name and hex value of another checksum of the whole file: sha256, sha1 or crc32.
        parts_md5: Hex MD5 of the MD5s of the parts that it was uploaded in.
        part_count: How many those are.
        part_bytes: How long each but the last is, where that is known.
    """

    tag: str | None = None
    md5: str | None = None
    checksum: tuple[str, str] | None = None
    parts_md5: str | None = None
    part_count: int = 0
    part_bytes: int | None = None


def stated_by(headers: Mapping[str, str], *, whole: bool, etag_is_md5: bool = False) -> Stated:
    """Returns what the headers of an answer say.

    Args:
        headers: Of the answer, in any case.
        whole: Whether the answer's body is the whole file: Content-MD5 and S3's checksums are of
            the body.
        etag_is_md5: Whether the store is S3, whose ETag is an MD5 unless a key was used.
    """
    headers = {name.lower(): value for name, value in headers.items()}
    md5 = headers.get("x-ms-blob-content-md5") or (headers.get("content-md5") if whole else None)
    if not md5 and (google := re.search(r"\bmd5=([\w+/]+=*)", headers.get("x-goog-hash", ""))):
        md5 = google[1]
    tag = _tag(headers)
    if md5:
        return Stated(tag, md5=_hex_of(md5))
    has_key = headers.get("x-amz-server-side-encryption", "AES256") != "AES256"
    has_key = has_key or "x-amz-server-side-encryption-customer-algorithm" in headers
    form = re.fullmatch(r'"([0-9a-f]{32})(?:-(\d{1,5}))?"', headers.get("etag", ""))
    if not etag_is_md5 or has_key or not form:
        return Stated(tag, checksum=_checksum(headers) if whole else None)
    if form[2] is None:
        return Stated(tag, md5=form[1])
    return Stated(tag, parts_md5=form[1], part_count=int(form[2]))


def only_of(tag: str | None) -> dict[str, str]:
    """Returns the header that asks for bytes of a tag and of no other."""
    if tag is None:
        return {}
    return {"If-Match" if tag.startswith('"') else "If-Unmodified-Since": tag}


def unless_of(tag: str) -> dict[str, str]:
    """Returns the header that asks for bytes unless they are of a tag."""
    return {"If-None-Match" if tag.startswith('"') else "If-Modified-Since": tag}


def is_proven(path: Path, size_bytes: int, stated: Stated) -> bool | None:
    """Returns whether bytes are those that a store stated; None where that is not known."""
    if stated.md5:
        return _digest(path, "md5") == stated.md5
    if stated.checksum:
        algorithm, value = stated.checksum
        return _digest(path, algorithm) == value
    if not stated.parts_md5:
        return None
    if stated.part_bytes:
        return _parts_md5(path, stated.part_bytes) == stated.parts_md5
    lengths = _possible_part_bytes(size_bytes, stated.part_count)
    return any(_parts_md5(path, length) == stated.parts_md5 for length in lengths) or None


def _tag(headers: Mapping[str, str]) -> str | None:
    etag, changed = headers.get("etag", ""), headers.get("last-modified", "")
    if etag.startswith('"'):  # a weak one (W/"...") says nothing of bytes
        return etag
    try:
        age = parsedate_to_datetime(headers.get("date", "")) - parsedate_to_datetime(changed)
    except (ValueError, TypeError):
        return None
    # A date counts in seconds: what changed just now can change once more under the same one.
    return changed if age.total_seconds() >= _SURE_AFTER_S else None


def _hex_of(text: str, length_bytes: int = 16) -> str | None:
    try:
        value = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return value.hex() if len(value) == length_bytes else None


def _checksum(headers: Mapping[str, str]) -> tuple[str, str] | None:
    """Returns the checksum of a whole object of S3; one of its parts' checksums has a dash."""
    for algorithm, length_bytes in _CHECKSUM_BYTES.items():
        text = headers.get(f"x-amz-checksum-{algorithm}", "")
        if value := _hex_of(text, length_bytes):
            return algorithm, value
    return None


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as stream:
        if algorithm != "crc32":
            return hashlib.file_digest(stream, algorithm).hexdigest()
        crc = 0
        while chunk := stream.read(MIB):
            crc = zlib.crc32(chunk, crc)
        return f"{crc:08x}"


def _parts_md5(path: Path, part_bytes: int) -> str:
    whole = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as stream:
        for start in range(0, path.stat().st_size, part_bytes):
            part = hashlib.md5(usedforsecurity=False)
            for at in range(start, start + part_bytes, MIB):
                part.update(stream.read(min(MIB, start + part_bytes - at)))
            whole.update(part.digest())
    return whole.hexdigest()


def _possible_part_bytes(size_bytes: int, part_count: int) -> Iterator[int]:
    """Yields the usual lengths of parts that cut a file into as many."""
    if part_count == 1:
        yield max(size_bytes, 1)
    elif part_count > 1 and size_bytes:
        for length in (*(MIB * count for count in _USUAL_PART_MIB), -(-size_bytes // part_count)):
            if -(-size_bytes // length) == part_count:
                yield length
