"""What every source of traffic promises, whatever keeps its counts; see ``evidence.traffic``.

A ``Counted`` is a source with something to count behind it. ``tests/evidence/test_source_contract``
runs these for each.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import pytest

from adroit_publish.errors import StoreError
from adroit_publish.evidence.traffic import Traffic, TrafficReading

NOBODY = "sha256:" + "0" * 64
PATIENCE_S = 60


class Counted(Protocol):
    """A source, and the server of one bundle that it counts."""

    served: str

    def source(self) -> Traffic:
        """Returns the source, as another process would open it."""
        ...

    def away(self) -> Traffic:
        """Returns the source where nothing answers."""
        ...

    def ask(self, good: int, bad: int) -> None:
        """Sends requests; a bad one is answered with 400."""
        ...

    def fail(self, callers: int, model: int) -> None:
        """Sends requests that end with 400: by the callers' fault, and by the model's own."""
        ...


def read_until(
    counted: Counted, condition: Callable[[TrafficReading], bool], *arguments: Any
) -> TrafficReading:
    """Returns the first reading that meets the condition."""
    end = time.monotonic() + PATIENCE_S
    reading = None
    while time.monotonic() < end:
        reading = counted.source().read([counted.served, NOBODY], *arguments)
        if condition(reading):
            return reading
        time.sleep(0.2)
    raise AssertionError(reading)


def counts_what_came_since_and_tells_failures_apart(counted: Counted) -> None:
    counted.ask(2, 1)
    first = read_until(
        counted, lambda got: counted.served in got.by_bundle and got.window_s >= 1, 600.0
    )
    counted.ask(3, 2)
    later = read_until(
        counted,
        lambda got: got.by_bundle[counted.served].requests >= 5 and got.source_s > first.source_s,
        600.0,
        first.source_s,
    )
    mine = later.by_bundle[counted.served]
    assert (mine.requests, mine.errors, mine.caller_errors, mine.server_errors) == (5, 2, 2, 0)
    assert later.window_s <= later.source_s - first.source_s + 0.001
    assert json.loads(json.dumps(later.as_dict()))["by_bundle"][counted.served]["requests"] == 5


def tells_a_models_own_failures_from_its_callers(counted: Counted) -> None:
    """MLflow's contract answers a model's exception with 400, as it does a bad request."""
    counted.ask(1, 0)
    first = read_until(
        counted, lambda got: counted.served in got.by_bundle and got.window_s >= 1, 600.0
    )
    counted.fail(callers=1, model=2)
    later = read_until(
        counted,
        lambda got: got.by_bundle[counted.served].requests >= 3 and got.source_s > first.source_s,
        600.0,
        first.source_s,
    )
    mine = later.by_bundle[counted.served]
    assert (mine.requests, mine.errors, mine.caller_errors, mine.server_errors) == (3, 3, 1, 2)


def does_not_know_a_bundle_that_nobody_served(counted: Counted) -> None:
    counted.ask(1, 0)
    reading = read_until(counted, lambda got: counted.served in got.by_bundle, 600.0)
    assert NOBODY not in reading.by_bundle


def tells_no_time_to_come(counted: Counted) -> None:
    counted.ask(1, 0)
    reading = read_until(counted, lambda got: counted.served in got.by_bundle, 600.0)
    assert reading.utc <= datetime.now(UTC) + timedelta(seconds=1)
    beyond = counted.source().read([counted.served], 600.0, reading.source_s + 86400)
    assert beyond.window_s <= 0
    assert (
        beyond.by_bundle.get(counted.served) is None
        or not beyond.by_bundle[counted.served].requests
    )


def can_be_asked_again_where_nothing_answers(counted: Counted) -> None:
    with pytest.raises(StoreError) as error:
        counted.away().read([counted.served], 60.0)
    assert error.value.transient


def refuses_a_question_that_makes_no_sense(counted: Counted) -> None:
    for bundle_ids, window_s in ((['x"} or up{a="'], 60.0), ([], 60.0), ([NOBODY], 0.0)):
        with pytest.raises(ValueError, match=r"bundle ids|window"):
            counted.source().read(bundle_ids, window_s)


PROMISES = (
    counts_what_came_since_and_tells_failures_apart,
    tells_a_models_own_failures_from_its_callers,
    does_not_know_a_bundle_that_nobody_served,
    tells_no_time_to_come,
    can_be_asked_again_where_nothing_answers,
    refuses_a_question_that_makes_no_sense,
)
