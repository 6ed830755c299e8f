"""A bucket as a place of immutable objects.

* Objects are created with ``If-None-Match: *``: of many creators S3 lets one succeed.
* Up to ``SINGLE_PUT_BYTES`` an object is sent at once with its known SHA-256, which S3 checks and
  gives back; nothing is hashed again. A larger one is sent in parts (``s3_parts``).
* Every writer leaves a mark of its own on what it makes. Where an answer was lost, reading the
  mark tells whether the object is this writer's: nothing is guessed, nothing deleted.
* ``stat``'s sha256 is S3's own for an object sent at once; for one sent in parts it is what its
  writer had proved before completing it, and is believed only beside the parts' checksum that S3
  keeps.

Source: Amazon S3 API Reference; User Guide, "Add preconditions to S3 operations with conditional
requests". Why these checksums: docs/decisions/0008-s3-checksums.md.
"""

from __future__ import annotations

import base64
import re
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from adroit_publish.bundle.content import Content
from adroit_publish.bundle.digest import Digest
from adroit_publish.edge.patience import Patience
from adroit_publish.errors import ConfigError, StoreError
from adroit_publish.stores.contract import KeyTaken, Progress, Stat, unheard
from adroit_publish.stores.s3 import parts as s3_parts
from adroit_publish.stores.s3.body import SentBody
from adroit_publish.stores.s3.http import GIVE_UP_S, Bucket, Call, S3Answer
from adroit_publish.stores.s3.parts import Unfinished
from adroit_publish.stores.s3.problem import S3Problem

SINGLE_PUT_BYTES = 128 << 20

