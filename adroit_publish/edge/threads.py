"""Threads that share one piece of work: the first failure ends all of it, and is what is raised."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Stopped(Exception):
    """Ends a thread because the work that it is part of has failed elsewhere."""


class Together:
    """Threads for one piece of work; a context that ends when all of them have.

    Where one fails, what was not begun never begins, and the others end as soon as they tell of
    progress. The context then raises that failure, as it would if its own body had failed. A
    failure of the threads ``beside`` these ends both.
    """

    def __init__(self, count: int, name: str, beside: Together | None = None) -> None:
        self._pool = ThreadPoolExecutor(count, name)
        self._stop: threading.Event = beside._stop if beside else threading.Event()
        self._failures: list[BaseException] = beside._failures if beside else []
        self._futures: list[Future[object]] = []

    def start(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Does ``work`` in a thread, unless the whole has failed before it is begun."""

        def run() -> T:
            self.heed()
            try:
                return work(*args, **kwargs)
            except BaseException as error:
                if not self._stop.is_set():
                    self._failures.append(error)
                    self._stop.set()
                raise

        future = self._pool.submit(run)
        self._futures.append(future)  # type: ignore[arg-type]  # a Future is covariant in fact
        return future

    def heed(self) -> None:
        """Raises Stopped where the whole has failed."""
        if self._stop.is_set():
            raise Stopped

    def wait(self, pause_s: float) -> None:
        """Waits for that long; raises Stopped as soon as the whole has failed."""
        if self._stop.wait(pause_s):
            raise Stopped

    def heeding(self, progress: Callable[[int], None]) -> Callable[[int], None]:
        """Returns ``progress`` that raises Stopped where the whole has failed."""

        def heard(size_bytes: int) -> None:
            self.heed()
            progress(size_bytes)

        return heard

    def __enter__(self) -> Together:
        return self

    def __exit__(
        self, _kind: object, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                wait(self._futures)
        except BaseException:  # Ctrl-C while it waits
            self._stop.set()
            raise
        finally:
            if error is not None:
                self._stop.set()
            self._pool.shutdown(cancel_futures=self._stop.is_set())
        if self._failures and (error is None or isinstance(error, Stopped | CancelledError)):
            raise self._failures[0]
