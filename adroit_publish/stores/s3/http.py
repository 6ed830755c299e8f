"""One bucket over HTTP: requests signed, retried and answered in this program's errors.

Where, in whose name and over which connections is ``s3_session``'s. The requests are made here,
because boto3's own way costs a millisecond each, sends 16 KiB at a time and hashes every body once
more (docs/decisions/0008-s3-checksums.md).

* Every request names the account that the bucket must belong to, where it is known.
* What may pass is tried again, with jitter, and after the pause that the server asks for; a peer
  that is silent is given up after ``GIVE_UP_S``, within a minute.
* Expired credentials are looked for once more, from the beginning.
* An answer tells whether an earlier try's outcome was never learnt (``uncertain``).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote, urlencode
from xml.etree import ElementTree

from adroit_publish.aws import session as aws
from adroit_publish.bundle.content import CHUNK_BYTES
from adroit_publish.errors import StoreError
from adroit_publish.stores.s3.body import Body
from adroit_publish.stores.s3.problem import DAMAGED_CODES, Patience, Problem, problem_of
from adroit_publish.stores.s3.session import Connection, connect

EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
UNSIGNED = "UNSIGNED-PAYLOAD"
EXPECT_FROM_BYTES = 1 << 20  # a larger body waits until the server has agreed to take it


@dataclass(frozen=True)
class Call:
    """A request to a bucket.

    Attributes:
        method: HTTP's.
        key: The object's whole key; empty for the bucket itself.
        query: Parameters, not yet encoded.
        headers: Beside those that every request has.
        body: What to send, if anything.
        payload_sha256: Signed in the body's place: its hex sha256, or ``UNSIGNED``.
    """

    method: str
    key: str = ""
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body | None = None
    payload_sha256: str = EMPTY_SHA256


@dataclass(frozen=True)
class Answer:
    """What the bucket answered.

    Attributes:
        headers: By name in any case.
        data: The whole body; empty where it is streamed.
        code: S3's error code that the caller wanted to hear of, or None for success.
        uncertain: Whether an earlier try may have had its effect.
        raw: The stream, where one was asked for.
    """

    headers: Mapping[str, str]
    data: bytes
    code: str | None = None
    uncertain: bool = False
    raw: Any = None

    def xml(self) -> ElementTree.Element:
        """Returns the body, parsed; raises StoreError where it is not XML."""
        try:
            return ElementTree.fromstring(self.data)
        except ElementTree.ParseError as error:
            raise StoreError(
                "What answered is not S3.",
                got=self.data[:80],
                next_step="look at AWS_ENDPOINT_URL, and at any proxy on the way",
            ) from error

    def chunks(self) -> Iterator[bytes]:
        """Yields a streamed body; raises StoreError (transient) where it breaks off."""
        left = int(self.headers["Content-Length"])
        try:
            while left:
                chunk = self.raw.read(min(CHUNK_BYTES, left))
                if not chunk:
                    raise _lost("the body", "it ended early")
                left -= len(chunk)
                yield chunk
            self.raw.read(1)  # lets the connection be used again
        except StoreError:
            raise
        except Exception as error:  # urllib3's, the socket's and ssl's have no common ancestor
            raise _lost("the body", type(error).__name__) from error
        finally:
            if left:
                self.raw.close()
            self.raw.release_conn()


class Bucket:
    """A bucket, as whoever the session's credentials are for sees it. Safe to share by threads.

    Args:
        name: The bucket.
        account: The 12 digits of the account it must belong to; None where nobody said.
        profile: An AWS profile; None leaves the choice to boto3.
        region: Its region; None leaves the choice to boto3.
        endpoint: Where S3 is reached; None leaves the choice to boto3.
    """

    def __init__(
        self,
        name: str,
        account: str | None,
        profile: str | None,
        region: str | None,
        endpoint: str | None,
    ) -> None:
        self.name = name
        self.account = account
        self._profile, self._region, self._endpoint = profile, region, endpoint
        self._lock = threading.Lock()
        self._connection: Connection | None = None

    def send(self, call: Call, accept: tuple[str, ...] = (), stream: bool = False) -> Answer:
        """Sends a request until there is an answer.

        Args:
            call: The request.
            accept: S3's error codes that are answers rather than failures.
            stream: Whether the body is read later, by ``Answer.chunks``.

        Raises:
            RefusedError: Access is denied, or the bucket is not where or whose it should be.
            StoreError: S3 failed for longer than is waited for.
            PublishError: Whatever the body's content failed with.
        """
        where = f"s3://{self.name}/{call.key}"
        patience = Patience()
        uncertain = refreshed = False
        while True:
            connection = self._connected()
            problem = self._attempt(connection, call, stream)
            if isinstance(problem, Answer):
                return replace(problem, uncertain=uncertain)
            if call.body:
                call.body.take_back()
            if problem.code in accept:
                return Answer(problem.headers, b"", problem.code, uncertain)
            if problem.code in aws.EXPIRED_CODES and not refreshed:
                refreshed = True
                self._forget(connection)
                continue
            if problem.code in DAMAGED_CODES and call.body:
                call.body.recheck()
            pause_s = patience.pause_s(problem) if problem.transient else None
            if pause_s is None:
                raise problem.error(where, self.account)
            uncertain = uncertain or problem.outcome_unknown
            time.sleep(pause_s)

    def _attempt(self, connection: Connection, call: Call, stream: bool) -> Answer | Problem:
        """Sends the request once; a HEAD that failed without a reason is asked for it by a GET."""
        from botocore import exceptions as botocore
        from urllib3.exceptions import HTTPError

        request = self._signed(connection, call, stream)
        try:
            response = connection.http.send(request)
            data = b"" if stream and response.status_code < 300 else bytes(response.content)
        except (botocore.BotoCoreError, HTTPError, OSError) as error:
            if call.body and call.body.failure:
                raise call.body.failure from None
            wrapped = None
            if isinstance(error, botocore.HTTPClientError):
                wrapped = error.kwargs.get("error")
            if wrapped is not None and not isinstance(wrapped, OSError | HTTPError):
                raise wrapped from None  # a bug of ours, not a connection
            return Problem.of_connection(error)
        if not stream and call.method != "HEAD" and _is_cut(response.headers, data):
            return Problem(0, "IncompleteRead")
        if response.status_code < 300 and b"<Error>" not in data[:1024]:
            return Answer(response.headers, data, raw=response.raw if stream else None)
        if call.method == "HEAD" and response.status_code in (301, 400, 403):
            asked = replace(call, method="GET", headers={**call.headers, "Range": "bytes=0-0"})
            explained = self._attempt(connection, asked, stream=False)
            return explained if isinstance(explained, Problem) else Problem.of_status(500)
        return problem_of(response.status_code, response.headers, data)

    def _signed(self, connection: Connection, call: Call, stream: bool) -> Any:
        from botocore.awsrequest import AWSRequest

        url = f"{connection.base_url}/{quote(call.key, safe='/-_.~')}"
        if call.query:
            url += "?" + urlencode(call.query, quote_via=quote, safe="-_.~")
        size_bytes = call.body.size_bytes if call.body else 0
        headers = dict(call.headers)
        if self.account:
            headers["x-amz-expected-bucket-owner"] = self.account
        if call.method in ("PUT", "POST"):
            headers["Content-Length"] = str(size_bytes)
        request = AWSRequest(call.method, url, headers, call.body, stream_output=stream)
        request.context["payload_sha256"] = call.payload_sha256
        with aws.translated(f"s3://{self.name}"):
            connection.sign(request)
        prepared = request.prepare()
        prepared.headers["User-Agent"] = "adroit-publish"
        if size_bytes >= EXPECT_FROM_BYTES:
            prepared.headers["Expect"] = b"100-continue"  # botocore compares bytes
        return prepared

    def _connected(self) -> Connection:
        with self._lock:
            if self._connection is None:
                with aws.translated(f"s3://{self.name}"):
                    self._connection = connect(
                        self.name, self._profile, self._region, self._endpoint
                    )
            return self._connection

    def _forget(self, connection: Connection) -> None:
        with self._lock:
            if self._connection is connection:
                self._connection = None


def _is_cut(headers: Mapping[str, str], data: bytes) -> bool:
    return len(data) != int(headers.get("Content-Length", len(data)))


def _lost(where: str, got: str) -> StoreError:
    return StoreError(
        "The connection to S3 was lost.",
        where=where,
        got=got,
        transient=True,
        next_step="run the same command again",
    )
