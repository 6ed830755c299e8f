"""Datadog's agent: where it listens, and metrics as it reads them.

The protocol is lines of text in datagrams, so no client is needed and none is used: the ``datadog``
package would add a second way with its own threads and environment variables. Several values of a
distribution share a line (protocol 1.1, agent 7.25 and later).

Source: Datadog documentation, "DogStatsD Datagram Format and Shell Usage", "Unified Service
Tagging", "DogStatsD over Unix Domain Socket".
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

DATAGRAM_BYTES = 1400  # fits an Ethernet frame, as Datadog's own clients keep it
_TAG_CHARS = 200  # Datadog cuts there
_NAMED_BY = ("DD_DOGSTATSD_URL", "DD_AGENT_HOST", "DD_DOGSTATSD_PORT")
_NOT_IN_TAGS = re.compile(r"[^\w\-./:]")


@dataclass(frozen=True)
class Agent:
    """Where datagrams go.

    Attributes:
        host: Name or address; unused where there is a path.
        port: UDP port.
        path: Of a Unix datagram socket, or None.
    """

    host: str = "localhost"
    port: int = 8125
    path: str | None = None

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Agent:
        """Returns the agent that Datadog's usual variables name, or the one on this host.

        Args:
            environ: ``DD_DOGSTATSD_URL`` (``udp://host:port`` or ``unix:///path``), or else
                ``DD_AGENT_HOST`` and ``DD_DOGSTATSD_PORT``.

        Raises:
            ValueError: The URL has another scheme, or a port is not a number.
        """
        url = environ.get("DD_DOGSTATSD_URL")
        if not url:
            host = environ.get("DD_AGENT_HOST") or cls.host
            return cls(host, int(environ.get("DD_DOGSTATSD_PORT") or cls.port))
        parts = urlsplit(url)
        if parts.scheme == "unix":
            return cls(path=parts.path)
        if parts.scheme == "udp" and parts.hostname:
            return cls(parts.hostname, parts.port or cls.port)
        raise ValueError(f"DD_DOGSTATSD_URL is {url!r}; it is udp://host:port or unix:///path")

    @classmethod
    def named(cls, environ: Mapping[str, str]) -> Agent | None:
        """Returns the agent that one of Datadog's variables names; None where none of them does.

        Raises:
            ValueError: As ``of``.
        """
        return cls.of(environ) if any(environ.get(name) for name in _NAMED_BY) else None


class Sender:
    """Sends datagrams and forgets them; made for one thread that may wait for a name's lookup.

    Args:
        agent: Where to.
    """

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._socket: socket.socket | None = None

    def send(self, lines: Iterable[str]) -> bool:
        """Sends ``lines``, packed into datagrams.

        Returns:
            Whether all of them left this host; nobody knows whether they arrived.
        """
        try:
            for datagram in packed(lines):
                self._connected().send(datagram)
        except OSError:  # no such name, nobody there, buffer full: a sample is lost, and no more
            self.close()
            return False
        return True

    def close(self) -> None:
        """Forgets the socket; the next ``send`` looks the agent up again."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connected(self) -> socket.socket:
        if self._socket is None:
            self._socket = _connect(self._agent)
            self._socket.setblocking(False)
        return self._socket


def distribution(name: str, values: Sequence[float], tags: str) -> Iterator[str]:
    """Yields the lines of a distribution's values, each line short enough for a datagram.

    Args:
        name: The metric's name.
        values: Finite numbers.
        tags: As ``tag_list`` makes them.
    """
    room = DATAGRAM_BYTES - len(f"{name}|d|#{tags}".encode())
    line, used = [name], 0
    for value in values:
        text = f"{value:.9g}"
        if used + len(text) + 1 > room and used:
            yield f"{':'.join(line)}|d|#{tags}"
            line, used = [name], 0
        line.append(text)
        used += len(text) + 1
    if used:
        yield f"{':'.join(line)}|d|#{tags}"


def count(name: str, value: int, tags: str) -> str:
    """Returns the line that adds ``value`` to a count."""
    return f"{name}:{value}|c|#{tags}"


def tag_list(tags: Mapping[str, str]) -> str:
    """Returns tags as the protocol has them; what it cannot hold becomes an underscore."""
    return ",".join(
        _NOT_IN_TAGS.sub("_", f"{key}:{value}")[:_TAG_CHARS] for key, value in tags.items()
    )


def packed(lines: Iterable[str]) -> Iterator[bytes]:
    """Yields datagrams of whole lines, each of at most ``DATAGRAM_BYTES`` where its lines are."""
    waiting = b""
    for line in lines:
        data = line.encode()
        if waiting and len(waiting) + 1 + len(data) > DATAGRAM_BYTES:
            yield waiting
            waiting = data
        else:
            waiting = waiting + b"\n" + data if waiting else data
    if waiting:
        yield waiting


def _connect(agent: Agent) -> socket.socket:
    if agent.path is not None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        address: tuple[str, int] | str = agent.path
    else:
        addresses = socket.getaddrinfo(agent.host, agent.port, type=socket.SOCK_DGRAM)
        family, kind, protocol, _, address = addresses[0]  # type: ignore[assignment]
        connection = socket.socket(family, kind, protocol)
    try:
        connection.connect(address)
    except OSError:
        connection.close()
        raise
    return connection
