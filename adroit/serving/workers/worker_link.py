"""One worker as the server's event loop sees it: a socket, and the jobs that it works on."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from adroit.serving.scoring import Reply, failure
from adroit.serving.workers.frames import Decoder, Frame, FrameError
from adroit.serving.workers.processes import kill


@dataclass
class Job:
    """One request on its way to an answer.

    Attributes:
        number: Its own, among those of this server.
        body: The request's.
        content_type: Its header; None where it had none.
        encoding: Its header Content-Encoding; empty where it had none.
        probe: Whether somebody only looks whether the model answers: it is no traffic.
        answer: Of which a ``Reply`` comes.
        asked_at: When it began to wait, by the monotonic clock.
        sent_at: When a worker got it; None before.
    """

    number: int
    body: bytes
    content_type: str | None
    encoding: str
    probe: bool
    answer: asyncio.Future[Reply]
    asked_at: float = field(default_factory=time.monotonic)
    sent_at: float | None = None

    def finish(self, reply: Reply) -> None:
        """Answers it, unless it has been."""
        if not self.answer.done():
            self.answer.set_result(reply)


class WorkerLink(asyncio.Protocol):
    """The server's end of a worker's socket.

    Args:
        answered: Called when a frame of jobs is answered, with the seconds it took; also when the
            worker becomes ready, with 0.
        lost: Called when the worker has ended, with the reason.
        connection: To the worker.
        pid: The worker's, where it is known; 0: it says so itself.
        decoder: Of what the socket gives; some of it may have been read.

    Attributes:
        ready: Whether it can be asked.
        jobs: What it works on, by number.
        frames: How many frames of jobs it works on.
        answered: How many it has answered.
        features: Requests whose features it logged, by outcome, that nobody has counted yet.
        drift: Rows that it counted by feature and bin, likewise.
    """

    def __init__(
        self,
        answered: Callable[[WorkerLink, float], None],
        lost: Callable[[WorkerLink, str], None],
        connection: socket.socket,
        pid: int,
        decoder: Decoder,
    ) -> None:
        self._heard, self._lost, self._connection = answered, lost, connection
        self._decoder = decoder
        self._transport: asyncio.WriteTransport | None = None
        self._reason = "died"
        self.pid, self.ready = pid, False
        self.jobs: dict[int, Job] = {}
        self.frames = self.answered = 0
        self.features: Counter[str] = Counter()
        self.drift: list[Mapping[str, list[int]]] = []

    async def open(self) -> None:
        """Begins to listen to the worker."""
        self._connection.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self, sock=self._connection)

    def send(self, jobs: Sequence[Job]) -> None:
        """Gives the worker jobs to predict together."""
        assert self._transport is not None  # it has said that it is ready
        now = time.monotonic()
        for job in jobs:
            job.sent_at = now
            self.jobs[job.number] = job
        told = [
            {
                "id": job.number,
                "size": len(job.body),
                "content_type": job.content_type,
                "encoding": job.encoding,
                "probe": job.probe,
            }
            for job in jobs
        ]
        self.frames += 1
        frame = Frame({"jobs": told}, b"".join(job.body for job in jobs))
        self._transport.write(frame.encoded(self._decoder.key))

    def end(self, reason: str) -> None:
        """Ends the worker at once."""
        self._reason, self.ready = reason, False
        if self.pid:
            kill(self.pid)
        self.close()

    def close(self) -> None:
        """Lets the worker end: there is nothing more to do."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop with what the worker sent."""
        try:
            for frame in self._decoder.feed(data):
                self._take(frame)
        except (FrameError, KeyError, TypeError, ValueError):  # the model wrote there
            self.end("garbage")

    def connection_lost(self, error: Exception | None) -> None:
        """Called by the event loop when the worker has ended."""
        self.ready = False
        for job in self.jobs.values():
            job.finish(self._unanswered())
        self._lost(self, self._reason)

    def _take(self, frame: Frame) -> None:
        if "ready" in frame.facts:
            pid = int(frame.facts["ready"])
            if pid > 1 and pid != os.getpid():
                self.pid, self.ready = pid, True
                self._heard(self, 0.0)
        if "features" in frame.facts:
            self.features[str(frame.facts["features"])] += 1
            self._heard(self, 0.0)
        if "drift" in frame.facts:
            self.drift.append(dict(frame.facts["drift"]))
            self._heard(self, 0.0)
        if "replies" in frame.facts:
            self.frames -= 1
            self.answered += 1
            for told, body in frame.parts("replies"):
                if job := self.jobs.pop(int(told["id"]), None):
                    job.finish(_reply(told, body))
            self._heard(self, float(frame.facts["seconds"]))

    def _unanswered(self) -> Reply:
        if self._reason == "timeout":  # another prediction's, in the same worker
            message = "The process that predicted had to be ended; try again."
            return failure(503, "TEMPORARILY_UNAVAILABLE", message, retry_after_s=1)
        message = "The process that predicted has ended."
        return failure(500, "INTERNAL_ERROR", message, fault="model")


def _reply(told: Mapping[str, Any], body: bytes) -> Reply:
    return Reply(
        status=int(told["status"]),
        body=body,
        media_type=str(told["media_type"]),
        error_code=told["error_code"],
        fault=told["fault"],
        rows=int(told["rows"]),
        error_type=told["error_type"],
        frames=told["frames"],
    )
