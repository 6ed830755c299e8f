"""A rollover as it is kept: what yesterday's code wrote goes on, what tomorrow's wrote is left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adroit_publish.errors import VerificationError
from adroit_publish.rollover.rules import commands
from adroit_publish.rollover.state import ENDED, LIVE, parse_rollover

SAMPLES = Path(__file__).parent / "samples"
NAMES = sorted(path.stem.removeprefix("rollover_") for path in SAMPLES.glob("rollover_*.json"))

SINCE_SCHEMA_2 = {
    *("amendments", "approvals", "answered", "baseline", "samples"),
    *("sample_s", "told", "region", "ahead"),
    *("old_urls", "min_requests", "bake_s", "confidence", "latency_margin", "bounds"),
    *("approve_at", "by_region"),
}


def sample(name):
    return json.loads((SAMPLES / f"rollover_{name}.json").read_bytes())


def kept(rollover):
    """What a trip through the store makes of it."""
    return json.loads(json.dumps(rollover.as_dict()))


@pytest.mark.parametrize("name", NAMES)
def test_a_rollover_of_the_first_release_is_read_and_goes_on(name):
    value = sample(name)
    rollover = parse_rollover(value, "here")
    assert rollover.state.replace(" ", "_") == name.removesuffix("_100")
    assert rollover.live == bool(commands(rollover))
    assert rollover.checks.traffic == ("metrics:http://old:8080", "metrics:http://new:8080")
    again = kept(rollover)
    assert parse_rollover(again, "here") == rollover
    assert again.pop("schema") == 3
    assert again["checks"].pop("traffic")
    assert without(again, SINCE_SCHEMA_2) == {key: value[key] for key in value.keys() - {"schema"}}


@pytest.mark.parametrize(
    "path", sorted((SAMPLES / "schema2").iterdir()), ids=lambda path: path.stem
)
def test_a_rollover_of_schema_2_is_read_and_goes_on(path):
    value = json.loads(path.read_bytes())
    rollover = parse_rollover(value, "here")
    assert (rollover.checks.min_requests, rollover.checks.bake_s) == (0, 0)
    assert rollover.answered is None
    again = kept(rollover)
    assert parse_rollover(again, "here") == rollover
    assert without(again, SINCE_SCHEMA_2) | {"schema": 2} == value


def without(value, names):
    """The document as it was before it had the fields ``names``, in the checks too."""
    checks = {key: value["checks"][key] for key in value["checks"].keys() - names}
    return {key: value[key] for key in value.keys() - names} | {"checks": checks}


def test_the_samples_are_of_every_state_that_a_rollover_rests_in():
    states = {sample(name)["state"] for name in NAMES}
    assert states >= {*LIVE, *ENDED} - {"abandoned"}


@pytest.mark.parametrize("name", ["replicas", "metrics", "prometheus"])
def test_a_check_that_was_not_there_yet_has_its_default(name):
    value = sample("pointed")
    del value["checks"][name]
    rollover = parse_rollover(value, "here")
    assert rollover.state == "pointed"
    assert rollover.checks.quiet_s == 300


@pytest.mark.parametrize("name", ["counters", "resume", "moved_s", "goal", "history"])
def test_a_field_that_was_not_there_yet_has_its_default(name):
    value = sample("pointed")
    del value[name]
    assert not getattr(parse_rollover(value, "here"), name)


@pytest.mark.parametrize("part", [(), ("checks",), ("old",), ("history", 0)])
def test_a_field_that_is_not_known_is_of_a_newer_version(part):
    value = sample("pointed")
    inner = value
    for key in part:
        inner = inner[key]
    inner["colour"] = 500
    with pytest.raises(VerificationError, match=r"(?s)newer version.*colour.*update this"):
        parse_rollover(value, "here")


def test_a_newer_number_is_of_a_newer_version():
    with pytest.raises(VerificationError, match=r"(?s)newer version.*schema 4.*update this"):
        parse_rollover(sample("pointed") | {"schema": 4}, "here")


@pytest.mark.parametrize(
    "change",
    [
        {"id": None},
        {"old": "a"},
        {"steps": 100},
        {"steps": ["ten"]},
        {"checks": {}},
        {"state": "lost"},
        {"shares": [True]},
        {"history": [{}]},
        {"counters": []},
    ],
)
def test_what_is_damaged_is_an_error_and_not_a_crash(change):
    with pytest.raises(VerificationError, match="damaged"):
        parse_rollover(sample("pointed") | change, "here")


@pytest.mark.parametrize("name", ["id", "model", "old", "new", "steps", "checks"])
def test_what_a_rollover_cannot_be_without_has_no_default(name):
    value = sample("pointed")
    del value[name]
    with pytest.raises(VerificationError, match="damaged"):
        parse_rollover(value, "here")
