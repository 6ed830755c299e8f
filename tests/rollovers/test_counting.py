"""rollovers.counting: for which time a source is asked in each state, and what its answer proves.

A source of traffic of our own stands in ``SOURCES`` under a scheme of its own, as any other does.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from adroit_publish.errors import ConfigError
from adroit_publish.evidence.sources import SOURCES
from adroit_publish.evidence.traffic import TrafficReading
from adroit_publish.rollover.checks import Bound, Checks
from adroit_publish.rollover.evidence import Counts
from adroit_publish.rollover.state import Rollover, Side, Transition
from adroit_publish.rollovers.counting import BEFORE_S, LONGEST_S, NoEvidence, count_traffic

NOW_S = 1_795_840_000.0
OLD, NEW = Side("a", "v1", "sha256:" + "1" * 64), Side("b", "v2", "sha256:" + "2" * 64)
CHECKS = Checks(
    ("http://new",), None, ("ledger:here",), 60.0, 0.01, 1e-6, 120.0,
    bake_s=600.0, bounds=(Bound("share", "new / old of $new, $old, $new", None, 5.0),),
)  # fmt: skip


class Book:
    """A source that answers from what it was given, and keeps what it was asked."""

    watches = True

    def __init__(self, by_bundle, problems=()):
        self.by_bundle, self.problems, self.asked = by_bundle, problems, []
        self.state = None

    def read(self, bundle_ids, window_s, since_s=None, questions=()):
        self.asked.append((tuple(bundle_ids), window_s, since_s, tuple(questions)))
        self.state = {"looks": (self.state or {}).get("looks", 0) + 1}
        answers = {question: (float(number),) for number, question in enumerate(questions)}
        at = datetime.fromtimestamp(NOW_S, UTC)
        return TrafficReading(at, window_s, self.by_bundle, self.problems, NOW_S + 7, answers)


@pytest.fixture
def book(monkeypatch):
    book = Book({OLD.bundle_id: Counts(9, 1), NEW.bundle_id: Counts(3, 0)})

    def opened(urls, state):
        assert urls == ["here"]
        book.state = state
        return book

    monkeypatch.setitem(SOURCES, "ledger", opened)
    return book


def rollover(state, *past, **facts):
    history = tuple(Transition(NOW_S, "ada", None, after) for after in (*past, state))
    facts = {"state": state, "history": history, **facts}
    return Rollover("0001", "m", OLD, NEW, (100.0,), CHECKS, **facts)


@pytest.mark.parametrize(
    ("state", "window_s", "asks"),
    [
        ("proposed", BEFORE_S, False),
        ("deployed", BEFORE_S, False),
        ("verified", BEFORE_S, False),
        ("pointing", 60.0, False),
        ("pointed", LONGEST_S, True),
        ("draining", 60.0, False),
        ("drained", 60.0, False),
        ("retiring", 60.0, False),
    ],
)
def test_each_state_asks_for_its_own_time_and_only_a_step_asks_the_users_questions(
    book, state, window_s, asks
):
    read, watch = count_traffic(rollover(state, counters={"looks": 4}))
    question = f"new / old of {NEW.bundle_id}, {OLD.bundle_id}, {NEW.bundle_id}"
    both = (OLD.bundle_id, NEW.bundle_id)
    assert book.asked == [(both, window_s, None, (question,) if asks else ())]
    assert (read.old, read.new, read.window_s) == (Counts(9, 1), Counts(3, 0), window_s)
    assert (read.utc_s, read.source_s) == (NOW_S, NOW_S + 7)
    assert read.answers == ({"new / old of $new, $old, $new": (0.0,)} if asks else {})
    assert watch == {"looks": 5}


def test_a_step_that_bakes_for_longer_than_a_day_is_watched_for_as_long(book):
    long = replace(CHECKS, bake_s=2 * LONGEST_S)
    count_traffic(replace(rollover("pointed"), checks=long))
    assert book.asked[0][1] == 2 * LONGEST_S


def test_nothing_from_before_the_sample_is_asked_for(book):
    count_traffic(rollover("draining", sample_s=NOW_S - 20))
    assert book.asked[0][2] == NOW_S - 20


@pytest.mark.parametrize(("side", "name"), [(OLD, "a (v1)"), (NEW, "b (v2)")])
def test_a_version_that_no_server_was_ever_counted_of_is_no_evidence_and_the_watch_goes_on(
    book, side, name
):
    del book.by_bundle[side.bundle_id]
    book.problems = ("a hole",)
    with pytest.raises(NoEvidence, match="ever counted") as raised:
        count_traffic(rollover("pointed"))
    assert str(raised.value) == f"a hole; no server of {name} was ever counted"
    assert raised.value.counters == {"looks": 1}


def test_that_a_source_forgot_the_old_version_since_it_drained_wedges_nothing(book):
    del book.by_bundle[OLD.bundle_id]
    read, _ = count_traffic(rollover("drained", "draining"))
    assert read.old == Counts(0, 0)
    with pytest.raises(NoEvidence, match=r"a \(v1\)"):
        count_traffic(rollover("draining", "pointed"))
    del book.by_bundle[NEW.bundle_id]
    with pytest.raises(NoEvidence, match=r"b \(v2\)"):
        count_traffic(rollover("drained", "draining"))


def test_a_source_that_is_not_known_is_told(book):
    other = replace(CHECKS, traffic=("abacus:here",))
    with pytest.raises(ConfigError, match="one kind of place"):
        count_traffic(replace(rollover("pointed"), checks=other))
    assert book.asked == []
