"""What S3 means by a failure: whether to try again, how long to wait, and what to tell the user.

What every service of AWS may answer is in ``aws.errors``. Source: Amazon S3 API Reference, "Error
responses".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from adroit_publish.aws.errors import credentials_error
from adroit_publish.edge.patience import retry_after_s
from adroit_publish.errors import PublishError, RefusedError, StoreError

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


@dataclass(frozen=True)
class S3Problem:
    """A try that did not succeed; a status of 0 is that of no answer.

    ``code`` is S3's error code, or the connection error's name.
    """

    status: int
    code: str
    message: str = ""
    region: str = ""
    retry_after_s: float | None = None

    @classmethod
    def of_connection(cls, error: Exception) -> S3Problem:
        """Returns the problem of a connection that failed; its text could hold a signed URL."""
        return cls(0, type(error).__name__)

    @classmethod
    def of_client(cls, error: Any) -> S3Problem:
        """Returns the problem that boto3's client raised as a ``ClientError``."""
        answer = error.response.get("ResponseMetadata", {})
        status, headers = answer.get("HTTPStatusCode", 0), answer.get("HTTPHeaders", {})
        return cls._of_answer(status, headers, error.response.get("Error", {}))

    @classmethod
    def of_answer(cls, status: int, headers: Mapping[str, str], data: bytes) -> S3Problem:
        """Returns what an answer that is no success says; one of 200 may hold an error as well.

        The body is S3's XML, nothing, or anything a proxy made up.
        """
        try:
            root = ElementTree.fromstring(data)
            facts = {child.tag.rpartition("}")[2]: child.text or "" for child in root}
        except ElementTree.ParseError:
            facts = {}
        return cls._of_answer(status, headers, facts)

    @classmethod
    def _of_answer(
        cls, status: int, headers: Mapping[str, str], facts: Mapping[str, str]
    ) -> S3Problem:
        code = facts.get("Code", "")
        if not code or code.isdecimal():  # nothing but the status was said
            code = _BY_STATUS.get(status, f"HTTP {status}")
        elif status < 300:
            status = 500
        return cls(
            status,
            code,
            facts.get("Message", ""),
            headers.get("x-amz-bucket-region") or facts.get("Region", ""),
            retry_after_s(headers.get("retry-after")),
        )

    @property
    def transient(self) -> bool:
        """Whether trying again may help."""
        again = self.status == 0 or self.status == 429 or self.status >= 500
        lasting = self.code in ("SSLError", "NotImplemented", "HTTP 501")
        return (again and not lasting) or self.code in PASSING_CODES

    @property
    def outcome_unknown(self) -> bool:
        """Whether the request may have had its effect all the same."""
        return self.status == 0 or self.status >= 500

    def error(self, where: str, account: str | None) -> PublishError:
        """Returns what a user is told; ``account`` is what the bucket had to belong to."""
        got = f"{self.code}: {self.message}" if self.message else self.code
        if found := credentials_error(self.code, where):
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
        if self.code == "InvalidObjectState":
            return RefusedError(
                "The object is archived; S3 gives no byte of it.",
                where=where,
                got=got,
                wanted="an object of a storage class that is read at once",
                next_step="have it restored (aws s3api restore-object), and the bucket's lifecycle "
                "rules leave blobs alone",
            )
        if self.status in (401, 403):
            return _denied(where, got, account)
        what, wait_s = "S3 failed.", self.retry_after_s
        next_step = "run the same command again" + (f" in {wait_s:.0f} s" if wait_s else "")
        if self.status == 0:
            what = "S3 could not be reached."
        elif self.code.startswith("HTTP"):  # S3 gives its failures names
            what = "S3 failed, or what answered is not S3."
            next_step += "; look at AWS_ENDPOINT_URL, and at any proxy on the way"
        return StoreError(what, where=where, got=got, transient=self.transient, next_step=next_step)


def _denied(where: str, got: str, account: str | None) -> RefusedError:
    whose = f" and belong to account {account}" if account else ""
    return RefusedError(
        "S3 denies access.",
        where=where,
        got=got,
        wanted=f"the bucket must allow s3:GetObject, s3:PutObject, s3:ListBucket{whose}",
        next_step="see whose credentials these are: aws sts get-caller-identity",
    )
