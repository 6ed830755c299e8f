"""A balancer and a load for the lab: requests by a key, each to a live replica of its flavor.

A connection keeps to one replica, as a balancer of connections does; where that does not answer,
the next one is asked. Only where no replica of the flavor answers does a request fail, with 502.
"""

from __future__ import annotations

import http.client
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from urllib.parse import urlsplit

PATIENCE_S = 10
KEY = "X-User"
_PAUSE_S = 0.02


@contextmanager
def balancer(choose: Callable[[str], Sequence[str]]) -> Iterator[str]:
    """Runs a balancer and gives its address.

    Args:
        choose: Told a request's key; returns the replicas that may answer it, as ``http://HOST:PORT``.
    """
    connections = count()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            self.turn = next(connections)

        def do_GET(self) -> None:
            self.forward(None)

        def do_POST(self) -> None:
            self.forward(self.rfile.read(int(self.headers.get("Content-Length", 0))))

        def forward(self, body: bytes | None) -> None:
            replicas = choose(self.headers.get(KEY, ""))
            for number in range(len(replicas)):
                replica = replicas[(self.turn + number) % len(replicas)]
                try:
                    status, answer = self.asked(replica, body)
                except OSError:
                    continue
                self.answer(status, answer)
                return
            self.answer(502, b"no replica answers")

        def asked(self, replica: str, body: bytes | None) -> tuple[int, bytes]:
            upstream = http.client.HTTPConnection(urlsplit(replica).netloc, timeout=PATIENCE_S)
            kept = ("content-type", "adroit-probe")
            headers = {name: text for name, text in self.headers.items() if name.lower() in kept}
            try:
                upstream.request(self.command, self.path, body, headers)
                reply = upstream.getresponse()
                return reply.status, reply.read()
            finally:
                upstream.close()

        def answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class ConstantLoad:
    """Requests without end; what came of them is counted under the label of the moment.

    Args:
        url: Where they go.
        body: What they ask, as JSON.
        answer: What every one has to be answered.
    """

    def __init__(self, url: str, body: bytes, answer: bytes, threads: int = 3) -> None:
        self.label = ""
        self.requests: Counter[str] = Counter()
        self.failed: dict[str, list[str]] = {}
        self._request = (url + "/invocations", body)
        self._answer = answer
        self._keys = count()
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]

    def __enter__(self) -> ConstantLoad:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        url, body = self._request
        while not self._stop.wait(_PAUSE_S):
            label, problem = self.label, None
            headers = {"Content-Type": "application/json", KEY: f"user-{next(self._keys)}"}
            try:
                with opener.open(urllib.request.Request(url, body, headers), timeout=30) as reply:
                    got = reply.read()
                problem = None if got.strip() == self._answer else f"it answered {got[:80]!r}"
            except OSError as error:
                problem = str(error)
            with self._lock:
                self.requests[label] += 1
                if problem:
                    self.failed.setdefault(label, []).append(problem)
