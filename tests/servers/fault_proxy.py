"""A proxy on loopback that stands before a real HTTP server and breaks what it is told to.

    with FaultProxy("http://127.0.0.1:9000") as proxy:
        fault = proxy.inject(answer(503, {"Retry-After": "1"}), method="PUT", times=2)
        ... use proxy.endpoint ...
        assert fault.fired == 2
        assert proxy.count("PUT", "/blobs/") == 3

It knows HTTP/1.1 and nothing of any protocol above, but for one thing that no server here
enforces: with ``bucket_owner`` it refuses requests that expect another owner, as S3 does. The
``Host`` header passes unchanged, so that signatures hold.

A fault fires at requests that match it, ``times`` of them after the first ``skip``. What a fault
does is one of the functions below: ``answer`` (before any effect), ``cut`` (before), ``cut_body``
(in the middle), ``lose_answer`` (after the effect), ``cut_answer``, ``stall``, ``flip_body``,
``flip_answer``, ``swap_body``, ``swap_answer``; or ``rewrite`` and ``rewrite_answer``, which change
a whole ``Message``, headers included. With ``keeps_messages`` the proxy keeps what passed, so that
it can be played again.
"""

from __future__ import annotations

import random
import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import BinaryIO
from urllib.parse import urlsplit

BLOCK_BYTES = 1 << 18


class _Cut(Exception):
    """The connection to the client ends here."""


@dataclass(frozen=True)
class Message:
    """A request or an answer as a whole.

    Attributes:
        lines: Its first line and its headers, in order, without their ends.
        body: Its body; chunks are joined.
        is_cut: Whether it ends before the end that its headers announce.
    """

    lines: tuple[bytes, ...]
    body: bytes = b""
    is_cut: bool = False

    @classmethod
    def of(cls, head: bytes, blocks: Iterator[bytes]) -> Message:
        """Reads a message to its end."""
        return cls(tuple(head.split(b"\r\n")[:-2]), b"".join(blocks))

    def header(self, name: bytes) -> bytes:
        """Returns the value of a header; empty where it is not there."""
        rows = (line.partition(b":") for line in self.lines[1:])
        return next((value.strip() for key, _, value in rows if key.lower() == name), b"")

    @property
    def ends_early(self) -> bool:
        """Whether whoever reads it waits for more than there is."""
        announced = self.header(b"content-length")
        return self.is_cut or (announced.isdigit() and int(announced) > len(self.body))

    @property
    def wire(self) -> bytes:
        """The bytes that are sent."""
        head = b"\r\n".join(self.lines) + b"\r\n\r\n"
        if b"chunked" not in self.header(b"transfer-encoding"):
            return head + self.body
        if self.is_cut:
            return head + b"%x\r\n%b" % (len(self.body) + 1, self.body)
        chunk = b"%x\r\n%b\r\n" % (len(self.body), self.body) if self.body else b""
        return head + chunk + b"0\r\n\r\n"


Change = Callable[[Message], Message]


@dataclass
class Seen:
    """A request that arrived.

    Attributes:
        method: HTTP's.
        target: Path and query.
        headers: By lower-case name.
        body_bytes: How many bytes of its body arrived; counted while they do.
        status: What the client was answered; 0 where it was not.
        passed: Whether it reached the server whole.
        request: The whole of it, where the proxy keeps messages.
        answer: What the server answered, likewise.
    """

    method: str
    target: str
    headers: Mapping[str, str]
    body_bytes: int = 0
    status: int = 0
    passed: bool = False
    request: Message | None = None
    answer: Message | None = None


@dataclass
class Fault:
    """What to break, where, and how often it was.

    Attributes:
        act: One of the functions of this module made it.
        method: Only requests of this method; None for all.
        target: Only requests whose path and query this pattern is found in.
        times: How often it fires.
        skip: How many matching requests pass before it does.
        chance: How likely it is to fire at each; the dice fall the same way every time.
        then: Called each time, before it acts.
        fired: How often it did.
    """

    act: Callable[[Exchange], None]
    method: str | None = None
    target: str = ""
    times: int = 1
    skip: int = 0
    chance: float = 1.0
    then: Callable[[], None] | None = None
    fired: int = 0
    dice: random.Random = field(default_factory=lambda: random.Random(0))

    def matches(self, seen: Seen) -> bool:
        return self.method in (None, seen.method) and bool(re.search(self.target, seen.target))


