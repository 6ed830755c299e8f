"""The HTTP server of one bundle: MLflow's scoring endpoints and three of its own.

    GET  /ping          200 while requests are welcome, 503 once it drains: readiness
    GET  /health        200 as long as it answers at all: liveness
    GET  /version       MLflow's version, as MLflow's server gives it
    POST /invocations   the prediction (see ``scoring``)
    GET  /bundle        {"bundle_id", "model_name", "run_id", "instance_id"}
    GET  /metrics       for Prometheus (see ``metrics``)

Nothing listens before the model has predicted its input example, so a connection that is accepted
is one that can be answered. Predictions run in worker threads; a request that finds ``WAITING``
others before it is refused with 503. A body over the limit is 413, a prediction over MLflow's
``MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT`` (60 s) is MLflow's 504.

On SIGTERM it drains: /ping turns 503, requests are answered as before and their connections closed,
for whoever sends them has yet to hear that this server goes away. It stops listening when nothing
has come for ``QUIET_S``, after ``drain_s`` at the latest, answers what it has accepted, and ends
with exit code 0. SIGINT, or a second SIGTERM, leaves out the waiting for new requests; one more
also leaves the accepted ones.

An ``X-Request-Id`` comes back as it was sent, and is made where it is missing; the log has it too.
"""

from __future__ import annotations

import asyncio
import logging
import re
import signal
import socket
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import FrameType

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from adroit.serving.bundle import Bundle
from adroit.serving.drift import FeatureLog
from adroit.serving.logs import event, frames_of
from adroit.serving.metrics import MEDIA_TYPE, Metrics
from adroit.serving.scoring import JSON, Reply, Scorer, failure

WAITING = 1024
QUIET_S = 2.0
KEEP_ALIVE_S = 75  # longer than load balancers keep theirs: whoever closes first, it is not us
_REQUEST_ID = re.compile(r"[!-~]{1,128}")


@dataclass(frozen=True)
class Limits:
    """How much the server takes.

    Attributes:
        body_bytes: Largest body of a request.
        threads: Predictions at once.
        drain_s: Most seconds between SIGTERM and the last new connection.
    """

    body_bytes: int
    threads: int
    drain_s: float


class Application:
    """The endpoints of one loaded bundle, and what they count.

    Args:
        bundle: Who it is.
        scorer: What answers.
        features: The feature log that ``scorer`` tells, or None.
        metrics: What is counted.
        limits: How much is taken.
    """

    def __init__(
        self,
        bundle: Bundle,
        scorer: Scorer,
        features: FeatureLog | None,
        metrics: Metrics,
        limits: Limits,
    ) -> None:
        from mlflow.environment_variables import MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT
        from mlflow.version import VERSION

        self._scorer, self._features, self.limits = scorer, features, limits
        self._timeout_s = float(MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT.get())  # type: ignore[no-untyped-call]
        self._workers = ThreadPoolExecutor(limits.threads, "adroit-predict")
        self._version = VERSION
        self.identity = {
            "bundle_id": bundle.bundle_id,
            "model_name": bundle.model_name,
            "run_id": bundle.run_id,
            "instance_id": uuid.uuid4().hex,
        }
        self.metrics = metrics
        self.last_request = 0.0
        self.asgi = Starlette(
            routes=[
                Route("/invocations", self._invocations, methods=["POST"]),
                Route("/ping", self._ping),
                Route("/health", self._health),
                Route("/version", self._mlflow_version),
                Route("/bundle", self._bundle),
                Route("/metrics", self._metrics),
            ]
        )

    def close(self) -> None:
        """Leaves predictions that nobody waits for any more to themselves; sends last features."""
        self._workers.shutdown(wait=False, cancel_futures=True)
        if self._features is not None:
            self._features.close()

    async def _ping(self, _request: Request) -> Response:
        return Response("\n", 200 if self.metrics.ready else 503, media_type=JSON)

    async def _health(self, _request: Request) -> Response:
        return Response("\n", media_type=JSON)

    async def _mlflow_version(self, _request: Request) -> Response:
        return Response(self._version, media_type=JSON)

    async def _bundle(self, _request: Request) -> Response:
        return JSONResponse(self.identity)

    async def _metrics(self, _request: Request) -> Response:
        samples = self._features.outcomes if self._features else {}
        return Response(self.metrics.text(samples), headers={"content-type": MEDIA_TYPE})

    async def _invocations(self, request: Request) -> Response:
        started = time.monotonic()
        request_id = request.headers.get("x-request-id", "")
        if not _REQUEST_ID.fullmatch(request_id):
            request_id = uuid.uuid4().hex
        self.metrics.in_flight += 1
        try:
            answer = await self._answer(request)
        finally:
            self.metrics.in_flight -= 1
            self.last_request = time.monotonic()
        seconds = self.last_request - started
        self.metrics.invoked(answer.status, answer.error_code, seconds)
        _log(answer, request_id, seconds)
        headers = {"x-request-id": request_id}
        if not self.metrics.ready or answer.status == 413:  # what is left of a body is not read
            headers["connection"] = "close"
        return Response(answer.body, answer.status, headers, answer.media_type)

    async def _answer(self, request: Request) -> Reply:
        if self.metrics.in_flight > WAITING:
            return failure(503, "TEMPORARILY_UNAVAILABLE", "The server is busy; try again.")
        try:
            body = await _body(request, self.limits.body_bytes)
        except ClientDisconnect as error:  # nobody reads this answer; it is counted
            return failure(400, "CANCELLED", "The request ended before its body did.", error)
        if body is None:
            message = f"The body is larger than {self.limits.body_bytes} bytes."
            return failure(413, "REQUEST_LIMIT_EXCEEDED", message)
        content_type = request.headers.get("content-type")
        prediction = asyncio.get_running_loop().run_in_executor(
            self._workers, self._scorer.answer, body, content_type
        )
        try:
            return await asyncio.wait_for(prediction, self._timeout_s)
        except asyncio.TimeoutError:  # noqa: UP041  a class of its own before Python 3.11
            late = b"Request processing time exceeded limit"
            return Reply(504, late, JSON, "DEADLINE_EXCEEDED")