_LOCATION = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*?))?/*")
_WRITER = "adroit-writer"
_SHA256 = "adroit-sha256"
_HEADERS = {"IfMatch": "If-Match", "IfNoneMatch": "If-None-Match"}
_REFUSALS = ("PreconditionFailed", "NoSuchKey")


class S3Objects:
    """Objects below one prefix of a bucket. Safe to share by threads; nothing is asked before use.

    Args:
        location: ``s3://bucket`` or ``s3://bucket/prefix``; ConfigError for anything else.
        account: The 12 digits of the account that the bucket must belong to; every request
            carries them. None where nobody said.
        profile, endpoint: None leaves the choice to boto3.
    """

    on_this_machine = False
    checksum_reads = False

    def __init__(
        self,
        location: str,
        *,
        account: str | None = None,
        profile: str | None = None,
        endpoint: str | None = None,
    ) -> None:
        match = _LOCATION.fullmatch(location)
        if not match:
            raise ConfigError(
                "This is not the address of a bucket.",
                got=location.rpartition("@")[2],  # whatever stands before it may be secret
                wanted="s3://BUCKET or s3://BUCKET/PREFIX",
            )
        name, prefix = match[1], match[2] or ""
        self.location = f"s3://{name}/{prefix}".rstrip("/")
        self._prefix = f"{prefix}/" if prefix else ""
        self._bucket = Bucket(name, account, profile, endpoint)

    def check(self) -> None:
        """Proves that the bucket is there, in this region and account; RefusedError where not."""
        answer = self._bucket.ask("list_objects_v2", Prefix=self._prefix, MaxKeys=1)
        region = answer.facts["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region")
        if region not in (None, self._bucket.region()):  # boto3 followed it there; data would not
            raise S3Problem(301, "PermanentRedirect", region=region).error(self.location, None)

    def stat(
        self, key: str, *, checksum: bool = False, content: Content | None = None
    ) -> Stat | None:
        answer = self._head(key, checksum)
        if answer is None:
            return None
        sha256 = _sha256_of(answer.facts, content) if checksum else None
        return Stat(answer.fact("ContentLength"), answer.fact("ETag"), sha256)

    def create(
        self, key: str, content: Content, digest: Digest, progress: Progress = unheard
    ) -> None:
        self._put(key, content, digest, progress, {"IfNoneMatch": "*"})

    def replace(self, key: str, content: Content, digest: Digest, seen: Stat) -> None:
        self._put(key, content, digest, unheard, {"IfMatch": seen.tag})

    def read(self, key: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        last = "" if stop is None else str(stop - 1)
        headers = {"Range": f"bytes={start}-{last}"} if start or last else {}
        patience, at = Patience(GIVE_UP_S), start
        while True:
            answer = self._opened(Call(self._prefix + key, headers=headers))
            etag = headers.get("If-Match", answer.fact("ETag"))
            try:
                for chunk in answer.chunks():
                    at += len(chunk)
                    yield chunk
                    patience.gained()
                return
            except StoreError as error:
                patience.wait_or_raise(error)
            headers = {"Range": f"bytes={at}-{last}", "If-Match": etag}

    def keys(self, prefix: str) -> Iterator[str]:
        keys = [entry["Key"] for page in self._pages(prefix) for entry in page.get("Contents", ())]
        yield from sorted((key.removeprefix(self._prefix) for key in keys), key=str.encode)

    def children(self, prefix: str) -> Iterator[str]:
        names: set[str] = set()
        for page in self._pages(prefix, Delimiter="/"):
            names.update(entry["Key"] for entry in page.get("Contents", ()))
            names.update(entry["Prefix"] for entry in page.get("CommonPrefixes", ()))
        below = len(self._prefix + prefix)
        yield from sorted({name[below:].rstrip("/") for name in names} - {""})

    def delete(self, key: str) -> None:
        self._bucket.ask("delete_object", accept=("NoSuchKey",), Key=self._prefix + key)

    def unfinished(self) -> Iterator[Unfinished]:
        """Yields the uploads in parts that were neither completed nor aborted."""
        yield from s3_parts.unfinished(self._bucket, self._prefix)

    def abort(self, upload: Unfinished) -> None:
        """Throws the parts of an upload away; success where there are none any more."""
        s3_parts.abort(self._bucket, upload.key, upload.upload_id)

    def _put(
        self,
        key: str,
        content: Content,
        digest: Digest,
        progress: Progress,
        condition: Mapping[str, str],
    ) -> None:
        metadata = {_WRITER: uuid.uuid4().hex}
        if content.size_bytes > SINGLE_PUT_BYTES:
            metadata[_SHA256] = digest.hex
            answer = s3_parts.put_parts(
                self._bucket, self._prefix + key, content, digest, progress, metadata, condition
            )
        else:
            headers = {
                "Content-Type": s3_parts.CONTENT_TYPE,
                "x-amz-checksum-sha256": base64.b64encode(bytes.fromhex(digest.hex)).decode(),
                **{f"x-amz-meta-{name}": value for name, value in metadata.items()},
                **{_HEADERS[name]: value for name, value in condition.items()},
            }
            body = SentBody(content, digest, progress)
            call = Call(self._prefix + key, {}, headers, body, digest.hex)
            answer = self._bucket.send(call, accept=_REFUSALS)
        if answer.code is None:
            return
        if not (answer.uncertain and self._is_of(metadata[_WRITER], key)):
            raise KeyTaken(key)
        progress(content.size_bytes)  # taken back when the try was refused; it is there

    def _is_of(self, writer: str, key: str) -> bool:
        """Tells whether the object was made by that writer: by its try whose answer was lost."""
        answer = self._head(key, checksum=False)
        return answer is not None and answer.facts["Metadata"].get(_WRITER) == writer

    def _head(self, key: str, checksum: bool) -> S3Answer | None:
        mode: dict[str, Any] = {"ChecksumMode": "ENABLED"} if checksum else {}
        answer = self._bucket.ask(
            "head_object", accept=("NoSuchKey",), Key=self._prefix + key, **mode
        )
        return None if answer.code else answer

    def _opened(self, call: Call) -> S3Answer:
        answer = self._bucket.send(call, accept=_REFUSALS)
        where = f"s3://{self._bucket.name}/{call.key}"
        if answer.code == "NoSuchKey":
            raise StoreError("An object is not there.", where=where)
        if answer.code:
            raise StoreError("An object changed while it was read.", where=where, transient=True)
        return answer

    def _pages(self, prefix: str, **request: Any) -> Iterator[Mapping[str, Any]]:
        asked = self._prefix + prefix
        while True:
            page = self._bucket.ask("list_objects_v2", Prefix=asked, **request).facts
            if page.get("Prefix", asked) != asked:  # nothing else ties a listing to its question
                raise StoreError(
                    "S3 answered with another listing than the one that was asked for.",
                    where=f"s3://{self._bucket.name}/{asked}",
                    got=page["Prefix"],
                    transient=True,
                    next_step="run the same command again",
                )
            yield page
            if not page.get("IsTruncated"):
                return
            request["ContinuationToken"] = page["NextContinuationToken"]


def _sha256_of(facts: Mapping[str, Any], content: Content | None) -> Digest | None:
    """Returns the sha256 that S3 vouches for, or that a writer of parts had proved.

    What a writer of parts says is not believed where ``content`` shows that S3 got other bytes.
    """
    whole = facts.get("ChecksumSHA256", "")
    if whole and "-" not in whole and facts.get("ChecksumType") != "COMPOSITE":
        return Digest("sha256:" + base64.b64decode(whole).hex())
    by_part = facts.get("ChecksumCRC32", "")
    stated = facts["Metadata"].get(_SHA256, "")
    if not (re.fullmatch(r"[\w+/=]+-\d+", by_part) and re.fullmatch("[0-9a-f]{64}", stated)):
        return None
    ours = s3_parts.composite_crc32(content) if content else None
    return Digest(f"sha256:{stated}") if ours in (None, by_part) else None
