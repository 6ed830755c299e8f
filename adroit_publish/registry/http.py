"""HTTP as far as a registry needs it: kept connections, streamed bodies, bounded patience.

It is urllib3, which ``requests`` and botocore stand on as well, without what they add: an iterable
body goes out piece by piece as it is read, with its known length, at the cost of the bare socket.

* One connection serves one request at a time and is kept for the next.
* A server that answers before it has the whole body is heard.
* ``http:`` is for loopback only.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from adroit_publish.edge.patience import SILENCE_TIMEOUT_S, retry_after_s
from adroit_publish.edge.urls import is_loopback
from adroit_publish.errors import ConfigError

if TYPE_CHECKING:
    from urllib3 import HTTPConnectionPool, HTTPHeaderDict, Timeout
    from urllib3.response import BaseHTTPResponse as HTTPResponse

ANSWER_LIMIT_BYTES = 8 << 20
TRY_AGAIN = frozenset({429, 500, 502, 503, 504})
_KEPT_CONNECTIONS = 32

Body = bytes | Callable[[], Iterable[memoryview | bytes]]


@dataclass(frozen=True)
class Endpoint:
    """Where a server is reached; ``host`` has no brackets."""

    https: bool
    host: str
    port: int

    @classmethod
    def parse(cls, url: str) -> Endpoint:
        """Returns the endpoint of ``url``; its path does not matter.

        Raises ConfigError where it is no http or https URL, carries a user, or is ``http:``
        elsewhere than on loopback.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ConfigError("An address is malformed.", got=repr(url[:200])) from None
        host = (parts.hostname or "").rstrip(".")
        if parts.scheme not in ("http", "https") or not host or parts.username is not None:
            raise ConfigError(
                "An address cannot be used.",
                where=f"{parts.scheme}://{host}",
                wanted="https://host[:port], without a user or a password",
            )
        https = parts.scheme == "https"
        endpoint = cls(https, host, port or (443 if https else 80))
        if not https and not endpoint.is_loopback:
            raise ConfigError(
                "An address is not encrypted.",
                where=str(endpoint),
                wanted="https:// (http:// is for loopback only)",
            )
        return endpoint

    @property
    def is_loopback(self) -> bool:
        """Whether the server is on this machine."""
        return is_loopback(self.host)

    @property
    def authority(self) -> str:
        """``host[:port]`` as the Host header has it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.https else 80) else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{'https' if self.https else 'http'}://{self.authority}"


@dataclass(frozen=True)
class Answer:
    """A whole response; its body has at most one byte more than ``ANSWER_LIMIT_BYTES``."""

    status: int
    headers: Message | HTTPHeaderDict
    body: bytes

    @property
    def retry_after_s(self) -> float | None:
        """Seconds that the server asks to wait; None where it does not ask."""
        return retry_after_s(self.headers.get("Retry-After"))


class Http:
    """Connections to servers, kept and shared between threads; each serves one at a time."""

    def __init__(self) -> None:
        self._pools: dict[Endpoint, HTTPConnectionPool] = {}
        self._lock = threading.Lock()

    @contextmanager
    def exchange(
        self,
        endpoint: Endpoint,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: Body = b"",
        *,
        timeout_s: float = SILENCE_TIMEOUT_S,
        answer_timeout_s: float | None = None,
    ) -> Iterator[HTTPResponse]:
        """Sends one request and gives its response, to be read inside the context.

        Args:
            headers: A streamed body needs its Content-Length here.
            body: Bytes, or what gives the pieces of a streamed body.
            timeout_s: How long the peer may neither take nor give anything.
            answer_timeout_s: How long it may take to answer once it has the whole body.

        Raises:
            OSError: The connection failed, or the response is none.
        """
        from urllib3 import Timeout
        from urllib3.exceptions import HTTPError

        timeout = Timeout(connect=timeout_s, read=answer_timeout_s or timeout_s)
        response = None
        try:
            response = self._response(endpoint, method, target, headers, body, timeout)
            yield response
        except HTTPError as error:
            raise _cause(error) from error
        finally:
            if response is not None:
                response.close()  # of no effect on a connection that was read to its end

    def _response(
        self,
        endpoint: Endpoint,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: Body,
        timeout: Timeout,
    ) -> HTTPResponse:
        from urllib3.exceptions import ProtocolError

        pool = self._pool(endpoint)
        while True:
            made = pool.num_connections
            try:
                return pool.urlopen(
                    method,
                    target,
                    body if isinstance(body, bytes) else body(),  # type: ignore[arg-type]
                    headers,
                    retries=False,
                    redirect=False,
                    assert_same_host=False,
                    timeout=timeout,
                    preload_content=False,
                    decode_content=False,
                )
            except ProtocolError:
                # Closed by the server while it was kept: no attempt at all. A streamed body has
                # been read in part, and is the caller's to send again.
                if pool.num_connections > made or not isinstance(body, bytes):
                    raise

    def _pool(self, endpoint: Endpoint) -> HTTPConnectionPool:
        from urllib3 import HTTPConnectionPool, HTTPSConnectionPool

        with self._lock:
            if endpoint not in self._pools:
                options: dict[str, Any] = {"maxsize": _KEPT_CONNECTIONS}
                if endpoint.https:
                    options["ssl_context"] = ssl.create_default_context()
                kind = HTTPSConnectionPool if endpoint.https else HTTPConnectionPool
                self._pools[endpoint] = kind(endpoint.host, endpoint.port, **options)
            return self._pools[endpoint]


def _cause(error: BaseException) -> OSError:
    """Returns the OSError behind one of urllib3's; one of our own where there is none."""
    behind: BaseException | None = error
    while behind is not None and not isinstance(behind, OSError):
        inner = [each for each in (getattr(behind, "reason", None), *behind.args) if each]
        behind = next((each for each in inner if isinstance(each, BaseException)), behind.__cause__)
    return behind or ConnectionError(type(error).__name__)


def read_answer(response: HTTPResponse) -> Answer:
    """Returns the whole response; one that is too long is cut behind ``ANSWER_LIMIT_BYTES``."""
    body = response.read(ANSWER_LIMIT_BYTES + 1)
    if len(body) <= ANSWER_LIMIT_BYTES:
        response.read(1)  # raises where it ended before its Content-Length
    return Answer(response.status, response.headers, body)
