"""One worker: takes what the server asks, answers, and ends when the server has gone.

It predicts one request at a time; several only where config.yaml says ``thread_safe: true``.
A frame from the server has a list of jobs, which are predicted together where the bundle is served
in batches. A frame to the server has a list of replies, what became of logged features, or counts
of features.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from adroit.serving.features.drift_window import Sampler
from adroit.serving.features.feature_log import FeatureLog
from adroit.serving.logs import frames_of
from adroit.serving.scoring import Reply, Scorer, failure
from adroit.serving.workers import native
from adroit.serving.workers.bodies import TooLargeError, UnknownEncodingError, plain
from adroit.serving.workers.frames import Frame, receive


class Worker:
    """Answers what comes over a socket.

    Args:
        connection: To the server, blocking.
        key: What opens a frame on it.
        scorer: Loaded.
        features: Makes the log of features, which has a thread; None: they are not logged.
        drift: Counts features; None where there is nothing to hold them against.
        body_bytes: The most that a body may become.
        threads: Predictions at once.
        most_rows: Most rows of requests that are predicted together.
        nan_as_null: Whether answers are strict JSON.
    """

    def __init__(
        self,
        connection: socket.socket,
        key: bytes,
        scorer: Scorer,
        features: Callable[..., FeatureLog] | None,
        drift: Sampler | None,
        *,
        body_bytes: int,
        threads: int,
        most_rows: int,
        nan_as_null: bool,
    ) -> None:
        self._connection, self._key, self._scorer = connection, key, scorer
        self._body_bytes, self._threads, self._most_rows = body_bytes, threads, most_rows
        self._nan_as_null, self._pid = nan_as_null, os.getpid()
        self._sending = threading.Lock()
        self._features = features(heard=self._tell) if features else None
        self._drift = drift
        scorer.observe = self._observe if self._features or drift else None

    def run(self) -> None:
        """Answers until the server closes the connection; then sends the last features."""
        self._send(Frame({"ready": os.getpid()}))
        if self._threads == 1:
            while frame := receive(self._connection, self._key):
                self._work(frame)
        else:
            with ThreadPoolExecutor(self._threads, "adroit-predict") as threads:
                while frame := receive(self._connection, self._key):
                    threads.submit(self._work, frame)
        if self._features is not None:
            self._features.close()

    def _work(self, frame: Frame) -> None:
        started = time.monotonic()
        jobs = [(dict(job), body) for job, body in frame.parts("jobs")]
        replies = self._answers(jobs)
        native.stay_behind_if_forked(self._pid)
        facts = [_told(job["id"], reply) for (job, _), reply in zip(jobs, replies, strict=True)]
        seconds = time.monotonic() - started
        body = b"".join(reply.body for reply in replies)
        self._send(Frame({"replies": facts, "seconds": seconds}, body))
        if self._drift and (counts := self._drift.counts()):
            self._send(Frame({"drift": counts}))

    def _answers(self, jobs: list[tuple[dict[str, Any], bytes]]) -> list[Reply]:
        bodies = [self._plain(body, job["encoding"]) for job, body in jobs]
        asked = [
            (body, job["content_type"], not job["probe"])
            for (job, _), body in zip(jobs, bodies, strict=True)
            if isinstance(body, bytes)
        ]
        if len(asked) > 1:
            answers = iter(self._scorer.answers(asked, self._most_rows))
        else:
            answers = iter([self._scorer.answer(*one) for one in asked])
        replies = [next(answers) if isinstance(body, bytes) else body for body in bodies]
        return [_strict(reply) for reply in replies] if self._nan_as_null else replies

    def _plain(self, body: bytes, encoding: str) -> bytes | Reply:
        try:
            return plain(body, encoding, self._body_bytes)
        except TooLargeError:
            message = f"The body is larger than {self._body_bytes} bytes."
            return failure(413, "REQUEST_LIMIT_EXCEEDED", message, fault="client")
        except UnknownEncodingError as error:
            message = f"The Content-Encoding {error} is not supported."
            return failure(415, "UNSUPPORTED_MEDIA_TYPE", message, fault="client")
        except ValueError as error:
            message = f"The body cannot be decompressed: {error}."
            return failure(400, "BAD_REQUEST", message, error, "client")

    def _observe(self, inputs: Any) -> None:
        if self._features:
            self._features.offer(inputs)
        if self._drift:
            self._drift.offer(inputs)

    def _tell(self, outcome: str) -> None:
        self._send(Frame({"features": outcome}))

    def _send(self, frame: Frame) -> None:
        with self._sending:
            self._connection.sendall(frame.encoded(self._key))


def _strict(reply: Reply) -> Reply:
    """Returns a reply with null for NaN and the infinities, which JSON does not have."""
    if reply.status != 200 or not (b"NaN" in reply.body or b"Infinity" in reply.body):
        return reply
    value = json.loads(reply.body, parse_constant=lambda _: None)
    return replace(reply, body=json.dumps(value).encode())


def _told(job_id: int, reply: Reply) -> dict[str, Any]:
    error = reply.error
    return {
        "id": job_id,
        "size": len(reply.body),
        "status": reply.status,
        "media_type": reply.media_type,
        "error_code": reply.error_code,
        "error_type": type(error).__name__ if error else None,
        "frames": frames_of(error) if error else None,
        "fault": reply.fault,
        "rows": reply.rows,
    }
