"""The server's side of all connections: how many there may be, who is late, when it ends.

On SIGTERM it drains: it is not ready any more, requests are answered as before and their
connections closed, for whoever sends them has yet to hear that this server goes away. It stops
listening when nothing has come for ``QUIET_S``, after ``drain_s`` at the latest, and answers what
it has accepted. SIGINT, or a second SIGTERM, leaves out the waiting for new requests; one more also
leaves the accepted ones.
"""

from __future__ import annotations

import asyncio
import resource
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from adroit.serving.http.connection import Connection, Request, Response
from adroit.serving.limits import Limits
from adroit.serving.scoring import Reply

QUIET_S = 2.0
TICK_S = 0.1
_BACKLOG = 2048
_OWN_FILES = 64
_BODIES_BYTES, _BODIES = 256 << 20, 8


class Answering(Protocol):
    """What answers requests."""

    @property
    def busy(self) -> bool:
        """Whether a request is not answered yet."""
        ...

    @property
    def last_request(self) -> float:
        """When the last request was answered, by the monotonic clock."""
        ...

    def drain(self) -> None:
        """Is not ready from now on, and asks clients to close."""
        ...

    def tick(self) -> None:
        """Called every ``TICK_S``."""
        ...

    def respond(self, request: Request) -> Response | Awaitable[Response]:
        """Answers a request."""
        ...

    def broken(self, request: Request, reply: Reply) -> Response:
        """Answers a request that is not all there."""
        ...


class Listener:
    """All connections of one server.

    Args:
        answering: What answers.
        limits: How much is taken.
    """

    def __init__(self, answering: Answering, limits: Limits) -> None:
        self._answering = answering
        self.body_bytes, self.head_s, self.body_s = limits.body_bytes, limits.head_s, limits.body_s
        self.respond, self.broken = answering.respond, answering.broken
        self._drain_s = limits.drain_s
        self._most = min(limits.connections, _files() - _OWN_FILES)
        self._connections: set[Connection] = set()
        self._buffered, self._may_buffer = 0, max(_BODIES_BYTES, _BODIES * limits.body_bytes)
        self._drain_started: float | None = None
        self._ends = self._ends_at_once = False

    def opened(self, connection: Connection) -> bool:
        """Takes in a connection, in the place of the one that has idled longest if need be."""
        full = len(self._connections) >= self._most
        if full:
            idle = [other for other in self._connections if other.idle]
            if not idle:
                self._connections.add(connection)
                return False
            min(idle, key=lambda other: other.deadline).abort()
        self._connections.add(connection)
        return True

    def closed(self, connection: Connection) -> None:
        """Forgets a connection."""
        self._connections.discard(connection)

    def buffer(self, size_bytes: int) -> bool:
        """Sets memory aside for bodies, or frees it; False where there is none."""
        if size_bytes > 0 and self._buffered + size_bytes > self._may_buffer:
            return False
        self._buffered += size_bytes
        return True

    async def run(self, listener: socket.socket, listening: Callable[[], None]) -> None:
        """Serves until a signal ends it; returns when every accepted request is answered.

        Args:
            listener: Bound and not listening yet.
            listening: Called once it listens.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, number)
        server = await loop.create_server(lambda: Connection(self), sock=listener, backlog=_BACKLOG)
        listening()
        while not self._ends and not self._drained():
            await self._tick()
        server.close()
        for connection in list(self._connections):
            connection.close_if_idle()
        while not self._ends_at_once and (self._answering.busy or self._begun()):
            await self._tick()

    async def _tick(self) -> None:
        await asyncio.sleep(TICK_S)
        now = time.monotonic()
        for connection in [one for one in self._connections if one.deadline < now]:
            connection.expire()
        self._answering.tick()

    def _begun(self) -> bool:
        return any(connection.begun for connection in self._connections)

    def _signalled(self, number: int) -> None:
        if number == signal.SIGTERM and self._drain_started is None:
            self._drain_started = time.monotonic()
            self._answering.drain()
        else:
            self._ends_at_once, self._ends = self._ends, True

    def _drained(self) -> bool:
        if self._drain_started is None:
            return False
        now = time.monotonic()
        quiet_since = max(self._drain_started, self._answering.last_request)
        quiet = not self._answering.busy and now - quiet_since >= QUIET_S
        return quiet or now - self._drain_started >= self._drain_s


def _files() -> int:
    """Returns how many files this process may have open, after it has asked for all it can get."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else hard
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(soft, wanted)
