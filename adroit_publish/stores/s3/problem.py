"""What S3 means by a failure: whether to try again, how long to wait, and what to tell the user.

Pure but for the dice of the jitter. Source: Amazon S3 API Reference, "Error responses".
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from xml.etree import ElementTree

from adroit_publish.aws import session as aws
from adroit_publish.errors import PublishError, RefusedError, StoreError

GIVE_UP_S = 35.0  # of waiting for nothing; with the last attempt's own timeout, under a minute
LONGEST_PAUSE_S = 1.5

DAMAGED_CODES = frozenset(  # what arrived is not what was sent; MalformedXML, because ours is not
    {"BadDigest", "MalformedXML", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"}
)
PASSING_CODES = DAMAGED_CODES | {
    "ConditionalRequestConflict",
    "OperationAborted",
    "RequestTimeout",
    "SlowDown",
    "TemporaryRedirect",
    "IncompleteBody",
}
ELSEWHERE_CODES = frozenset(
    {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
)
_BY_STATUS = {403: "AccessDenied", 404: "NoSuchKey", 412: "PreconditionFailed"}
_SILENCE_S = {"ConnectTimeoutError": aws.CONNECT_TIMEOUT_S, "ReadTimeoutError": aws.READ_TIMEOUT_S}


@dataclass(frozen=True)
class Problem:
    """A try that did not succeed.

    Attributes:
        status: HTTP's; 0 where there was no answer.
        code: S3's error code, or the connection error's name.
        message: S3's words.
        headers: Of the answer.
        region: Where the bucket is, where S3 says so.
        silence_s: How long was waited for no answer.
    """

    status: int
    code: str
    message: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    region: str = ""
    silence_s: float = 0.0

    @classmethod
    def of_connection(cls, error: Exception) -> Problem:
        """Returns the problem of a connection that failed; its text could hold a signed URL."""
        name = type(error).__name__
        return cls(0, name, silence_s=_SILENCE_S.get(name, 0.0))

    @classmethod
    def of_status(cls, status: int, headers: Mapping[str, str] | None = None) -> Problem:
        """Returns the problem of an answer that says no more than its status."""
        return cls(status, _BY_STATUS.get(status, f"HTTP {status}"), headers=headers or {})

    @property
    def transient(self) -> bool:
        """Whether trying again may help."""
        again = self.status == 0 or self.status == 429 or self.status >= 500
        return (again and self.code != "SSLError") or self.code in PASSING_CODES

    @property
    def outcome_unknown(self) -> bool:
        """Whether the request may have had its effect all the same."""
        return self.status == 0 or self.status >= 500

    @property
    def retry_after_s(self) -> float | None:
        """The pause that the server asks for, in seconds."""
        text = self.headers.get("Retry-After", "")
        return float(text) if text.isdecimal() else None

    def error(self, where: str, account: str | None) -> PublishError:
        """Returns what a user is told.

        Args:
            where: The object's address.
            account: The account that the bucket was required to belong to.
        """
        got = f"{self.code}: {self.message}" if self.message else self.code
        if found := aws.credentials_error(self.code, where):
            return found
        if self.code == "NoSuchBucket":
            return RefusedError(
                "There is no such bucket.",
                where=where,
                got=got,
                next_step="mend `bundles` of the target in adroit.toml, or have the bucket made",
            )
        if self.code in ELSEWHERE_CODES or self.status == 301:
            return RefusedError(
                "The bucket is in another region.",
                where=where,
                got=got,
                wanted=f"region {self.region}" if self.region else "the bucket's own region",
                next_step=f"export AWS_DEFAULT_REGION={self.region or 'REGION'}",
            )
        if self.status in (401, 403):
            return _denied(where, got, account)
        wait_s = self.retry_after_s
        return StoreError(
            "S3 could not be reached." if self.status == 0 else "S3 failed.",
            where=where,
            got=got,
            transient=self.transient,
            next_step="run the same command again" + (f" in {wait_s:.0f} s" if wait_s else ""),
        )


@dataclass
class Patience:
    """How long one request goes on trying; time in which bytes move is not counted."""

    waited_s: float = 0.0
    tries: int = 0

    def pause_s(self, problem: Problem) -> float | None:
        """Returns how long to wait before the next try, or None where it is time to give up."""
        longest_s = min(LONGEST_PAUSE_S, 0.1 * 2**self.tries)
        asked_s = problem.retry_after_s or 0.0
        pause_s = asked_s + random.uniform(0.0, longest_s)
        self.tries += 1
        self.waited_s += problem.silence_s + pause_s
        return None if self.waited_s > GIVE_UP_S else pause_s


def problem_of(status: int, headers: Mapping[str, str], data: bytes) -> Problem:
    """Returns what an answer that is no success says.

    Args:
        status: HTTP's; 200 where the body is an error all the same.
        headers: The answer's.
        data: The answer's body: S3's XML, nothing, or anything a proxy made up.
    """
    region = headers.get("x-amz-bucket-region", "")
    try:
        root = ElementTree.fromstring(data)
        facts = {child.tag.rpartition("}")[2]: child.text or "" for child in root}
    except ElementTree.ParseError:
        facts = {}
    if "Code" not in facts:
        plain = Problem.of_status(status, headers)
        return Problem(status, plain.code, headers=headers, region=region)
    return Problem(
        status if status >= 300 else 500,
        facts["Code"],
        facts.get("Message", ""),
        headers,
        region or facts.get("Region", ""),
    )


def _denied(where: str, got: str, account: str | None) -> RefusedError:
    whose = f" and belong to account {account}" if account else ""
    return RefusedError(
        "S3 denies access.",
        where=where,
        got=got,
        wanted=f"the bucket must allow s3:GetObject, s3:PutObject, s3:ListBucket{whose}",
        next_step="see whose credentials these are: aws sts get-caller-identity",
    )
