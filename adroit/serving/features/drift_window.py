"""The features of the last hour's requests against those of X_test, for ``/metrics``.

A worker counts the rows of a request now and then, after it has answered: at most four requests a
second, and for at most a fiftieth of its time. The server adds up what its workers counted, in
twelve parts of the window, the oldest of which is forgotten at a time.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from adroit.serving.features.feature_log import copied
from adroit.serving.features.reference import Reference

LEAST_ROWS = 500
"""Of fewer, an index above 0.05 would be chance."""
_PARTS = 12
_PAUSE_S, _SHARE = 0.25, 1 / 50


class Sampler:
    """Counts the features of some of a worker's requests."""

    def __init__(self, reference: Reference, clock: Callable[[], float] = time.monotonic) -> None:
        self._reference, self._clock = reference, clock
        self._draw = random.Random()
        self._waiting: Any = None
        self._due = 0.0

    def offer(self, inputs: Any) -> None:
        """Keeps a copy of a request's inputs, where it is time to count some."""
        if self._waiting is None and self._clock() >= self._due:
            with suppress(Exception):  # inputs that cannot be copied fail no request
                self._waiting = copied(inputs)

    def counts(self) -> Mapping[str, list[int]] | None:
        """Returns the rows of the kept inputs by feature and bin; None where there are none."""
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return None
        started = self._clock()
        counts = None
        with suppress(Exception):  # nor do odd values
            counts = self._reference.count(waiting, self._draw.getrandbits(32))
        ended = self._clock()
        self._due = ended + max(_PAUSE_S, (ended - started) / _SHARE)
        return counts or None


class Window:
    """What the workers of a server counted lately.

    Args:
        reference: Of X_test.
        window_s: How far back it goes.
    """

    def __init__(
        self, reference: Reference, window_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._reference, self._part_s, self._clock = reference, window_s / _PARTS, clock
        self._parts: deque[tuple[float, dict[str, list[int]]]] = deque()

    def add(self, counts: Mapping[str, list[int]]) -> None:
        """Adds rows by feature and bin; what does not fit the reference is passed over.

        Raises:
            TypeError, ValueError: They are not counts; a model may have written them.
        """
        now = self._clock()
        if not self._parts or now - self._parts[-1][0] >= self._part_s:
            self._parts.append((now, {}))
        sums = self._parts[-1][1]
        for name, added in counts.items():
            feature = self._reference.features.get(name)
            if feature is None or len(added) != len(feature.counts):
                continue
            if not all(isinstance(rows, int) and rows >= 0 for rows in added):
                raise ValueError("not counts")
            before = sums.get(name) or [0] * len(added)
            sums[name] = [old + new for old, new in zip(before, added, strict=True)]

    def stability(self) -> Iterator[tuple[str, int, float | None]]:
        """Yields each feature's rows and its population stability index, None of few rows."""
        oldest = self._clock() - self._part_s * _PARTS
        while self._parts and self._parts[0][0] < oldest:
            self._parts.popleft()
        for name, feature in self._reference.features.items():
            parts = [sums[name] for _, sums in self._parts if name in sums]
            counts = [sum(bins) for bins in zip(*parts, strict=True)]
            rows = sum(counts)
            yield name, rows, feature.stability(counts) if rows >= LEAST_ROWS else None
