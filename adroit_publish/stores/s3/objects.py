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
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace
from urllib.parse import unquote
from xml.etree import ElementTree

from adroit_publish.bundle.content import Content
from adroit_publish.bundle.digest import Digest
from adroit_publish.errors import ConfigError, StoreError
from adroit_publish.stores.contract import KeyTaken, Progress, Stat, unheard
from adroit_publish.stores.s3 import parts as s3_parts
from adroit_publish.stores.s3.body import Body
from adroit_publish.stores.s3.http import Answer, Bucket, Call
from adroit_publish.stores.s3.parts import Unfinished
from adroit_publish.stores.s3.problem import Patience, Problem

SINGLE_PUT_BYTES = 128 << 20

_LOCATION = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*?))?/*")
_WRITER = "x-amz-meta-adroit-writer"
_SHA256 = "x-amz-meta-adroit-sha256"
_REFUSALS = ("PreconditionFailed", "NoSuchKey")


class S3Objects:
    """Objects below one prefix of a bucket. Safe to share by threads; nothing is asked before use.

    Args:
        location: ``s3://bucket`` or ``s3://bucket/prefix``.
        account: The 12 digits of the account that the bucket must belong to; every request
            carries them. None where nobody said.
        profile: An AWS profile; None leaves the choice to boto3.
        region: The bucket's region; None leaves the choice to boto3.
        endpoint: Where S3 is reached; None leaves the choice to boto3.

    Raises:
        ConfigError: ``location`` is not the address of a bucket.
    """

    on_this_machine = False
    checksum_reads = False

    def __init__(
        self,
        location: str,
        *,
        account: str | None = None,
        profile: str | None = None,
        region: str | None = None,
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
        self._bucket = Bucket(name, account, profile, region, endpoint)

    def check(self) -> None:
        """Proves, before any work, that the bucket is there, in this region and account.

        Raises:
            RefusedError: It is not, or access is denied.
            StoreError: S3 could not be reached.
        """
        query = {"list-type": "2", "max-keys": "1", "prefix": self._prefix}
        self._bucket.send(Call("GET", "", query))

    def stat(self, key: str, *, checksum: bool = False) -> Stat | None:
        headers = self._head(key, checksum)
        if headers is None:
            return None
        sha256 = _sha256_of(headers) if checksum else None
        return Stat(int(headers["Content-Length"]), headers["ETag"], sha256)

    def create(
        self, key: str, content: Content, digest: Digest, progress: Progress = unheard
    ) -> None:
        self._put(key, content, digest, progress, {"If-None-Match": "*"})

    def replace(self, key: str, content: Content, digest: Digest, seen: Stat) -> None:
        self._put(key, content, digest, unheard, {"If-Match": seen.tag})

    def read(self, key: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        last = "" if stop is None else str(stop - 1)
        ranged = {"Range": f"bytes={start}-{last}"} if start or last else {}
        call = Call("GET", self._prefix + key, headers=ranged)
        patience, at = Patience(), start
        first = answer = self._opened(call)
        while True:
            try:
                for chunk in answer.chunks():
                    at += len(chunk)
                    patience = Patience()
                    yield chunk
                return
            except StoreError:
                pause_s = patience.pause_s(Problem(0, "ConnectionClosedError"))
                if pause_s is None:
                    raise
            time.sleep(pause_s)
            rest = {"Range": f"bytes={at}-{last}", "If-Match": first.headers["ETag"]}
            answer = self._opened(replace(call, headers=rest))

    def keys(self, prefix: str) -> Iterator[str]:
        pages = self._pages(prefix, delimiter="")
        keys = [key for page in pages for key in _texts(page, "{*}Contents/{*}Key")]
        yield from sorted((key.removeprefix(self._prefix) for key in keys), key=str.encode)

    def children(self, prefix: str) -> Iterator[str]:
        below = len(self._prefix + prefix)
        names: set[str] = set()
        for page in self._pages(prefix, delimiter="/"):
            for path in ("{*}Contents/{*}Key", "{*}CommonPrefixes/{*}Prefix"):
                names.update(key[below:].rstrip("/") for key in _texts(page, path))
        yield from sorted(names - {""})

    def delete(self, key: str) -> None:
        self._bucket.send(Call("DELETE", self._prefix + key), accept=("NoSuchKey",))

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
        writer = uuid.uuid4().hex
        kept = {"Content-Type": "application/octet-stream", _WRITER: writer}
        if content.size_bytes > SINGLE_PUT_BYTES:
            kept[_SHA256] = digest.hex
            answer = s3_parts.put_parts(
                self._bucket, self._prefix + key, content, digest, progress, kept, condition
            )
        else:
            kept["x-amz-checksum-sha256"] = base64.b64encode(bytes.fromhex(digest.hex)).decode()
            body = Body(content, digest, progress)
            call = Call("PUT", self._prefix + key, {}, {**kept, **condition}, body, digest.hex)
            answer = self._bucket.send(call, accept=_REFUSALS)
        if answer.code is not None and not self._is_of(writer, key, answer):
            raise KeyTaken(key)
        if answer.code is not None:
            progress(content.size_bytes)  # taken back when the try was refused; it is there

    def _is_of(self, writer: str, key: str, answer: Answer) -> bool:
        """Tells whether this writer's lost try was the one that made the object."""
        if not answer.uncertain:
            return False
        headers = self._head(key, checksum=False)
        return headers is not None and headers.get(_WRITER) == writer

    def _head(self, key: str, checksum: bool) -> Mapping[str, str] | None:
        asked = {"x-amz-checksum-mode": "ENABLED"} if checksum else {}
        call = Call("HEAD", self._prefix + key, headers=asked)
        answer = self._bucket.send(call, accept=("NoSuchKey",))
        return None if answer.code else answer.headers

    def _opened(self, call: Call) -> Answer:
        answer = self._bucket.send(call, accept=_REFUSALS, stream=True)
        where = f"s3://{self._bucket.name}/{call.key}"
        if answer.code == "NoSuchKey":
            raise StoreError("An object is not there.", where=where)
        if answer.code:
            raise StoreError("An object changed while it was read.", where=where, transient=True)
        return answer

    def _pages(self, prefix: str, delimiter: str) -> Iterator[ElementTree.Element]:
        query = {"list-type": "2", "prefix": self._prefix + prefix, "encoding-type": "url"}
        if delimiter:
            query["delimiter"] = delimiter
        while True:
            page = self._bucket.send(Call("GET", "", query)).xml()
            yield page
            if page.findtext("{*}IsTruncated") != "true":
                return
            query["continuation-token"] = page.findtext("{*}NextContinuationToken") or ""


def _texts(page: ElementTree.Element, path: str) -> Iterator[str]:
    return (unquote(element.text or "") for element in page.iterfind(path))


def _sha256_of(headers: Mapping[str, str]) -> Digest | None:
    """Returns the sha256 that S3 vouches for, or that a writer of parts had proved."""
    whole = headers.get("x-amz-checksum-sha256", "")
    if whole and "-" not in whole and headers.get("x-amz-checksum-type") != "COMPOSITE":
        return Digest("sha256:" + base64.b64decode(whole).hex())
    by_part = re.fullmatch(r"[\w+/=]+-\d+", headers.get("x-amz-checksum-crc32", ""))
    stated = headers.get(_SHA256, "")
    if by_part and re.fullmatch("[0-9a-f]{64}", stated):
        return Digest(f"sha256:{stated}")
    return None
