"""rollover.shares and rollover.health: what is proven of two versions' requests, against scipy."""

from __future__ import annotations

from math import sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from adroit_publish.rollover.health import UNBOUNDED_S, at_quantile, errors, latencies, worst
from adroit_publish.rollover.shares import CONFIDENCE, FEWEST, Proportion, compare, excess

CONFIDENCES = st.sampled_from([0.8, 0.95, 0.99, 0.999])
NONE = Proportion(0, 0)


@st.composite
def shares(draw, most=3000):
    whole = draw(st.integers(1, most))
    return Proportion(draw(st.integers(0, whole)), whole)


@given(shares(), CONFIDENCES)
def test_a_shares_interval_is_wilsons(share, confidence):
    wanted = stats.binomtest(share.part, share.whole).proportion_ci(confidence, method="wilson")
    assert share.interval(confidence) == pytest.approx((wanted.low, wanted.high), abs=1e-9)


@given(shares(), shares(), CONFIDENCES)
def test_the_difference_has_newcombes_interval(new, old, confidence):
    """By its definition in the paper, on scipy's own Wilson intervals."""
    (l1, u1), (l2, u2) = (
        stats.binomtest(side.part, side.whole).proportion_ci(confidence, method="wilson")
        for side in (new, old)
    )
    seen = new.value - old.value
    low = seen - sqrt((new.value - l1) ** 2 + (u2 - old.value) ** 2)
    high = seen + sqrt((u1 - new.value) ** 2 + (old.value - l2) ** 2)
    assert excess(new, old, confidence) == pytest.approx((low, high), abs=1e-7)


@pytest.mark.parametrize(
    ("new", "old", "low", "high"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),  # the paper's Table II, columns (a) to (h), method 10
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((5, 56), (0, 29), -0.0381, 0.1926),
        ((0, 10), (0, 10), -0.2775, 0.2775),
        ((10, 10), (0, 10), 0.6075, 1.0),
    ],
)
def test_the_papers_own_examples_come_out(new, old, low, high):
    assert excess(Proportion(*new), Proportion(*old), 0.95) == pytest.approx((low, high), abs=6e-5)


@given(shares(), shares(), st.floats(0, 0.2), CONFIDENCES)
def test_worse_is_never_said_of_what_was_not_seen(new, old, margin, confidence):
    answer = compare(new, old, margin, confidence)
    if answer == "worse":
        assert new.value - old.value > margin
        assert new.whole >= FEWEST
    assert (answer == "alike") == (new.value - old.value <= margin)


@given(st.sampled_from([0.0, 0.01, 0.05, 0.3]), st.integers(0, 2**32 - 1))
def test_a_version_that_is_no_worse_is_seldom_called_worse(share, seed):
    """1,000 pairs that differ by chance alone; the test is wrong in half a percent of them."""
    draws = stats.binom.rvs(500, share, size=(1000, 2), random_state=seed)
    wrong = sum(
        compare(Proportion(int(n), 500), Proportion(int(o), 500), 0, CONFIDENCE) == "worse"
        for n, o in draws
    )
    assert wrong <= 25


@given(st.integers(0, 2**32 - 1))
def test_a_version_that_fails_ten_times_as_often_is_called_worse(seed):
    old, new = stats.binom.rvs(1000, [0.01, 0.1], random_state=seed)
    assert (
        compare(Proportion(int(new), 1000), Proportion(int(old), 1000), 0.01, CONFIDENCE) == "worse"
    )


def test_without_requests_of_the_old_one_the_margin_alone_is_compared_with():
    assert compare(Proportion(0, 500), NONE, 0.01, CONFIDENCE) == "alike"
    assert compare(Proportion(6, 500), NONE, 0.01, CONFIDENCE) == "open"
    assert compare(Proportion(100, 500), NONE, 0.01, CONFIDENCE) == "worse"


