"""One client's connection: bytes to requests, replies to bytes, and a deadline for each part.

A request's head has to be there within ``head_s`` of its first byte, its body within ``body_s`` and
with something new every ``_STALL_S``; an answer has to be read within ``_READ_S``. A connection
with no request may stay for ``KEEP_ALIVE_S``. Whoever is late is answered with 408 where that can
be, and closed. After an answer that comes before its request has ended, what still arrives is
thrown away for ``_LINGER_S``, for a connection that is closed on unread bytes loses the answer.

Source: RFC 9112 (HTTP/1.1), sections 6, 9.3 and 9.6; RFC 9110, sections 10.1.1 and 15.5.9.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Protocol, cast

import h11

from adroit.serving.scoring import Reply, failure

KEEP_ALIVE_S = 75.0  # longer than load balancers keep theirs: whoever closes first, it is not us
_STALL_S, _READ_S, _LINGER_S = 10.0, 60.0, 2.0
_HEAD_BYTES = 64 << 10


@dataclass(frozen=True)
class Request:
    """A request that is all there.

    Attributes:
        method: Such as ``POST``.
        path: Without the query.
        headers: By lower-case name; of several with one name, the last.
        body: Whole.
        started: When its head was there, by the monotonic clock.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    started: float


@dataclass(frozen=True)
class Response:
    """A reply, and the headers beside the usual ones."""

    reply: Reply
    headers: Mapping[str, str] = field(default_factory=dict)


class Site(Protocol):
    """What connections ask, and tell."""

    body_bytes: int
    head_s: float
    body_s: float

    def opened(self, connection: Connection) -> bool:
        """Takes in a connection; False where there is no room for it."""
        ...

    def closed(self, connection: Connection) -> None:
        """Forgets a connection."""
        ...

    def buffer(self, size_bytes: int) -> bool:
        """Sets memory aside for bodies, or frees it; False where there is none."""
        ...

    def respond(self, request: Request) -> Response | Awaitable[Response]:
        """Answers a request."""
        ...

    def broken(self, request: Request, reply: Reply) -> Response:
        """Answers a request that was refused before its body was there, or will not be."""
        ...


