"""A share of the requests' features, sent to Datadog, so that drift can be seen.

    adroit.feature.value      distribution   the numbers of a numeric feature
    adroit.feature.category   count          of each value of a categorical feature, by ``value``
    adroit.feature.missing    count          of missing values of either

tagged by model, bundle_id and feature. Requests are chosen by one independent draw each, whatever
they hold, from a generator that a model's own seeding does not touch. Of a chosen request with more
than ``ROWS`` rows, that many are drawn evenly.

It never blocks and never fails a request: choosing is one comparison, a chosen request's inputs are
copied into a bounded queue, and a thread of its own does the rest. Where the queue is full, the
agent away or a value odd, the sample is dropped and counted.

Free text looks like a category, so what becomes a tag is bounded: short values, and ``CATEGORIES``
of them for each feature; all others are ``value:other``.
"""

from __future__ import annotations

import queue
import random
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from adroit.serving.features.dogstatsd import Agent, Sender, count, distribution, tag_list

if TYPE_CHECKING:
    import pandas as pd

ROWS = 1000
FEATURES = 500
CATEGORIES = 100
CATEGORY_CHARS = 64
_QUEUED_REQUESTS = 64
_CLOSE_TIMEOUT_S = 1.0


class FeatureLog:
    """Logs the features of a share of requests.

    Args:
        percent: Share of requests, in percent, from 0 to 100.
        tags: What every metric carries.
        agent: Where Datadog's agent listens.
        draw: A generator of the draws; one seeded by the system, by default.
        heard: Told of every outcome, ``sent`` or ``dropped``.
    """

    def __init__(
        self,
        percent: float,
        tags: Mapping[str, str],
        agent: Agent,
        draw: random.Random | None = None,
        heard: Callable[[str], None] = lambda outcome: None,
    ) -> None:
        self._share = percent / 100
        self._heard = heard
        self._draw = draw or random.Random()
        self._lines = FeatureLines(tags, self._draw)
        self._sender = Sender(agent)
        self._queue: queue.Queue[Any] = queue.Queue(_QUEUED_REQUESTS)
        self._counting = threading.Lock()
        self.outcomes: Counter[str] = Counter(sent=0, dropped=0)
        self._thread = threading.Thread(target=self._run, name="adroit-features", daemon=True)
        self._thread.start()

    def offer(self, inputs: Any) -> None:
        """Logs the features of one request, if it is drawn.

        Args:
            inputs: What the handler is about to get; copied here, for it may change them.
        """
        if self._draw.random() >= self._share:
            return
        try:
            self._queue.put_nowait(copied(inputs))
        except Exception:  # noqa: BLE001  full, or inputs that cannot be copied: no request fails
            self._count("dropped")

    def close(self) -> None:
        """Sends what is waiting and ends the thread, within a second."""
        try:
            self._queue.put(None, timeout=_CLOSE_TIMEOUT_S)
        except queue.Full:
            return
        self._thread.join(_CLOSE_TIMEOUT_S)

    def _run(self) -> None:
        while (inputs := self._queue.get()) is not None:
            try:
                sent = self._sender.send(self._lines.of(inputs))
            except Exception:  # noqa: BLE001  odd inputs lose their sample, not the thread
                sent = False
            self._count("sent" if sent else "dropped")
        self._sender.close()

    def _count(self, outcome: str) -> None:
        with self._counting:
            self.outcomes[outcome] += 1
        self._heard(outcome)


class FeatureLines:
    """Turns inputs into DogStatsD lines; remembers which categories it has named.

    Args:
        tags: What every line carries.
        draw: Draws the rows of a request that has many.
    """

    def __init__(self, tags: Mapping[str, str], draw: random.Random) -> None:
        self._tags = dict(tags)
        self._draw = draw
        self._categories: dict[str, set[str]] = {}

    def of(self, inputs: Any) -> Iterator[str]:
        """Yields the lines for one request's inputs; none for what has no columns.

        Args:
            inputs: (rows, features): a DataFrame, an array, or a dict of arrays.
        """
        for name, column in columns_of(inputs, self._draw.getrandbits(32)):
            tags = {**self._tags, "feature": name}
            missing = int(column.isna().sum())
            numbers, categories = numbers_and_categories(column)
            yield from distribution("adroit.feature.value", numbers, tag_list(tags))
            for value, times in Counter(self._named(name, text) for text in categories).items():
                yield count("adroit.feature.category", times, tag_list({**tags, "value": value}))
            if missing:
                yield count("adroit.feature.missing", missing, tag_list(tags))

    def _named(self, feature: str, value: str) -> str:
        known = self._categories.setdefault(feature, set())
        if value in known:
            return value
        if len(value) > CATEGORY_CHARS or len(known) >= CATEGORIES:
            return "other"
        known.add(value)
        return value


def columns_of(inputs: Any, seed: int | None) -> Iterator[tuple[str, pd.Series[Any]]]:
    """Yields the columns of a table by name, ``FEATURES`` at most; of a sparse matrix none.

    Args:
        inputs: (rows, features): a DataFrame, an array, or a dict of arrays.
        seed: Draws ``ROWS`` of more rows; None for all of them.
    """
    import pandas as pd

    # Without a seed pandas would draw from NumPy's global generator, which is the model's.
    most = ROWS if seed is not None else sys.maxsize
    if isinstance(inputs, dict):
        arrays = {key: values for key, values in inputs.items() if getattr(values, "ndim", 0) == 1}
        columns = ((str(key), pd.Series(values)) for key, values in arrays.items())
    elif getattr(inputs, "ndim", 0) in (1, 2) and not hasattr(inputs, "tocsr"):
        frame = inputs if isinstance(inputs, pd.DataFrame) else pd.DataFrame(inputs)
        frame = frame.sample(ROWS, random_state=seed) if len(frame) > most else frame
        columns = ((str(name), column) for name, column in frame.items())
    else:
        return
    for _, (name, column) in zip(range(FEATURES), columns, strict=False):
        yield name, (column.sample(ROWS, random_state=seed) if len(column) > most else column)


def numbers_and_categories(column: pd.Series[Any]) -> tuple[list[float], list[str]]:
    """Returns the finite numbers of a column, or its categories; one of them is empty."""
    import numpy as np
    import pandas as pd

    column = column.dropna()
    if pd.api.types.is_bool_dtype(column):
        return [], [str(value).lower() for value in column]
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_complex_dtype(column):
        numbers = column.to_numpy(dtype=float)
        return [float(number) for number in numbers[np.isfinite(numbers)]], []
    if isinstance(column.dtype, pd.CategoricalDtype):
        return [], [str(value) for value in column]
    return [], [value for value in column if isinstance(value, str)]


def copied(inputs: Any) -> Any:
    """Returns inputs that the model can no longer change."""
    if isinstance(inputs, dict):
        return {key: copied(values) for key, values in inputs.items()}
    return inputs.copy() if hasattr(inputs, "ndim") else inputs
