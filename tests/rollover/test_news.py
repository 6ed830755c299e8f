"""rollover.news: what people are told of a rollover."""

from __future__ import annotations

import pytest

from adroit_publish.rollover.checks import Checks
from adroit_publish.rollover.needs import Lack
from adroit_publish.rollover.news import news
from adroit_publish.rollover.state import Rollover, Side, Transition

CHECKS = Checks(("http://new",), None, ("prometheus:http://p",), 60.0, 0.01, 1e-6, 120.0)


def rollover(state, share, why=None):
    return Rollover(
        "0001", "m", Side("a", "v-old", "sha256:old"), Side("b", "v-new", "sha256:new"),
        (10.0, 100.0), CHECKS, state=state, shares=(share,),
        history=(Transition(0.0, "bob", "x", state, why),),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("now", "before", "lacks", "wanted"),
    [
        (rollover("pointed", 10.0), "pointing", (), "pointed, by bob; the sitevar says a=90, b=10"),
        (rollover("held", 10.0, "others"), "pointed", (), "held (others)"),
        (rollover("rolled back", 0.0, "p99 is up"), "pointed", (), "rolled back (p99 is up)"),
        (rollover("retired", 100.0), "retiring", (), "retired"),
        (rollover("deployed", 0.0), "proposed", (), None),
        (rollover("held", 10.0), "held", (Lack("unchanged", "x", "", "held"),), None),
        (rollover("pointed", 10.0), "pointed", (Lack("healthy", "3 of 50", ""),), None),
        (rollover("pointed", 10.0), "pointed", (Lack("healthy", "5 %", "", "unhealthy"),),
         "unhealthy: 5 %"),
        (rollover("pointed", 10.0), "pointed", (Lack("approved", "100 % waits", ""),),
         "rollover approve m --why TEXT"),
        (rollover("pointed", 10.0), "pointed",
         (Lack("healthy", "3 of 50", ""), Lack("approved", "100 % waits", "")), None),
    ],
)  # fmt: skip
def test_people_are_told_what_they_have_to_know(now, before, lacks, wanted):
    line = news(now, before, lacks)
    assert line is None if wanted is None else wanted in str(line)