@dataclass
class Exchange:
    """A request on its way through, and what was decided to do to it."""

    seen: Seen
    client: BinaryIO
    head: bytes
    stopped: threading.Event
    answer: bytes | None = None
    cut_at_bytes: int | None = None
    flip_at_byte: int | None = None
    lose_answer: bool = False
    cut_answer_at_bytes: int | None = None
    flip_answer_at_byte: int | None = None
    swapped_body: bytes | None = None
    swapped_answer: bytes | None = None
    rewrite: Change | None = None
    rewrite_answer: Change | None = None


def answer(
    status: int, headers: Mapping[str, str] | None = None, body: bytes = b""
) -> Callable[[Exchange], None]:
    """Answers in the server's place; the server hears nothing."""
    rows = {"Content-Length": str(len(body)), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in rows.items())
    data = f"HTTP/1.1 {status} Fault\r\n{head}\r\n".encode()

    def act(exchange: Exchange) -> None:
        exchange.answer = data + (b"" if exchange.seen.method == "HEAD" else body)
        exchange.seen.status = status

    return act


def s3_error(
    status: int, code: str, headers: Mapping[str, str] | None = None, facts: str = ""
) -> Callable[[Exchange], None]:
    """Answers with an error in S3's spelling."""
    body = f"<Error><Code>{code}</Code><Message>injected</Message>{facts}</Error>".encode()
    return answer(status, {"Content-Type": "application/xml", **(headers or {})}, body)


def cut(exchange: Exchange) -> None:
    """Ends the connection before any byte of the body is read."""
    raise _Cut


def cut_body(after_bytes: int) -> Callable[[Exchange], None]:
    """Ends both connections once that much of the body has passed."""
    return lambda exchange: setattr(exchange, "cut_at_bytes", after_bytes)


def lose_answer(exchange: Exchange) -> None:
    """Lets the request have its effect, then ends the connection instead of answering."""
    exchange.lose_answer = True


def cut_answer(after_bytes: int) -> Callable[[Exchange], None]:
    """Ends the connection in the middle of the answer's body."""
    return lambda exchange: setattr(exchange, "cut_answer_at_bytes", after_bytes)


def stall(exchange: Exchange) -> None:
    """Says nothing until the proxy is closed."""
    exchange.stopped.wait()
    raise _Cut


def flip_body(at_byte: int) -> Callable[[Exchange], None]:
    """Flips a bit of the request's body on its way to the server."""
    return lambda exchange: setattr(exchange, "flip_at_byte", at_byte)


def flip_answer(at_byte: int) -> Callable[[Exchange], None]:
    """Flips a bit of the answer's body."""
    return lambda exchange: setattr(exchange, "flip_answer_at_byte", at_byte)


def swap_body(data: bytes) -> Callable[[Exchange], None]:
    """Passes other bytes on to the server than the client sends; ``data`` is as long or longer."""
    return lambda exchange: setattr(exchange, "swapped_body", data)


def swap_answer(data: bytes) -> Callable[[Exchange], None]:
    """Brings back other bytes than the server sends, with its headers; ``data`` as above."""
    return lambda exchange: setattr(exchange, "swapped_answer", data)


def rewrite(change: Change) -> Callable[[Exchange], None]:
    """Changes a whole request; the server hears nothing behind it."""
    return lambda exchange: setattr(exchange, "rewrite", change)


def rewrite_answer(change: Change) -> Callable[[Exchange], None]:
    """Changes a whole answer; the connection ends behind it."""
    return lambda exchange: setattr(exchange, "rewrite_answer", change)


