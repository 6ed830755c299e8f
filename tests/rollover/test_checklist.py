"""rollover.checklist: a box is ticked by what is true now, and says no more than was looked at."""

from __future__ import annotations

from dataclasses import replace

import pytest

from adroit_publish.rollover.checklist import boxes
from adroit_publish.rollover.evidence import Counts, Evidence, Publication
from adroit_publish.rollover.measured import incomparable
from adroit_publish.rollover.rules import Missing, next_step
from adroit_publish.rollover.state import Transition
from tests.rollover.test_measured import NOW_S, pointed, read


def rolled(*states, **facts):
    history = tuple(
        Transition(NOW_S, "ada", before, after)
        for before, after in zip((None, *states), states, strict=False)
    )
    return pointed(Counts(100, 0), **{"state": states[-1], "history": history, **facts})


@pytest.mark.parametrize(
    ("states", "share", "ticked"),
    [
        (("proposed", "verified", "pointing", "pointed"), 10.0, False),
        (("proposed", "verified", "pointing", "pointed"), 100.0, True),
        (("proposed", "verified", "pointing", "pointed", "draining"), 100.0, True),
        (("proposed", "verified", "pointing", "pointed", "held"), 100.0, True),
        (
            ("proposed", "verified", "pointing", "pointed", "rolling back", "rolled back"),
            0.0,
            False,
        ),
    ],
)
def test_the_sitevars_box_is_ticked_where_it_points_at_the_new_flavor_alone(states, share, ticked):
    box = boxes(rolled(*states, share=share))[2]
    assert box.done is ticked
    assert box.detail == f"now {'b' if share == 100 else 'a=90, b=10' if share else 'a'}"


@pytest.mark.parametrize(
    ("registry", "said"),
    [(True, "whole in the store and the registry"), (False, "whole in the store")],
)
def test_a_registry_is_named_only_where_there_is_one(registry, said):
    facts = Evidence(Publication(NOW_S, (), (), registry)).facts(["published"])
    begun = Transition(NOW_S, "ada", None, "proposed", facts=facts)
    assert boxes(replace(rolled("proposed"), history=(begun,)))[0].detail == said


@pytest.mark.parametrize(
    ("rollover", "reading", "said"),
    [
        (pointed(Counts(100, 0)), None, None),
        (pointed(Counts(0, 0)), None, "a had no request in the 600 s before the switch"),
        (pointed(), None, "what a did before the switch is not on record"),
        (rolled("verified", baseline=None), read(Counts(0, 0), Counts(0, 0)), "a had no request"),
        (rolled("verified", baseline=None), read(Counts(9, 0), Counts(0, 0)), None),
        (rolled("proposed", baseline=None), None, None),
        (rolled("drained", baseline=None), None, None),
    ],
)
def test_without_traffic_before_the_switch_there_is_nothing_to_compare_with(
    rollover, reading, said
):
    found = incomparable(rollover, reading)
    assert (found or "").startswith(said or "")
    assert (found is None) == (said is None)


@pytest.mark.parametrize(
    ("state", "verdict"),
    [("proposed", "refused"), ("pointing", "refused"), ("pointed", "refused"),
     ("draining", "waiting")],
)  # fmt: skip
def test_finish_is_refused_while_the_old_flavor_is_pointed_to_and_waits_while_it_drains(
    state, verdict
):
    step = next_step(rolled(state), Evidence(), NOW_S, who="w", command="finish")
    assert isinstance(step, Missing)
    assert {lack.verdict for lack in step.lacks} == {verdict}