def test_a_few_failures_on_few_requests_prove_nothing_yet():
    assert compare(Proportion(3, 3), NONE, 0.01, CONFIDENCE) == "open"
    assert compare(Proportion(10, 10), Proportion(0, 1000), 0.01, CONFIDENCE) == "worse"


def test_callers_that_send_bad_rows_to_both_are_not_the_new_ones_fault():
    """The lab's numbers: 4.55 % of 66 requests, and 5 % of those to the old one before."""
    found = errors("failed", Proportion(3, 66), Proportion(20, 400), 0.01, CONFIDENCE)
    assert found.answer == "alike"
    assert "4.55% of 66 requests failed, before: 5.00% of 400" in found.text


# Latency.


def buckets(*counts, bounds=(0.1, 0.25, 0.5, 1.0, 10.0, UNBOUNDED_S)):
    """Cumulative counts from counts by bucket."""
    return tuple((bound, float(sum(counts[: n + 1]))) for n, bound in enumerate(bounds))


OLD = buckets(0, 900, 95, 5, 0, 0)  # p50 within 250 ms, p99 within 500 ms


@pytest.mark.parametrize(
    ("new", "answers"),
    [
        (buckets(0, 900, 95, 5, 0, 0), ["alike", "alike"]),
        (buckets(0, 0, 1000, 0, 0, 0), ["alike", "alike"]),  # perhaps slower by little
        (buckets(0, 0, 0, 1000, 0, 0), ["worse", "alike"]),  # p50 beyond 500 ms
        (buckets(0, 900, 0, 0, 100, 0), ["alike", "worse"]),  # a tenth beyond a second
        (buckets(0, 50, 0, 0, 1, 0), ["alike", "open"]),  # one of 51
        (buckets(0, 0, 0, 0, 0, 9), ["open", "open"]),  # all of 9 beyond every bound
    ],
)
def test_slower_is_what_whole_buckets_prove(new, answers):
    assert [found.answer for found in latencies(new, OLD, 0.5, CONFIDENCE)] == answers


def test_less_than_a_machines_mood_is_not_slower():
    bounds = (0.001, 0.0025, 0.005, 0.01, 0.05, UNBOUNDED_S)
    fast, slower = (
        buckets(1000, 0, 0, 0, 0, 0, bounds=bounds),
        buckets(0, 0, 0, 0, 1000, 0, bounds=bounds),
    )
    assert {found.answer for found in latencies(slower, fast, 0.5, CONFIDENCE)} == {"alike"}


def test_without_a_sample_of_the_old_one_latency_is_not_compared():
    assert list(latencies(OLD, (), 0.5, CONFIDENCE)) == []
    assert list(latencies((), OLD, 0.5, CONFIDENCE)) == []
    of_50 = buckets(0, 50, 0, 0, 0, 0)
    assert [found.text[:3] for found in latencies(OLD, of_50, 0.5, CONFIDENCE)] == ["p50"]


def test_what_is_worse_is_told_before_what_is_open():
    slow = list(latencies(buckets(0, 400, 0, 0, 600, 0), OLD, 0.5, CONFIDENCE))
    open_one = errors("failed", Proportion(1, 9), NONE, 0.01, CONFIDENCE)
    found = worst([open_one, *slow])
    assert found
    assert (found.answer, found.text[:3]) == ("worse", "p50")
    assert worst([]) is None


@given(st.lists(st.integers(0, 100), min_size=6, max_size=6).filter(any), st.floats(0.01, 1))
def test_a_quantile_lies_in_the_bucket_that_has_it(counts, quantile):
    cumulative = buckets(*counts)
    at = at_quantile(cumulative, quantile)
    assert at is not None
    rank = quantile * cumulative[-1][1]
    index = next(n for n, (_, count) in enumerate(cumulative) if count >= rank)
    low = cumulative[index - 1][0] if index else 0.0
    assert low <= at <= max(low, min(cumulative[index][0], 10.0))
