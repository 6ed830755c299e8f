"""The queue before the workers: who is asked, for how long, and who replaces one that ends.

A request waits here and not in a socket, so that what is too much is refused at once, with the time
after which it is worth asking again. A prediction over the time limit ends its worker, and nothing
else: the client gets MLflow's 504 and a new worker takes the place. All of it runs in the server's
event loop.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from adroit.serving.features.drift_window import Window
from adroit.serving.features.reference import reference_from
from adroit.serving.limits import Limits
from adroit.serving.logs import event
from adroit.serving.metrics import Metrics
from adroit.serving.scoring import Reply, failure
from adroit.serving.workers import native
from adroit.serving.workers.frames import KEY_BYTES, Decoder
from adroit.serving.workers.loader import Instructions
from adroit.serving.workers.processes import Loader, started_alone
from adroit.serving.workers.worker_link import Job, WorkerLink

TICK_S = 0.1
_DEFAULT_WORKERS = 2
_BACK_OFF_S, _LONGEST_BACK_OFF_S = 0.1, 10.0
_SMOOTHING = 0.1


@dataclass
class Pool:
    """The workers of one server.

    Attributes:
        root: Of the bundle.
        limits: How much is taken.
        metrics: Told of queue, workers and batches.
    """

    root: str
    limits: Limits
    metrics: Metrics
    _key: bytes = field(default_factory=partial(os.urandom, KEY_BYTES))
    _links: list[WorkerLink] = field(default_factory=list)
    _queue: deque[Job] = field(default_factory=deque)
    _alone: list[Loader] = field(default_factory=list)
    _loader: Loader | None = None
    _workers: int = _DEFAULT_WORKERS
    _seconds: float = 0.0
    _failures: int = 0
    _numbers: int = 0
    _closing: bool = False
    _starting: set[asyncio.Future[None]] = field(default_factory=set)

    def load(self) -> Mapping[str, Any]:
        """Returns what is known of the model, once it is loaded and has predicted. Blocks.

        Raises:
            LoaderEndedError: It does not load, or does not predict.
        """
        wanted = self.limits.workers or _DEFAULT_WORKERS
        self._loader = Loader.start(self._instructions(wanted), self._key)
        told = self._loader.wait()
        why = told["why_not_forked"]
        if why is not None:
            wanted = self.limits.workers or 1
            self._alone.append(self._loader)
            self._loader = None
            event("the model is loaded by each worker anew", why=why, workers=wanted)
        self._workers = wanted
        facts: Mapping[str, Any] = told["loaded"]
        self.metrics.load_seconds = float(facts["load_seconds"])
        if facts["logs_features"]:
            self.metrics.feature_samples.update(sent=0, dropped=0)
        if facts["reference"]:
            reference = reference_from(facts["reference"])
            self.metrics.drift = Window(reference, self.limits.drift_window_s)
        return facts

    def end_loading(self) -> None:
        """Ends the process that loads, at once."""
        if self._loader is not None:
            self._loader.process.kill()

    async def open(self) -> None:
        """Starts the workers, and returns once one of them is ready."""
        for loader in self._alone:
            await self._link(loader.control, loader.process.pid, loader.decoder)
            self._links[-1].ready = True
        while len(self._links) < self._workers:
            await self._start_worker()
        while self.links and not self.ready:
            await asyncio.sleep(0.001)

    @property
    def links(self) -> int:
        """How many workers there are, those that are starting among them."""
        return len(self._links)

    @property
    def ready(self) -> int:
        """How many workers can be asked, those that are busy among them."""
        return sum(link.ready for link in self._links)

    async def ask(
        self, body: bytes, content_type: str | None, encoding: str, *, probe: bool = False
    ) -> Reply:
        """Returns what a worker answers, or why none did.

        Args:
            body: The whole body of a request.
            content_type: Its header; None where it had none.
            encoding: Its header Content-Encoding; empty where it had none.
            probe: Whether it is to be counted nowhere.
        """
        if len(self._queue) >= self.limits.queue_for(self._workers):
            message = "The server is busy; try again."
            return failure(503, "TEMPORARILY_UNAVAILABLE", message, retry_after_s=self._wait_s())
        self._numbers += 1
        loop = asyncio.get_running_loop()
        job = Job(self._numbers, body, content_type, encoding, probe, loop.create_future())
        self._queue.append(job)
        if self.limits.wait_s:
            loop.call_later(self.limits.wait_s, self._dispatch)
        self._dispatch()
        try:
            return await job.answer
        finally:
            if job.sent_at is None and job in self._queue:
                self._queue.remove(job)

    def tick(self) -> None:
        """Ends what takes too long; called every ``TICK_S``."""
        now = time.monotonic()
        self.metrics.workers = self.ready
        for job in [job for job in self._queue if self._is_late(job.asked_at, now)]:
            self._queue.remove(job)
            job.finish(_late("server"))
        for link in list(self._links):
            hanging = False
            for job in link.jobs.values():
                if self._is_late(job.asked_at, now):
                    job.finish(_late("model"))
                hanging |= self._is_late(job.sent_at or now, now)
            if hanging:
                link.end("timeout")
        self._alone = [loader for loader in self._alone if loader.process.poll() is None]

    async def close(self) -> None:
        """Lets the workers end, and sees to it that they do."""
        self._closing = True
        for link in self._links:
            link.close()
        await asyncio.sleep(0)
        for loader in (*self._alone, *([self._loader] if self._loader else ())):
            loader.end()

    def _is_late(self, since: float, now: float) -> bool:
        return now - since > self.limits.prediction_s

    def _dispatch(self) -> None:
        """Gives what waits to workers that are free."""
        while self._queue and (link := self._free()):
            waited = time.monotonic() - self._queue[0].asked_at
            if len(self._queue) < self.limits.most_rows and waited < self.limits.wait_s:
                return
            most = max(1, self.limits.most_rows)
            jobs = [self._queue.popleft() for _ in range(min(most, len(self._queue)))]
            link.send(jobs)
            waited_s = [job.sent_at - job.asked_at for job in jobs if job.sent_at and not job.probe]
            if waited_s:
                self.metrics.dispatched(waited_s)
            self.metrics.busy = sum(bool(link.jobs) for link in self._links)

    def _free(self) -> WorkerLink | None:
        free = [link for link in self._links if link.ready and link.frames < self.limits.threads]
        return min(free, key=lambda link: link.frames, default=None)

    def _answered(self, link: WorkerLink, seconds: float) -> None:
        """Called by a link when a frame is answered, or when it becomes ready."""
        if seconds:
            self._failures = 0
            weight = _SMOOTHING if self._seconds else 1.0
            self._seconds += weight * (seconds - self._seconds)
        self.metrics.feature_samples.update(link.features)
        link.features.clear()
        while link.drift:
            self.metrics.drifted(link.drift.pop())
        self._dispatch()
        self.metrics.busy = sum(bool(link.jobs) for link in self._links)

    def _lost(self, link: WorkerLink, reason: str) -> None:
        """Called by a link when its worker has ended."""
        self._links.remove(link)
        if self._closing:
            return
        self.metrics.worker_ended(reason)
        event("worker lost", level=logging.ERROR, pid=link.pid, reason=reason)
        delay = 0.0
        if not link.answered:
            delay = min(_LONGEST_BACK_OFF_S, _BACK_OFF_S * 2**self._failures)
            self._failures += 1
        asyncio.get_running_loop().call_later(delay, self._replace)

    def _replace(self) -> None:
        if not self._closing and len(self._links) < self._workers:
            starting = asyncio.ensure_future(self._start_worker())
            self._starting.add(starting)
            starting.add_done_callback(self._starting.discard)

    async def _start_worker(self) -> None:
        if self._loader is not None:
            try:
                await self._link(self._loader.fork(), 0, Decoder(self._key))
            except OSError:
                event("the loader has ended; each worker loads anew", level=logging.ERROR)
                self._loader.end()
                self._loader = None
            else:
                return
        loader = started_alone(self._instructions(self._workers), self._key)
        self._alone.append(loader)
        await self._link(loader.control, loader.process.pid, loader.decoder)

    async def _link(self, *arguments: Any) -> None:
        link = WorkerLink(self._answered, self._lost, *arguments)
        self._links.append(link)
        await link.open()

    def _wait_s(self) -> int:
        slots = max(1, self.ready * self.limits.threads)
        return max(1, math.ceil(len(self._queue) * self._seconds / slots))

    def _instructions(self, workers: int) -> Instructions:
        return Instructions(
            root=self.root,
            body_bytes=self.limits.body_bytes,
            threads=self.limits.threads,
            most_rows=self.limits.most_rows,
            native_threads=max(1, native.threads_of(workers) // self.limits.threads),
            forks=True,
            memory_bytes=self.limits.memory_bytes,
            nan_as_null=self.limits.nan_as_null,
        )


def _late(fault: Any) -> Reply:
    # As MLflow's server says it.
    late = b"Request processing time exceeded limit"
    return Reply(504, late, error_code="DEADLINE_EXCEEDED", fault=fault)
