"""Answers of servers that are not trusted: bounded in size and time, and made printable.

A ``Visit`` is one connection: what balances load by connection sends all its requests to the same
server. No redirect is followed, and no credential is sent but what an ``Access`` of exactly this
server says, not from ``~/.netrc`` either. Addresses are a user's own and often internal, so plain
``http`` is allowed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from adroit_publish.edge.text import printable
from adroit_publish.errors import ConfigError, StoreError

if TYPE_CHECKING:
    import requests

_CHUNK_BYTES = 1 << 16
SHOWN_CHARS = 200


@dataclass(frozen=True)
class Reply:
    """What a server answered; ``at_s``: its own time, POSIX seconds, where it says it."""

    where: str
    status: int
    body: bytes
    at_s: float | None = None

    def json(self) -> dict[str, Any]:
        """Returns the JSON object of a 200.

        Raises:
            StoreError: It is not one; ``transient`` where a server is busy, starts or ends.
        """
        try:
            value = json.loads(self.body) if self.status == 200 else None
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            return value
        raise StoreError(
            "A server does not answer as expected.",
            where=self.where,
            got=f"{self.status} {printable(self.body, SHOWN_CHARS)}".strip(),
            wanted="200 and a JSON object",
            transient=self.status >= 500 or self.status == 429,
        )


@dataclass(frozen=True)
class Access:
    """How one server lets somebody in.

    Attributes:
        headers: What each request carries, such as ``Authorization``.
        ca_file: The authorities that its certificate is checked by; None: the usual ones.
        certificate: The files of the client's own certificate and its key, or None.
    """

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    ca_file: str | None = None
    certificate: tuple[str, str] | None = None


class Visit:
    """One connection to a server, as a context; raises as ``check_address``.

    Args:
        timeout_s: How long the server may be silent, and how long an answer's body may take.
        access: How it lets somebody in.
    """

    def __init__(self, url: str, timeout_s: float, access: Access | None = None) -> None:
        import requests

        check_address(url)
        self.url, self._timeout_s = url.rstrip("/"), timeout_s
        self._session = requests.Session()
        self._session.auth = lambda request: request  # else requests looks into ~/.netrc
        # A compressed body could be larger than its limit once it is unpacked.
        self._session.headers["Accept-Encoding"] = "identity"
        self._session.headers.update(access.headers if access else {})
        # By request: an environment's REQUESTS_CA_BUNDLE goes before a session's own.
        self._verify = access.ca_file if access else None
        self._certificate = access.certificate if access else None

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def ask(
        self,
        path: str,
        body: bytes | Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        limit_bytes: int = 1 << 20,
    ) -> Reply:
        """Returns the answer to a GET, or to a POST of JSON as bytes, or of a form's fields.

        Raises:
            StoreError: Nothing answers, more than ``limit_bytes``, or too slowly.
        """
        import requests
        import urllib3

        where = self.url + path
        try:
            with self._session.request(
                "GET" if body is None else "POST",
                where,
                data=body,
                headers={
                    **({"Content-Type": "application/json"} if isinstance(body, bytes) else {}),
                    **(headers or {}),
                },
                timeout=self._timeout_s,
                verify=self._verify,
                cert=self._certificate,
                allow_redirects=False,
                stream=True,
            ) as response:
                received = self._body(response, where, limit_bytes)
                date_s = _date_s(response.headers.get("Date"))
                return Reply(where, response.status_code, received, date_s)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise StoreError(
                "A server does not answer.",
                where=where,
                got=type(error).__name__,  # its text can repeat headers and proxies
                transient=True,
                next_step="see that it runs and can be reached from here, and run the command "
                "again",
            ) from error

    def _body(self, response: requests.Response, where: str, limit_bytes: int) -> bytes:
        deadline = time.monotonic() + self._timeout_s
        body = bytearray()
        while piece := response.raw.read1(_CHUNK_BYTES):
            body += piece
            if len(body) > limit_bytes:
                raise StoreError(
                    "A server's answer is too large.", where=where, wanted=f"{limit_bytes} bytes"
                )
            if time.monotonic() > deadline:
                raise StoreError(
                    "A server's answer takes too long.",
                    where=where,
                    got=f"{len(body)} bytes in {self._timeout_s:g} s",
                    transient=True,
                )
        return bytes(body)


def _date_s(text: str | None) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp() if text else None
    except ValueError:
        return None


def check_address(url: str) -> None:
    """Refuses, as a ConfigError, what is not a plain ``http`` or ``https`` address."""
    try:
        parts = urlsplit(url)
        plain = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        plain = plain and url.isprintable() and not (parts.query or parts.fragment)
        host = parts.netloc.rpartition("@")[2]
        credentials = "@" in parts.netloc
    except ValueError:  # a port or an address that is none
        plain, host, credentials = False, "", False
    if credentials:
        raise ConfigError(
            "An address holds credentials, which are never sent to a server here.",
            where=f"{parts.scheme}://{host}",
            next_step="take them out of the address",
        )
    if not plain:
        raise ConfigError(
            "Not the address of a server.",
            got=printable(url.partition("?")[0], SHOWN_CHARS),
            wanted="http://HOST:PORT or https://HOST",
        )
