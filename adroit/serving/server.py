"""The HTTP server of one bundle: MLflow's scoring endpoints and five of its own.

    GET  /ping          200 while requests are welcome, 503 once it drains: readiness
    GET  /health        200 while there is a worker, or one that starts: liveness
    GET  /version       MLflow's version, as MLflow's server gives it
    POST /invocations   the prediction (see ``scoring``)
    GET  /bundle        {"bundle_id", "model_name", "run_id", "instance_id", "probe_header"}
    GET  /metrics       for Prometheus (see ``metrics``)
    GET  /openapi.json, /docs    what can be asked, with the model's signature and its example

Nothing listens before the model has predicted its input example, so a connection that is accepted
is one that can be answered. Predictions run in processes of their own (see ``workers``); a request
that finds too many others before it is refused with 503. A body over the limit is 413, a prediction
over MLflow's ``MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT`` (60 s) is MLflow's 504.

A request with the header that ``/bundle`` names is a probe: it is answered as any other and counted
apart, so that whoever watches a model makes none of its traffic.

An ``X-Request-Id`` comes back as it was sent, and is made where it is missing; the log has it too,
and the trace of a ``traceparent``.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import re
import socket
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from adroit.serving.bundle import Bundle
from adroit.serving.http.connection import Request, Response
from adroit.serving.http.listener import Listener
from adroit.serving.http.openapi import openapi, page
from adroit.serving.limits import Limits
from adroit.serving.logs import event
from adroit.serving.metrics import MEDIA_TYPE, Metrics
from adroit.serving.scoring import Reply, failure
from adroit.serving.workers.pool import Pool

PROBE_HEADER = "adroit-probe"
_REQUEST_ID = re.compile(r"[!-~]{1,128}")
_TRACE = re.compile(r"[\da-f]{2}-([\da-f]{32})-[\da-f]{16}-[\da-f]{2}")


class Application:
    """The endpoints of one loaded bundle, and what they count.

    Args:
        bundle: Who it is.
        pool: What predicts.
        metrics: What is counted.
        limits: How much is taken.
        model: What the loader said of the model.
    """

    def __init__(
        self,
        bundle: Bundle,
        pool: Pool,
        metrics: Metrics,
        limits: Limits,
        model: Mapping[str, Any],
    ) -> None:
        self.identity = {
            "bundle_id": bundle.bundle_id,
            "model_name": bundle.model_name,
            "run_id": bundle.run_id,
            "instance_id": uuid.uuid4().hex,
        }
        self.metrics, self.last_request = metrics, 0.0
        self._pool, self._limits = pool, limits
        self._draining = False
        self._draw = random.Random()
        described = openapi(bundle.model_name, model["signature"], model["example"])
        self._pages: dict[str, Callable[[], Reply]] = {
            "/ping": lambda: Reply(200 if self.ready else 503, b"\n"),
            "/health": lambda: Reply(200 if pool.links else 503, b"\n"),
            "/version": lambda: Reply(200, str(model["mlflow_version"]).encode()),
            "/bundle": lambda: _json(self.identity | {"probe_header": PROBE_HEADER}),
            "/metrics": self._metrics,
            "/openapi.json": lambda: _json(described),
            "/docs": lambda: Reply(200, page(described).encode(), "text/html"),
        }

    @property
    def ready(self) -> bool:
        """Whether requests are welcome."""
        return not self._draining and self._pool.ready > 0

    @property
    def busy(self) -> bool:
        """Whether a request is not answered yet."""
        return self.metrics.in_flight > 0

    def drain(self) -> None:
        """Is not ready from now on, and asks clients to close."""
        self._draining, self.metrics.ready = True, False

    def tick(self) -> None:
        """Ends what takes too long."""
        self._pool.tick()
        self.metrics.ready = self.ready

    def respond(self, request: Request) -> Response | Awaitable[Response]:
        """Answers a request."""
        if request.path == "/invocations":
            return self._invocations(request) if request.method == "POST" else _not_so("POST")
        shown = self._pages.get(request.path)
        if shown is None:
            words = f"There is no {request.path} here."
            return Response(failure(404, "ENDPOINT_NOT_FOUND", words, fault="client"))
        if request.method not in ("GET", "HEAD"):
            return _not_so("GET")
        return Response(shown(), {"connection": "close"} if self._draining else {})

    def broken(self, request: Request, reply: Reply) -> Response:
        """Answers a request that is not all there."""
        if request.path != "/invocations":
            return Response(reply)
        return self._told(request, reply)

    async def _invocations(self, request: Request) -> Response:
        self.metrics.in_flight += 1
        try:
            reply = await self._pool.ask(
                request.body,
                request.headers.get("content-type"),
                request.headers.get("content-encoding", ""),
                probe=PROBE_HEADER in request.headers,
            )
        except asyncio.CancelledError:
            words = "The client has gone."
            self._told(request, failure(400, "CANCELLED", words, fault="client"))
            raise
        finally:
            self.metrics.in_flight -= 1
        return self._told(request, reply)

    def _told(self, request: Request, reply: Reply) -> Response:
        """Counts and logs an answer."""
        self.last_request = time.monotonic()
        seconds = self.last_request - request.started
        request_id = request.headers.get("x-request-id", "")
        if not _REQUEST_ID.fullmatch(request_id):
            request_id = uuid.uuid4().hex
        if PROBE_HEADER in request.headers:
            self.metrics.probed(reply.status)
        else:
            self.metrics.invoked(reply.status, reply.error_code, seconds, reply.fault, reply.rows)
        if reply.error_code or self._draw.random() < self._limits.log_share:
            _log(reply, request, request_id, seconds)
        headers = {"x-request-id": request_id}
        if self._draining:
            headers["connection"] = "close"
        return Response(reply, headers)

    def _metrics(self) -> Reply:
        self.metrics.ready = self.ready
        text = self.metrics.text(self.metrics.feature_samples)
        return Reply(200, text.encode(), MEDIA_TYPE)


def serve(application: Application, pool: Pool, limits: Limits, listener: socket.socket) -> None:
    """Serves until a signal ends it; returns when every accepted request is answered.

    Args:
        application: Ready to answer.
        pool: Its workers, which have loaded.
        limits: How much is taken.
        listener: Bound and not listening yet.
    """
    host, port = listener.getsockname()[:2]

    async def run() -> None:
        await pool.open()
        application.tick()
        ready = {"host": host, "port": port, **application.identity}
        await Listener(application, limits).run(listener, lambda: event("ready", **ready))
        await pool.close()

    loop = _event_loop()
    asyncio.set_event_loop(loop)
    loop.run_until_complete(run())
    event("ended")


def _event_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def _not_so(method: str) -> Response:
    words = f"Only {method} is answered here."
    return Response(failure(405, "METHOD_NOT_ALLOWED", words), {"allow": method})


def _json(value: Any) -> Reply:
    return Reply(200, json.dumps(value).encode())


def _log(reply: Reply, request: Request, request_id: str, seconds: float) -> None:
    trace = _TRACE.fullmatch(request.headers.get("traceparent", ""))
    event(
        "request",
        level=logging.INFO if reply.status < 500 else logging.ERROR,
        request_id=request_id,
        trace_id=trace[1] if trace else None,
        status=reply.status,
        seconds=round(seconds, 6),
        error_code=reply.error_code,
        fault=reply.fault,
        error_type=reply.error_type,
        frames=reply.frames,
    )
