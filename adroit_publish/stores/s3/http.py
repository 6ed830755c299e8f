"""One bucket: what it is asked, tried again, and answered in this program's errors.

Control calls (HEAD, LIST, DELETE, the beginning and end of an upload in parts) are boto3's. The two
data calls, PUT of a body and GET of a range, are made here: boto3's own way sends 16 KiB at a time
and hashes every body once more (docs/decisions/0013-s3-control-calls.md).

* Every request names the account that the bucket must belong to, where it is known.
* What may pass is tried again, with jitter, and after the pause that the server asks for; a peer
  that is silent is given up after ``GIVE_UP_S``, within a minute.
* Expired credentials are looked for once more, from the beginning.
* An answer tells whether an earlier try's outcome was never learnt (``uncertain``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from urllib.parse import quote, urlencode

from adroit_publish.aws.errors import EXPIRED_CODES, error_of, translated
from adroit_publish.bundle.content import CHUNK_BYTES
from adroit_publish.edge.patience import Patience
from adroit_publish.errors import StoreError
from adroit_publish.stores.s3.body import SentBody
from adroit_publish.stores.s3.problem import DAMAGED_CODES, S3Problem
from adroit_publish.stores.s3.session import Connection, connect

EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
UNSIGNED = "UNSIGNED-PAYLOAD"
EXPECT_FROM_BYTES = 1 << 20  # a larger body waits until the server has agreed to take it
GIVE_UP_S = 35.0  # with the last attempt's own timeout, under a minute


@dataclass(frozen=True)
class Call:
    """A data call: a PUT of ``body``, or a GET, whose answer is read by ``S3Answer.chunks``.

    ``payload_sha256`` is signed in the body's place: its hex sha256, or ``UNSIGNED``.
    """

    key: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: SentBody | None = None
    payload_sha256: str = EMPTY_SHA256


@dataclass(frozen=True)
class S3Answer:
    """What the bucket answered.

    Attributes:
        facts: Of a control call: boto3's words, by name; of a data call: its headers.
        code: S3's error code that the caller wanted to hear of, or None for success.
        uncertain: Whether an earlier try may have had its effect.
    """

    facts: Mapping[str, Any] = field(default_factory=dict)
    code: str | None = None
    uncertain: bool = False
    raw: Any = None

    def fact(self, name: str) -> Any:
        """Returns a fact that every whole answer has; raises StoreError (transient) without it."""
        if name not in self.facts:  # a connection was cut within the headers
            raise _lost(f"an answer without {name}")
        return self.facts[name]

    def chunks(self) -> Iterator[bytes]:
        """Yields a streamed body; raises StoreError (transient) where it breaks off."""
        left = int(self.fact("Content-Length"))
        try:
            while left:
                chunk = self.raw.read(min(CHUNK_BYTES, left))
                if not chunk:
                    raise _lost("it ended early")
                left -= len(chunk)
                yield chunk
            self.raw.read(1)  # lets the connection be used again
        except StoreError:
            raise
        except Exception as error:  # urllib3's, the socket's and ssl's have no common ancestor
            raise _lost(type(error).__name__) from error
        finally:
            if left:
                self.raw.close()
            self.raw.release_conn()


Attempt = Callable[[Connection], S3Answer | S3Problem]


class Bucket:
    """A bucket, as whoever the session's credentials are for sees it. Safe to share by threads.

    ``account`` is the one it must belong to, 12 digits; None where nobody said.
    """

    def __init__(
        self, name: str, account: str | None, profile: str | None, endpoint: str | None
    ) -> None:
        self.name = name
        self.account = account
        self._profile, self._endpoint = profile, endpoint
        self._lock = threading.Lock()
        self._connection: Connection | None = None

    def ask(self, operation: str, accept: tuple[str, ...] = (), **request: Any) -> S3Answer:
        """Makes one of S3's control calls, ``head_object`` say, until there is an answer.

        Error codes in ``accept`` are answers. ``request`` does without the bucket and its owner.

        Raises:
            RefusedError: Access is denied, or the bucket is not where or whose it should be.
            StoreError: S3 failed for longer than is waited for.
        """
        where = f"s3://{self.name}/{request.get('Key') or request.get('Prefix') or ''}"
        attempt = partial(self._asked, operation=operation, request=request, where=where)
        return self._until_answered(attempt, where, accept)

    def send(self, call: Call, accept: tuple[str, ...] = ()) -> S3Answer:
        """Makes a data call until there is an answer; raises as ``ask``, or as the content does."""
        attempt = partial(self._sent, call=call)
        return self._until_answered(attempt, f"s3://{self.name}/{call.key}", accept, call.body)

    def region(self) -> str:
        """Returns the region that requests are made to."""
        return self._connected().region

    def _until_answered(
        self, attempt: Attempt, where: str, accept: tuple[str, ...], body: SentBody | None = None
    ) -> S3Answer:
        patience = Patience(GIVE_UP_S)
        uncertain = refreshed = False
        if body:
            body.heard = patience.heard
        while True:
            patience.begin()
            connection = self._connected()
            problem = attempt(connection)
            if isinstance(problem, S3Answer):
                return replace(problem, uncertain=uncertain)
            if body:
                body.take_back()
            if problem.code in accept:
                return S3Answer(code=problem.code, uncertain=uncertain)
            if problem.code in EXPIRED_CODES and not refreshed:
                refreshed = True
                self._forget(connection)
                continue
            if problem.code in DAMAGED_CODES and body:
                body.recheck()
            error = problem.error(where, self.account)
            if not problem.transient:
                raise error
            if problem.status:
                patience.heard()
            uncertain = uncertain or problem.outcome_unknown
            patience.wait_or_raise(error, problem.retry_after_s)

    def _asked(
        self, connection: Connection, operation: str, request: Mapping[str, Any], where: str
    ) -> S3Answer | S3Problem:
        """Makes a control call once; a HEAD that failed without a reason is asked for it."""
        from botocore import exceptions as botocore

        owner = {"ExpectedBucketOwner": self.account} if self.account else {}
        try:
            method = getattr(connection.client, operation)
            return S3Answer(method(Bucket=self.name, **owner, **request))
        except botocore.ClientError as error:
            problem = S3Problem.of_client(error)
            if operation != "head_object" or problem.status not in (301, 400, 403):
                return problem
            asked = {"Key": request["Key"], "Range": "bytes=0-0"}
            explained = self._asked(connection, "get_object", asked, where)
            return explained if isinstance(explained, S3Problem) else S3Problem(500, "HTTP 500")
        except botocore.HTTPClientError as error:
            return S3Problem.of_connection(error)
        except botocore.BotoCoreError as error:
            raise error_of(error, where) from error

    def _sent(self, connection: Connection, call: Call) -> S3Answer | S3Problem:
        from botocore import exceptions as botocore
        from urllib3.exceptions import HTTPError

        request = self._signed(connection, call)
        try:
            response = connection.http.send(request)
            streamed = call.body is None and response.status_code < 300
            data = b"" if streamed else bytes(response.content)
        except (botocore.BotoCoreError, HTTPError, OSError) as error:
            if call.body and call.body.failure:
                raise call.body.failure from None
            wrapped = None
            if isinstance(error, botocore.HTTPClientError):
                wrapped = error.kwargs.get("error")
            if wrapped is not None and not isinstance(wrapped, OSError | HTTPError):
                raise wrapped from None  # a bug of ours, not a connection
            return S3Problem.of_connection(error)
        if response.status_code < 300 and b"<Error>" not in data[:1024]:
            return S3Answer(response.headers, raw=response.raw if streamed else None)
        return S3Problem.of_answer(response.status_code, response.headers, data)

    def _signed(self, connection: Connection, call: Call) -> Any:
        from botocore.awsrequest import AWSRequest

        url = f"{connection.base_url}/{quote(call.key, safe='/-_.~')}"
        if call.query:
            url += "?" + urlencode(call.query, quote_via=quote, safe="-_.~")
        headers = dict(call.headers)
        if self.account:
            headers["x-amz-expected-bucket-owner"] = self.account
        if call.body:
            headers["Content-Length"] = str(call.body.size_bytes)
        request = AWSRequest(
            "PUT" if call.body else "GET", url, headers, call.body, stream_output=not call.body
        )
        request.context["payload_sha256"] = call.payload_sha256
        with translated(f"s3://{self.name}"):
            connection.sign(request)
        prepared = request.prepare()
        prepared.headers["User-Agent"] = "adroit-publish"
        if call.body and call.body.size_bytes >= EXPECT_FROM_BYTES:
            prepared.headers["Expect"] = b"100-continue"  # botocore compares bytes
        return prepared

    def _connected(self) -> Connection:
        with self._lock:
            if self._connection is None:
                with translated(f"s3://{self.name}"):
                    self._connection = connect(self.name, self._profile, self._endpoint)
            return self._connection

    def _forget(self, connection: Connection) -> None:
        with self._lock:
            if self._connection is connection:
                self._connection = None


def _lost(got: str) -> StoreError:
    return StoreError(
        "The connection to S3 was lost.",
        where="the answer",
        got=got,
        transient=True,
        next_step="run the same command again",
    )
