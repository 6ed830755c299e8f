"""Values that are made at most once, whichever thread asks first."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class Once:
    """Makes the value of each key when it is first asked for, and keeps it.

    Other threads that ask for the same key wait for it; those that ask for another key do not. An
    error is kept as well: what failed is not tried again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[Hashable, Future[Any]] = {}

    def __call__(self, key: Hashable, make: Callable[[], T]) -> T:
        """Returns the value of ``key``; raises what ``make`` raised."""
        with self._lock:
            future = self._values.get(key)
            first = future is None
            if future is None:
                future = self._values[key] = Future()
        if first:
            try:
                future.set_result(make())
            except BaseException as error:
                future.set_exception(error)
                raise
        value: T = future.result()
        return value