class Connection(asyncio.Protocol):
    """One client's connection.

    Args:
        site: What it asks.

    Attributes:
        deadline: When it is late, by the monotonic clock; infinite while the server works.
        idle: Whether it has no request that is all there, nor an answer on its way.
        begun: Whether a request has begun to arrive, or is not answered yet.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_BYTES)
        self._transport: asyncio.Transport | None = None
        self._head: h11.Request | None = None
        self._started = 0.0
        self._pieces: list[bytes] = []
        self._size = 0
        self._answer: asyncio.Task[None] | None = None
        self.begun = self._lingers = self._choked = self._advancing = False
        self.deadline, self.idle = time.monotonic() + site.head_s, True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self._transport = cast(asyncio.Transport, transport)
        if not self._site.opened(self):
            self._refuse(
                failure(503, "TEMPORARILY_UNAVAILABLE", "Too many connections; try again.")
            )

    def connection_lost(self, error: Exception | None) -> None:
        """Called by the event loop when the client has gone."""
        if self._head is not None and self._answer is None and not self._lingers:
            words = "The request ended before its body did."
            self._site.broken(self._request(), failure(400, "CANCELLED", words, fault="client"))
        if self._answer is not None:
            self._answer.cancel()
        self._forget_body()
        self._site.closed(self)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop with what the client sent."""
        if self._lingers:
            return
        now = time.monotonic()
        if self._head is not None and self._answer is None:
            self.deadline = min(self._started + self._site.body_s, now + _STALL_S)
        elif self._head is None and not self.begun:
            self.begun, self.deadline = True, now + self._site.head_s
        self._http.receive_data(data)
        self._advance()

    def eof_received(self) -> bool:
        """Called by the event loop when the client sends no more: it has gone, as for uvicorn."""
        return False

    def expire(self) -> None:
        """Ends a connection whose deadline is over."""
        if self._lingers or self._answer is not None or not self.begun:
            self.abort()
        else:
            words = "The request did not come in time."
            self._refuse(failure(408, "REQUEST_TIMEOUT", words, fault="client"))

    def abort(self) -> None:
        """Closes it, whatever is on its way."""
        if self._transport is not None:
            self._transport.abort()

    def close_if_idle(self) -> None:
        """Closes it where no request is on its way."""
        if self._transport is not None and not self.begun:
            self._transport.close()

    def pause_writing(self) -> None:
        """Called by the event loop when the client does not read what it is sent."""
        self._choked = True
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Called by the event loop when it has read on."""
        self._choked = False
        self._read_on()

    def _advance(self) -> None:
        self._advancing = True
        try:
            self._take_all()
        finally:
            self._advancing = False

    def _take_all(self) -> None:
        """Takes what the parser has."""
        assert self._transport is not None
        while not self._lingers and not self._transport.is_closing():
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                status = error.error_status_hint or 400
                self._refuse(failure(status, "BAD_REQUEST", f"Not HTTP: {error}.", fault="client"))
                return
            if event is h11.NEED_DATA:
                if self._http.they_are_waiting_for_100_continue:
                    head = h11.InformationalResponse(status_code=100, headers=[])
                    self._write(self._http.send(head))
                return
            if event is h11.PAUSED:
                self._transport.pause_reading()
                return
            if isinstance(event, h11.ConnectionClosed):
                self._transport.close()
                return
            self._take(event)

    def _take(self, event: object) -> None:
        if isinstance(event, h11.Request):
            self._head, self._started, self.begun = event, time.monotonic(), True
            self.deadline = self._started + min(self._site.body_s, _STALL_S)
            declared = self._header("content-length")
            if declared.isdigit() and int(declared) > self._site.body_bytes:
                self._too_large()
        elif isinstance(event, h11.Data):
            size = len(event.data)
            if self._size + size > self._site.body_bytes:
                self._too_large()
            elif not self._site.buffer(size):
                words = "The server has no memory for another body; try again."
                self._refuse(failure(503, "TEMPORARILY_UNAVAILABLE", words, retry_after_s=1))
            else:
                self._size += size
                self._pieces.append(bytes(event.data))
        elif isinstance(event, h11.EndOfMessage):
            self._ask()

    def _ask(self) -> None:
        self.idle, self.deadline = False, float("inf")
        request = self._request()
        response = self._site.respond(request)
        if isinstance(response, Response):
            self._send(response)
        else:
            self._answer = asyncio.ensure_future(self._wait_for(response))

    async def _wait_for(self, response: Awaitable[Response]) -> None:
        made = await response
        self._answer = None
        if self._transport is not None and not self._transport.is_closing():
            self._send(made)

    def _request(self) -> Request:
        assert self._head is not None
        headers = {name.decode(): value.decode("latin-1") for name, value in self._head.headers}
        path = self._head.target.decode("latin-1").partition("?")[0]
        method, body = self._head.method.decode(), b"".join(self._pieces)
        return Request(method, path, headers, body, self._started)

    def _header(self, name: str) -> str:
        assert self._head is not None
        return dict(self._head.headers).get(name.encode(), b"").decode("latin-1")

    def _too_large(self) -> None:
        words = f"The body is larger than {self._site.body_bytes} bytes."
        self._refuse(failure(413, "REQUEST_LIMIT_EXCEEDED", words, fault="client"))

    def _refuse(self, reply: Reply) -> None:
        """Answers what is not all there, and closes."""
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.abort()
            return
        response = Response(reply)
        if self._head is not None:
            response = self._site.broken(self._request(), reply)
        self._send(Response(response.reply, {**response.headers, "connection": "close"}))

    def _send(self, response: Response) -> None:
        assert self._transport is not None
        reply = response.reply
        headers = {
            "date": _date(int(time.time())),
            "content-length": str(len(reply.body)),
            "content-type": _typed(reply.media_type),
            **response.headers,
        }
        if reply.retry_after_s is not None:
            headers["retry-after"] = str(reply.retry_after_s)
        head = h11.Response(status_code=reply.status, headers=list(headers.items()), reason=b"")
        data = self._http.send(head) or b""
        if self._head is None or self._head.method != b"HEAD":
            data += self._http.send(h11.Data(data=reply.body)) or b""
        self._write(data + (self._http.send(h11.EndOfMessage()) or b""))
        self._finish()

    def _finish(self) -> None:
        """After an answer: the next request, or the end."""
        assert self._transport is not None
        self._forget_body()
        self._head, self.idle, self.begun = None, True, False
        waits = self._transport.get_write_buffer_size() > 0
        self.deadline = time.monotonic() + (_READ_S if waits else KEEP_ALIVE_S)
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
            self._read_on()
            self.begun = bool(self._http.trailing_data[0])
            if not self._advancing:
                self._advance()
        elif self._http.their_state in (h11.DONE, h11.MUST_CLOSE, h11.CLOSED):
            self._transport.close()
        else:
            self._lingers, self.deadline = True, time.monotonic() + _LINGER_S
            self._read_on()

    def _read_on(self) -> None:
        if self._transport is not None and not self._choked and not self._transport.is_closing():
            self._transport.resume_reading()

    def _write(self, data: bytes | None) -> None:
        if data and self._transport is not None:
            self._transport.write(data)

    def _forget_body(self) -> None:
        self._site.buffer(-self._size)
        self._pieces, self._size = [], 0


def _typed(media_type: str) -> str:
    plain = media_type.startswith("text/") and "charset" not in media_type
    return f"{media_type}; charset=utf-8" if plain else media_type


_dates: dict[int, str] = {}


def _date(second: int) -> str:
    if second not in _dates:
        _dates.clear()
        _dates[second] = formatdate(second, usegmt=True)
    return _dates[second]
