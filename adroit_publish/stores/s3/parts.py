"""A large object sent as parts, several at once, each tried again by itself.

Every part travels with its CRC-32, which S3 checks. The CRCs come from a pass over the content
that also takes its sha256, in the order of the bytes, while the parts before are on their way:
what S3 accepted is what was hashed, and the object is completed only if that was the digest.
Content that knows its CRCs from when it was hashed first (``part_crc32s``) saves that pass.

Whoever fails aborts what it sent. Parts of a writer that was killed, or that lost the store, stay
until they are aborted by somebody else: ``unfinished`` lists them.
Source: Amazon S3 User Guide, "Uploading and copying objects using multipart upload in Amazon S3".
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from adroit_publish.bundle.content import PART_BYTES, Content
from adroit_publish.bundle.digest import Digest
from adroit_publish.edge.threads import Together
from adroit_publish.errors import PublishError, StoreError, VerificationError
from adroit_publish.stores.contract import Progress
from adroit_publish.stores.s3.body import SentBody, crc32_of
from adroit_publish.stores.s3.http import UNSIGNED, Bucket, Call, S3Answer

CONTENT_TYPE = "application/octet-stream"
MOST_PARTS = 10_000
PARTS_AT_ONCE = 4
PARTS_AHEAD = 16  # what was read to be hashed is still in the page cache when it is sent

COMPLETE_REFUSALS = ("PreconditionFailed", "NoSuchKey", "NoSuchUpload")


@dataclass(frozen=True)
class Unfinished:
    """Parts that no object was made of yet: of a writer at work, or of one that was killed.

    ``key`` is the whole key of the object they were for, ``upload_id`` S3's name for them.
    """

    key: str
    upload_id: str
    started_utc: datetime


@dataclass(frozen=True)
class _Part:
    number: int
    start: int
    stop: int
    crc32: int
    etag: str = ""

    @property
    def checksum(self) -> str:
        return base64.b64encode(self.crc32.to_bytes(4, "big")).decode()

    def named(self) -> dict[str, Any]:
        return {"PartNumber": self.number, "ETag": self.etag, "ChecksumCRC32": self.checksum}


def put_parts(
    bucket: Bucket,
    key: str,
    content: Content,
    digest: Digest,
    progress: Progress,
    metadata: Mapping[str, str],
    condition: Mapping[str, str],
) -> S3Answer:
    """Makes a large object, whole or not at all.

    ``metadata`` is what the object keeps of its own, ``condition`` boto3's argument that says what
    may be there already.

    Returns:
        The answer to the completion: its ``code`` is one of ``COMPLETE_REFUSALS``, or None.

    Raises:
        VerificationError: ``content`` gave other bytes than ``digest``; no object was made.
        PublishError: As ``Bucket.send``.
    """
    started = bucket.ask(
        "create_multipart_upload",
        Key=key,
        ContentType=CONTENT_TYPE,
        Metadata=metadata,
        ChecksumAlgorithm="CRC32",
        ChecksumType="COMPOSITE",
    )
    upload_id = started.fact("UploadId")
    try:
        parts = _send_all(bucket, key, upload_id, content, digest, progress)
        answer = bucket.ask(
            "complete_multipart_upload",
            accept=COMPLETE_REFUSALS,
            Key=key,
            UploadId=upload_id,
            MultipartUpload={"Parts": [part.named() for part in parts]},
            **condition,
        )
    except BaseException as error:
        # A store that did not answer for half a minute is not asked for one thing more.
        if not (isinstance(error, StoreError) and error.transient):
            with suppress(PublishError):
                abort(bucket, key, upload_id)
        raise
    if answer.code is not None:
        progress(-content.size_bytes)
        with suppress(PublishError):
            abort(bucket, key, upload_id)
    return answer


def abort(bucket: Bucket, key: str, upload_id: str) -> None:
    """Throws parts away; an object that was made of them already is not touched."""
    gone = ("NoSuchUpload", "NoSuchKey")
    bucket.ask("abort_multipart_upload", accept=gone, Key=key, UploadId=upload_id)


def unfinished(bucket: Bucket, prefix: str) -> Iterator[Unfinished]:
    """Yields the uploads below ``prefix`` that were neither completed nor aborted."""
    markers: dict[str, Any] = {}
    while True:
        page = bucket.ask("list_multipart_uploads", Prefix=prefix, **markers).facts
        for upload in page.get("Uploads", ()):
            yield Unfinished(upload["Key"], upload["UploadId"], upload["Initiated"])
        if not page.get("IsTruncated"):
            return
        markers = {
            "KeyMarker": page["NextKeyMarker"],
            "UploadIdMarker": page["NextUploadIdMarker"],
        }


def part_size_bytes(size_bytes: int) -> int:
    """Returns how long the parts of an object are: 64 MiB, doubled while they would be too many."""
    size = PART_BYTES
    while size * MOST_PARTS < size_bytes:
        size *= 2
    return size


def _send_all(
    bucket: Bucket,
    key: str,
    upload_id: str,
    content: Content,
    digest: Digest,
    progress: Progress,
) -> list[_Part]:
    """Sends the parts as soon as their CRCs are known; the first failure stops the others."""
    with Together(PARTS_AT_ONCE, "part") as threads:
        heard = threads.heeding(progress)

        def send(part: _Part) -> _Part:
            body = SentBody(content, part.crc32, heard, part.start, part.stop)
            query = {"partNumber": str(part.number), "uploadId": upload_id}
            headers = {"x-amz-checksum-crc32": part.checksum}
            answer = bucket.send(Call(key, query, headers, body, UNSIGNED))
            return replace(part, etag=answer.fact("ETag"))

        futures: list[Future[_Part]] = []
        for part in _checked(content, digest):
            if len(futures) >= PARTS_AHEAD:
                futures[-PARTS_AHEAD].result()
            futures.append(threads.start(send, part))
    return [future.result() for future in futures]


def composite_crc32(content: Content) -> str | None:
    """Returns the checksum that S3 keeps of ``content`` sent in our parts, where it is known."""
    known = _known_crc32s(content)
    if known is None:
        return None
    crc32 = zlib.crc32(b"".join(value.to_bytes(4, "big") for value in known))
    return f"{base64.b64encode(crc32.to_bytes(4, 'big')).decode()}-{len(known)}"


def _known_crc32s(content: Content) -> Sequence[int] | None:
    """Returns the CRCs of the parts that ``content`` would be sent in, where it knows them."""
    known: Sequence[int] | None = getattr(content, "part_crc32s", None)
    return known if part_size_bytes(content.size_bytes) == PART_BYTES else None


def _checked(content: Content, digest: Digest) -> Iterator[_Part]:
    """Yields the parts with their CRCs; raises at the end unless the whole was ``digest``."""
    size, length = content.size_bytes, part_size_bytes(content.size_bytes)
    ranges = [(start, min(start + length, size)) for start in range(0, size, length)]
    known = _known_crc32s(content)
    if known is not None:
        for number, ((start, stop), crc32) in enumerate(zip(ranges, known, strict=True), 1):
            yield _Part(number, start, stop, crc32)
        return
    hasher = hashlib.sha256()
    for number, (start, stop) in enumerate(ranges, 1):
        yield _Part(number, start, stop, crc32_of(content, start, stop, hasher))
    if hasher.hexdigest() != digest.hex:
        raise VerificationError(
            "A blob is not what its digest says.",
            got=f"sha256:{hasher.hexdigest()}",
            wanted=digest,
            next_step="run the same command again while nothing writes to its files",
        )