def serve(
    application: Application, listener: socket.socket, facts: Mapping[str, str | int]
) -> None:
    """Serves until a signal ends it; returns when every accepted request is answered.

    Args:
        application: Ready to answer.
        listener: Bound and not listening yet.
        facts: What the log says when it listens.
    """
    config = uvicorn.Config(
        application.asgi,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        timeout_keep_alive=KEEP_ALIVE_S,
        ws="none",
    )
    application.metrics.ready = True
    _DrainingServer(config, application, facts).run(sockets=[listener])
    event("ended")


class _DrainingServer(uvicorn.Server):
    """uvicorn, with a while between hearing SIGTERM and closing the door."""

    def __init__(
        self, config: uvicorn.Config, application: Application, facts: Mapping[str, str | int]
    ) -> None:
        super().__init__(config)
        self._application = application
        self._facts = facts
        self._drain_started: float | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        event("ready", level=logging.INFO, **self._facts)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig == signal.SIGTERM and self._drain_started is None:
            self._drain_started = time.monotonic()
            self._application.metrics.ready = False
        else:
            # Not uvicorn's own, which would raise the signal again once all is answered.
            self.force_exit, self.should_exit = self.should_exit, True

    async def on_tick(self, counter: int) -> bool:
        if self._drain_started is not None and self._drained(self._drain_started):
            self.should_exit = True
        return await super().on_tick(counter)

    def _drained(self, since: float) -> bool:
        now, application = time.monotonic(), self._application
        if now - since >= application.limits.drain_s:
            return True
        quiet_since = max(since, application.last_request)
        return application.metrics.in_flight == 0 and now - quiet_since >= QUIET_S


async def _body(request: Request, limit_bytes: int) -> bytes | None:
    """Returns the body, or None as soon as it is known to be larger than ``limit_bytes``."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit_bytes:
        return None
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit_bytes:
            return None
        chunks.append(chunk)
    return b"".join(chunks)


def _log(answer: Reply, request_id: str, seconds: float) -> None:
    error = answer.error
    event(
        "request",
        level=logging.INFO if answer.status < 500 else logging.ERROR,
        request_id=request_id,
        status=answer.status,
        seconds=round(seconds, 6),
        error_code=answer.error_code,
        error_type=type(error).__name__ if error else None,
        frames=frames_of(error) if error else None,
    )