@dataclass
class FaultProxy:
    """The proxy; a context manager that listens while it lasts.

    Attributes:
        upstream: ``http://127.0.0.1:PORT`` of the real server.
        bucket_owner: The account that owns every bucket there; None where nobody asks.
        keeps_messages: Whether what passes is kept whole in ``requests``.
        requests: All that arrived, in order.
    """

    upstream: str
    bucket_owner: str | None = None
    keeps_messages: bool = False
    requests: list[Seen] = field(default_factory=list)
    endpoint: str = ""

    def __post_init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._sockets: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> FaultProxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for each in self._sockets:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def inject(
        self,
        act: Callable[[Exchange], None],
        method: str | None = None,
        target: str = "",
        times: int = 1,
        skip: int = 0,
        chance: float = 1.0,
        then: Callable[[], None] | None = None,
    ) -> Fault:
        """Adds a fault; of several that match a request, the one added first fires."""
        fault = Fault(act, method, target, times, skip, chance, then)
        with self._lock:
            self._faults.append(fault)
        return fault

    def count(self, method: str | None = None, target: str = "") -> int:
        """Returns how many requests arrived that match."""
        return len(self.matching(method, target))

    def body_bytes(self, method: str | None = None, target: str = "") -> int:
        """Returns how many bytes of the bodies of matching requests arrived."""
        return sum(seen.body_bytes for seen in self.matching(method, target))

    def matching(self, method: str | None = None, target: str = "") -> list[Seen]:
        """Returns the requests that match, in order."""
        wanted = Fault(cut, method, target)
        with self._lock:
            return [seen for seen in self.requests if wanted.matches(seen)]

    def _accept(self) -> None:
        while not self._stopped.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._sockets.add(client)
        try:
            with client, client.makefile("rwb", BLOCK_BYTES) as stream:
                while self._exchange(stream):
                    pass
        except (_Cut, OSError, ValueError):
            pass  # the client is told by the end of the connection
        finally:
            with self._lock:
                self._sockets.discard(client)

    def _exchange(self, client: BinaryIO) -> bool:
        """Takes one request through; tells whether another may follow."""
        start, headers, head = _read_head(client)
        if not start:
            return False
        method, target, _ = start.split(" ")
        exchange = Exchange(Seen(method, target, headers), client, head, self._stopped)
        fault = self._arrived(exchange.seen)
        if fault:
            if fault.then:
                fault.then()
            fault.act(exchange)
        elif self._is_of_another_owner(headers):
            s3_error(403, "AccessDenied")(exchange)
        if exchange.answer is None:
            return self._pass_on(exchange)
        refused = "expect" in headers and exchange.seen.status >= 300
        if not refused:
            _tell_to_go_on(exchange)
            for block in _body(client, headers):
                exchange.seen.body_bytes += len(block)
        client.write(exchange.answer)
        client.flush()
        return not refused

    def _arrived(self, seen: Seen) -> Fault | None:
        with self._lock:
            self.requests.append(seen)
            for fault in self._faults:
                if fault.matches(seen) and fault.fired < fault.times:
                    if fault.skip:
                        fault.skip -= 1
                        continue
                    if fault.dice.random() >= fault.chance:
                        continue
                    fault.fired += 1
                    return fault
        return None

    def _is_of_another_owner(self, headers: Mapping[str, str]) -> bool:
        expected = headers.get("x-amz-expected-bucket-owner", self.bucket_owner)
        return self.bucket_owner is not None and expected != self.bucket_owner

    def _pass_on(self, exchange: Exchange) -> bool:
        seen = exchange.seen
        _tell_to_go_on(exchange)
        host = urlsplit(self.upstream)
        with (
            socket.create_connection((host.hostname, host.port)) as upstream,
            upstream.makefile("rwb", BLOCK_BYTES) as server,
        ):
            if exchange.rewrite or self.keeps_messages:
                seen.request = Message.of(exchange.head, _body(exchange.client, seen.headers))
                seen.body_bytes = len(seen.request.body)
                sent = (exchange.rewrite or _same)(seen.request)
                server.write(sent.wire)
                server.flush()
                if sent.ends_early:
                    upstream.shutdown(socket.SHUT_WR)
                seen.passed = True
                return self._bring_back(exchange, server) and not exchange.rewrite
            server.write(exchange.head)
            chunked = "chunked" in seen.headers.get("transfer-encoding", "")
            for block in _damaged(
                _body(exchange.client, seen.headers),
                exchange.cut_at_bytes,
                exchange.flip_at_byte,
                seen,
                exchange.swapped_body,
            ):
                server.write(b"%x\r\n%b\r\n" % (len(block), block) if chunked else block)
            if chunked:
                server.write(b"0\r\n\r\n")
            server.flush()
            seen.passed = True
            return self._bring_back(exchange, server)

    def _bring_back(self, exchange: Exchange, server: BinaryIO) -> bool:
        start, headers, head = _read_head(server)
        if exchange.lose_answer or not start:
            raise _Cut
        exchange.seen.status = status = int(start.split(" ")[1])
        client = exchange.client
        chunked = "chunked" in headers.get("transfer-encoding", "")
        sized = chunked or "content-length" in headers
        blocks = _body(server, headers) if sized else iter(lambda: server.read(BLOCK_BYTES), b"")
        if exchange.seen.method == "HEAD" or status in (204, 304):
            blocks, sized = iter(()), True
        if exchange.rewrite_answer or self.keeps_messages:
            exchange.seen.answer = Message.of(head, blocks)
            client.write((exchange.rewrite_answer or _same)(exchange.seen.answer).wire)
            client.flush()
            return sized and headers.get("connection") != "close" and not exchange.rewrite_answer
        client.write(head)
        if exchange.seen.method == "HEAD" or status in (204, 304):
            client.flush()
            return True
        for block in _damaged(
            blocks,
            exchange.cut_answer_at_bytes,
            exchange.flip_answer_at_byte,
            swapped=exchange.swapped_answer,
        ):
            client.write(b"%x\r\n%b\r\n" % (len(block), block) if chunked else block)
        if chunked:
            client.write(b"0\r\n\r\n")
        client.flush()
        return sized and headers.get("connection") != "close"


