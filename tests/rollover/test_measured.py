"""rollover.measured: a step needs its sample, and is compared with what was before the switch."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adroit_publish.rollover.checks import Bound, Checks
from adroit_publish.rollover.evidence import (
    Counts,
    EndpointsRead,
    Evidence,
    FlavorsRead,
    PointerRead,
    Publication,
    TrafficRead,
)
from adroit_publish.rollover.health import UNBOUNDED_S
from adroit_publish.rollover.measured import Unhealthy, baseline, health, remembered
from adroit_publish.rollover.rules import Advance, Missing, next_step
from adroit_publish.rollover.state import Approval, Rollover, Side, Transition
from adroit_publish.rollovers.book import pointed_step

NOW_S = 1_000_000.0
CHECKS = Checks(
    ("http://new",), None, ("prometheus:http://p",), 60.0, 0.01, 1e-6, 120.0,
    min_requests=50, bake_s=300.0, confidence=0.99, latency_margin=1.0,
)  # fmt: skip


def read(old, new, window_s=600.0, **facts):
    return TrafficRead(NOW_S, window_s, old, new, source_s=NOW_S, **facts)


def pointed(before=None, share=100.0, **facts):
    """A rollover whose step began ten minutes ago."""
    kept = baseline(read(before, Counts(0, 0))) if before else None
    rollover = Rollover(
        "0001", "m", Side("a", "v-old", "sha256:old"), Side("b", "v-new", "sha256:new"),
        (10.0, 50.0, 100.0), CHECKS, state="pointed", shares=(share,), moved_s=NOW_S - 600,
        sample_s=NOW_S - 600, baseline=kept, history=(Transition(NOW_S - 700, "me", None, "x"),),
    )  # fmt: skip
    return replace(rollover, **facts)


def test_callers_that_send_bad_rows_to_both_do_not_wedge_it():
    """Fault 7: at 100 % the old one has no request, so its share of errors was 0 for ever."""
    before = Counts(400, 20, caller_errors=20)
    reading = read(old=Counts(0, 0), new=Counts(440, 20, caller_errors=20))
    assert health(pointed(before), reading) is None


def test_1_to_10_to_50_to_100_percent_is_not_done_on_6_requests():
    """Fault 8: 13 seconds, on 2, 3 and 6 requests."""
    for requests in (2, 3, 6):
        found = health(pointed(Counts(400, 0)), read(Counts(40, 0), Counts(requests, 0), 4.0))
        assert f"had {requests} of 50 requests in 4 s" in str(found)
    enough = read(Counts(40, 0), Counts(60, 0), 4.0)
    assert health(pointed(Counts(400, 0)), enough) == "b was watched for 4 of 300 s"
    assert health(pointed(Counts(400, 0)), read(Counts(40, 0), Counts(60, 0))) is None


@pytest.mark.parametrize(
    ("before", "since", "new", "wanted"),
    [
        (Counts(9000, 0), Counts(0, 0), Counts(60, 0), None),
        (Counts(9000, 0), Counts(0, 0), Counts(60, 30), "unhealthy"),
        (Counts(9000, 0), Counts(0, 0), Counts(12, 12), "unhealthy"),  # no need to wait for 50
        (Counts(9000, 0), Counts(0, 0), Counts(5, 5), "had 5 of 50"),
        (Counts(9000, 0), Counts(0, 0), Counts(60, 2), "not clear yet"),
        # 4xx: the new one refuses what the old one took.
        (Counts(9000, 90, 90), Counts(0, 0), Counts(600, 300, 300), "unhealthy"),
        # As many failures, and now by its own fault.
        (Counts(9000, 900, 900), Counts(0, 0), Counts(600, 60, 0), "unhealthy"),
        # What hits both at once is not the new one's fault.
        (Counts(9000, 0), Counts(600, 60), Counts(600, 60), None),
        (Counts(9000, 0), Counts(3, 3), Counts(600, 60), "unhealthy"),  # 3 excuse nothing
        # Nothing before to compare with: the margin alone.
        (Counts(0, 0), Counts(0, 0), Counts(600, 3), None),
        (Counts(0, 0), Counts(0, 0), Counts(600, 60), "unhealthy"),
    ],
)
def test_errors_are_compared_with_those_before_the_switch(before, since, new, wanted):
    found = health(pointed(before), read(since, new))
    if wanted is None:
        assert found is None
    elif wanted == "unhealthy":
        assert isinstance(found, Unhealthy)
    else:
        assert wanted in str(found)
        assert not isinstance(found, Unhealthy)


def test_a_slower_version_is_unhealthy():
    fast = ((0.01, 1000.0), (0.1, 1000.0), (0.5, 1000.0), (UNBOUNDED_S, 1000.0))
    slow = ((0.01, 0.0), (0.1, 100.0), (0.5, 1000.0), (UNBOUNDED_S, 1000.0))
    before = Counts(1000, 0, latency=fast)
    assert health(pointed(before), read(Counts(0, 0), Counts(1000, 0, latency=fast))) is None
    found = health(pointed(before), read(Counts(0, 0), Counts(1000, 0, latency=slow)))
    assert isinstance(found, Unhealthy)
    assert "p50 is new" in found.found


@pytest.mark.parametrize(
    ("values", "wanted"),
    [((4.0,), None), ((6.0,), "out of its bounds"), ((), "no answer yet"),
     ((float("nan"),), "no answer yet"), ((1.0, 9.0), "out of its bounds")],
)  # fmt: skip
def test_the_users_own_checks_have_a_bound(values, wanted):
    checks = replace(CHECKS, bounds=(Bound("queue", "max(queue_length)", most=5.0),))
    reading = read(Counts(0, 0), Counts(600, 0), answers={"max(queue_length)": values})
    found = health(pointed(Counts(9000, 0), checks=checks), reading)
    assert wanted in str(found) if wanted else found is None
    assert isinstance(found, Unhealthy) == (wanted == "out of its bounds")


def test_a_reading_of_before_the_switch_or_of_nothing_proves_nothing():
    good = Counts(9000, 0)
    assert "nothing was counted yet" in str(health(pointed(good, sample_s=None), read(good, good)))
    assert "nothing was counted yet" in str(health(pointed(good, sample_s=NOW_S), read(good, good)))
    assert "before the sitevar" in str(health(pointed(good), read(good, good, 601.0)))
    holes = read(good, good, 0.0, notes=("Prometheus has no samples from 1 to 2",))
    assert "no samples from 1 to 2" in str(health(pointed(good), holes))
    short = read(good, Counts(60, 0), 20.0, notes=("a hole",))
    assert health(pointed(good), short) == "b was watched for 20 of 300 s; a hole"


def step(rollover, reading, now_s=NOW_S, **facts):
    evidence = Evidence(
        flavors=FlavorsRead(now_s, "v-old", "v-new", None),
        pointer=PointerRead(now_s, rollover.weights(rollover.shares[0])),
        traffic=reading,
        **facts,
    )
    return next_step(rollover, evidence, now_s, who="me")


def test_what_is_worse_is_told_apart_from_what_waits():
    bad = step(pointed(Counts(9000, 0)), read(Counts(0, 0), Counts(600, 300)))
    assert isinstance(bad, Missing)
    assert [lack.verdict for lack in bad.lacks] == ["unhealthy"]
    waits = step(pointed(Counts(9000, 0)), read(Counts(0, 0), Counts(5, 0)))
    assert isinstance(waits, Missing)
    assert [lack.verdict for lack in waits.lacks] == ["waiting"]


def test_a_reading_from_the_future_is_none():
    reading = replace(read(Counts(0, 0), Counts(600, 0)), utc_s=NOW_S + 60)
    found = step(pointed(Counts(9000, 0)), reading)
    assert isinstance(found, Missing)
    assert "a clock is wrong" in found.lacks[0].found
    assert isinstance(step(pointed(Counts(9000, 0)), read(Counts(0, 0), Counts(600, 0))), Advance)


def draining(**facts):
    return pointed(state="draining", checks=replace(CHECKS, quiet_s=3600.0), **facts)


@pytest.mark.parametrize(
    ("old", "window_s", "why"),
    [
        (0, 3599.0, "a is quiet for 3599 of 3600 s"),
        (0, 0.0, "nothing is proven"),
        (1, 9000.0, "1 request"),
    ],
)
def test_it_has_drained_only_after_all_of_the_quiet_time(old, window_s, why):
    """Whatever is not watched for that long is not quiet: `finish` deletes after it."""
    reading = read(Counts(old, 0), Counts(600, 0), window_s)
    found = step(draining(moved_s=NOW_S - 9000, sample_s=NOW_S - 9000), reading)
    assert isinstance(found, Missing)
    assert why in str(found)


def test_after_all_of_the_quiet_time_it_has_drained():
    reading = read(Counts(0, 0), Counts(600, 0), 3600.0)
    found = step(draining(moved_s=NOW_S - 9000, sample_s=NOW_S - 9000), reading)
    assert isinstance(found, Advance)
    assert found.rollover.state == "drained"


def test_the_ledger_names_the_rollovers_versions_and_their_shares():
    entry = pointed_step(pointed(share=10.0), "pointed", 1, "me", "a reason")
    assert entry.facts["live"] == [
        {"flavor": "a", "version": "v-old", "weight": 90.0},
        {"flavor": "b", "version": "v-new", "weight": 10.0},
    ]


def test_the_errors_of_before_the_switch_are_kept_at_the_switch():
    reading = read(Counts(9000, 45), Counts(600, 0))
    answers = EndpointsRead(NOW_S, True, True)
    proven = Publication(NOW_S, (), ())
    found = step(pointed(share=10.0), reading, endpoints=answers, published=proven)
    assert isinstance(found, Advance), found
    assert (found.rollover.state, found.rollover.baseline) == ("pointing", baseline(reading))


def test_the_old_version_is_counted_before_the_first_switch():
    verified = pointed(state="verified", shares=(0.0,), moved_s=None, sample_s=None)
    needs = {lack.evidence for lack in step(verified, None).lacks}
    assert "counted" in needs


def test_a_share_that_waits_for_a_person_waits():
    checks = replace(CHECKS, approve_at=(50.0,))
    rollover = pointed(Counts(9000, 0), share=10.0, checks=checks)
    found = step(rollover, read(Counts(60, 0), Counts(600, 0)))
    assert "50 % waits for a person" in str(found)
    given = replace(rollover, approvals=(Approval(NOW_S, "eve", "looked", 50.0),))
    assert "waits for a person" not in str(step(given, read(Counts(60, 0), Counts(600, 0))))
    at_100 = replace(given, shares=(50.0,))
    assert "waits for a person" not in str(step(at_100, read(Counts(60, 0), Counts(600, 0))))


@given(st.integers(0, 49), st.floats(0, 299.9), st.booleans())
def test_no_step_is_taken_on_less_than_its_sample(requests, window_s, enough_requests):
    new = Counts(600 if enough_requests else requests, 0)
    reading = read(Counts(0, 0), new, window_s if enough_requests else 600.0)
    assert health(pointed(Counts(9000, 0)), reading) is not None


def test_looks_are_kept_once_a_minute_and_few_of_them():
    rollover = pointed(Counts(9000, 0), sample_s=None)
    for n in range(1000):
        reading = replace(read(Counts(1, 0), Counts(2, 0)), source_s=NOW_S + 30 * n)
        rollover = remembered(rollover, Evidence(traffic=reading), None)
    assert rollover.sample_s == NOW_S  # the first reading after the switch
    assert 100 < len(rollover.samples) <= 240
    assert rollover.samples[-1]["new"]["requests"] == 2
