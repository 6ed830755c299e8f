"""HTTP as far as a registry needs it: kept connections, streamed bodies, bounded patience.

Built on ``http.client`` because the data path of the usual libraries costs twice as much.

* One connection serves one request at a time and is kept for the next; a kept one that the
  server closed meanwhile is replaced without a word.
* A body is sent as it is read, with its known length; a server that answers early is heard.
* ``http:`` is for loopback only.
"""

from __future__ import annotations

import http.client
import ipaddress
import select
import ssl
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.message import Message
from urllib.parse import urlsplit

from adroit_publish.edge.patience import SILENCE_TIMEOUT_S, retry_after_s
from adroit_publish.errors import ConfigError

CONNECT_TIMEOUT_S = 10.0
ANSWER_LIMIT_BYTES = 8 << 20
TRY_AGAIN = frozenset({429, 500, 502, 503, 504})
NETWORK_ERRORS = (OSError, http.client.HTTPException)

Body = bytes | Callable[[], Iterable[memoryview | bytes]]


@dataclass(frozen=True)
class Endpoint:
    """Where a server is reached.

    Attributes:
        https: Whether by TLS.
        host: Name or address, without brackets.
        port: TCP port.
    """

    https: bool
    host: str
    port: int

    @classmethod
    def parse(cls, url: str) -> Endpoint:
        """Returns the endpoint of ``url``; its path does not matter.

        Raises:
            ConfigError: It is no http or https URL, carries a user, or is ``http:`` elsewhere
                than on loopback.
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
        if self.host == "localhost":
            return True
        with suppress(ValueError):
            return ipaddress.ip_address(self.host).is_loopback
        return False

    @property
    def authority(self) -> str:
        """``host[:port]`` as the Host header has it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.https else 80) else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{'https' if self.https else 'http'}://{self.authority}"


@dataclass(frozen=True)
class Answer:
    """A whole response.

    Attributes:
        status: HTTP status.
        headers: Its headers.
        body: Its body, at most ``ANSWER_LIMIT_BYTES`` and one more where it was longer.
    """

    status: int
    headers: Message
    body: bytes

    @property
    def retry_after_s(self) -> float | None:
        """Seconds that the server asks to wait; None where it does not ask."""
        return retry_after_s(self.headers.get("Retry-After"))


class Http:
    """Connections to servers, kept and shared between threads; each serves one at a time.

    They are closed when this is no longer used.
    """

    def __init__(self) -> None:
        self._idle: dict[Endpoint, list[http.client.HTTPConnection]] = {}
        weakref.finalize(self, _close_all, self._idle)
        self._lock = threading.Lock()
        self._tls: ssl.SSLContext | None = None

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
    ) -> Iterator[http.client.HTTPResponse]:
        """Sends one request and gives its response, to be read inside the context.

        Args:
            endpoint: To whom.
            method: HTTP method.
            target: Path and query, encoded.
            headers: Beside Host; a streamed body needs its Content-Length here.
            body: Bytes, or what gives the pieces of a streamed body.
            timeout_s: How long the peer may neither take nor give anything.
            answer_timeout_s: How long it may take to answer once it has the whole body.

        Raises:
            OSError: The connection failed.
            http.client.HTTPException: The response is none.
        """
        connection, response = self._ask(
            endpoint, method, target, headers, body, timeout_s, answer_timeout_s or timeout_s
        )
        kept = False
        try:
            if connection.sock is not None:
                connection.sock.settimeout(timeout_s)
            yield response
            kept = response.isclosed() and connection.sock is not None
        finally:
            if kept:
                with self._lock:
                    self._idle.setdefault(endpoint, []).append(connection)
            else:
                response.close()
                connection.close()

    def _ask(
        self,
        endpoint: Endpoint,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: Body,
        timeout_s: float,
        answer_timeout_s: float,
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        while True:
            kept = self._kept(endpoint)
            connection = kept or self._connect(endpoint, timeout_s)
            assert connection.sock is not None
            connection.sock.settimeout(timeout_s)
            try:
                _send(connection, method, target, headers, body)
                connection.sock.settimeout(answer_timeout_s)
                return connection, connection.getresponse()
            except (ConnectionError, http.client.BadStatusLine):
                connection.close()
                # Closed by the server while it was kept: no attempt at all. A streamed body has
                # been read in part, and is the caller's to send again.
                if kept is None or not isinstance(body, bytes):
                    raise
            except BaseException:
                connection.close()
                raise

    def _kept(self, endpoint: Endpoint) -> http.client.HTTPConnection | None:
        while True:
            with self._lock:
                idle = self._idle.get(endpoint)
                connection = idle.pop() if idle else None
            # Closed by the server, where there is something to read that nobody asked for.
            if connection is None or not _has_something_to_read(connection, wait_ms=0):
                return connection
            connection.close()

    def _connect(self, endpoint: Endpoint, timeout_s: float) -> http.client.HTTPConnection:
        timeout_s = min(timeout_s, CONNECT_TIMEOUT_S)
        connection: http.client.HTTPConnection
        if endpoint.https:
            with self._lock:
                self._tls = self._tls or ssl.create_default_context()
            connection = http.client.HTTPSConnection(
                endpoint.host, endpoint.port, timeout=timeout_s, context=self._tls
            )
        else:
            connection = http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=timeout_s)
        connection.connect()  # sets TCP_NODELAY; the kernel sizes the buffers best itself
        return connection


def _send(
    connection: http.client.HTTPConnection,
    method: str,
    target: str,
    headers: Mapping[str, str],
    body: Body,
) -> None:
    connection.putrequest(method, target, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    if isinstance(body, bytes):
        if body or method in ("POST", "PUT", "PATCH"):
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body or None)
        return
    connection.endheaders()
    try:
        for piece in body():
            connection.send(piece)
    except (BrokenPipeError, ConnectionResetError):
        # A server that refuses a body may answer and close before it has read all of it.
        if not _has_something_to_read(connection, wait_ms=1000):
            raise


def _close_all(idle: dict[Endpoint, list[http.client.HTTPConnection]]) -> None:
    for connection in (each for several in idle.values() for each in several):
        connection.close()


def _has_something_to_read(connection: http.client.HTTPConnection, wait_ms: int) -> bool:
    if connection.sock is None:
        return False
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(wait_ms))


def read_answer(response: http.client.HTTPResponse) -> Answer:
    """Returns the whole response; one that is too long is cut behind ``ANSWER_LIMIT_BYTES``.

    Raises:
        http.client.IncompleteRead: It ended before its Content-Length.
    """
    body = response.read(ANSWER_LIMIT_BYTES + 1)
    if len(body) <= ANSWER_LIMIT_BYTES:
        if response.length and response.length > 0:
            raise http.client.IncompleteRead(body, response.length)
        response.read()  # lets http.client see the end, so that the connection can be kept
    return Answer(response.status, response.headers, body)