def _same(message: Message) -> Message:
    return message


def _tell_to_go_on(exchange: Exchange) -> None:
    if "expect" in exchange.seen.headers:
        exchange.client.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        exchange.client.flush()


def _read_head(stream: BinaryIO) -> tuple[str, dict[str, str], bytes]:
    """Reads a start line and headers; gives them parsed, and as bytes to pass on."""
    start = stream.readline()
    if not start.endswith(b"\r\n"):
        return "", {}, b""
    lines, headers = [start], {}
    while (line := stream.readline()) not in (b"\r\n", b""):
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
        if name.strip().lower() != "expect":  # answered here
            lines.append(line)
    return start.decode("latin-1").strip(), headers, b"".join([*lines, b"\r\n"])


def _body(stream: BinaryIO, headers: Mapping[str, str]) -> Iterator[bytes]:
    if "chunked" in headers.get("transfer-encoding", ""):
        while size := int(stream.readline().partition(b";")[0], 16):
            yield stream.read(size)
            stream.readline()
        while stream.readline() not in (b"\r\n", b""):
            pass
        return
    left = int(headers.get("content-length", 0))
    while left:
        block = stream.read(min(left, BLOCK_BYTES))
        if not block:
            raise _Cut
        left -= len(block)
        yield block


def _damaged(
    blocks: Iterator[bytes],
    cut_at_bytes: int | None,
    flip_at_byte: int | None,
    seen: Seen | None = None,
    swapped: bytes | None = None,
) -> Iterator[bytes]:
    """Passes blocks on, counted; raises _Cut, flips a bit or takes others, where it was told to."""
    at = 0
    for block in blocks:
        if swapped is not None:
            block = swapped[at : at + len(block)]
        if cut_at_bytes is not None and at + len(block) > cut_at_bytes:
            if seen:
                seen.body_bytes = cut_at_bytes
            yield block[: cut_at_bytes - at]
            raise _Cut
        if flip_at_byte is not None and at <= flip_at_byte < at + len(block):
            damaged = bytearray(block)
            damaged[flip_at_byte - at] ^= 1
            block = bytes(damaged)
        at += len(block)
        if seen:
            seen.body_bytes = at
        yield block
