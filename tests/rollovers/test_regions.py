"""Rollovers of a target with a sitevar in each region: everywhere at once, or one after the other.

The sitevars are real ones, in files and in SSM; of the rest of the world the readings are given.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adroit.sitevars import Sitevar
from adroit_publish.checkout import Checkout
from adroit_publish.cli.checklist import markdown
from adroit_publish.config.sitevars import Pointer
from adroit_publish.config.targets import parse_targets
from adroit_publish.errors import RefusedError, StoreError
from adroit_publish.places import open_store
from adroit_publish.rollover.checklist import boxes
from adroit_publish.rollover.checks import Checks
from adroit_publish.rollover.evidence import (
    AnsweringRead,
    Counts,
    EndpointsRead,
    Evidence,
    FlavorsRead,
    PointerRead,
    Publication,
    TrafficRead,
)
from adroit_publish.rollover.rules import Advance, Do, Missing, commands, next_step
from adroit_publish.rollover.state import LIVE, Rollover, Side, Transition, parse_rollover
from adroit_publish.rollovers import regions as in_regions
from adroit_publish.rollovers.audit import audit
from adroit_publish.rollovers.regions import read_pointers, set_everywhere
from adroit_publish.rollovers.sitevars import sitevars_of
from adroit_publish.rollovers.steps import advance_until, step
from adroit_publish.rollovers.verbs import Status
from adroit_publish.rollovers.world import RealWorld
from adroit_publish.stores.ledger import append, entries
from adroit_publish.stores.rollovers import Rollovers
from tests.rollovers.test_rollover_command import make_published, served
from tests.servers.object_servers import ACCESS_KEY, SECRET_KEY, running_moto
from tests.support.rolling import SMALL, advance_to, done, run

OLD, NEW = Side("old", "v-old", "sha256:1"), Side("new", "v-new", "sha256:2")
CHECKS = Checks(("http://new",), None, ("prometheus:http://p",), 60.0, 0.01, 1e-6, 120.0)
REGIONS = ("us", "eu", "ap")
AWS_REGIONS = {"us": "us-east-1", "eu": "eu-west-1", "ap": "ap-southeast-2"}


@pytest.fixture(scope="module")
def moto():
    with running_moto() as server:
        yield server


@pytest.fixture(params=["file", "ssm"])
def target(request, tmp_path, monkeypatch):
    """A target with three sitevars; the parameters have one name, each in its own AWS region."""
    if request.param == "ssm":
        moto = request.getfixturevalue("moto")
        monkeypatch.setenv("AWS_ENDPOINT_URL", moto.endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    addresses = {
        "file": lambda region: f"file:{region}/sitevars.json",
        "ssm": lambda region: f"ssm:{AWS_REGIONS[region]}/adroit/{tmp_path.name}",
    }
    table = ", ".join(f'{region} = "{addresses[request.param](region)}"' for region in REGIONS)
    text = f"""
default_target = "t"
[targets.t]
tracking_uri = "sqlite:///m.db"
bundles = "file:bundles"
sitevars = {{ {table} }}
"""
    return parse_targets(text.encode(), "adroit.toml", str(tmp_path)).by_name["t"]


class World(RealWorld):
    """The real sitevars and ledger of a target, in a world where everything else is well."""

    def read(self, rollover, names):
        now = time.time()
        gone = rollover.state in ("draining", "drained")
        return Evidence(
            published=Publication(now, (), ()),
            flavors=FlavorsRead(now, OLD.version, NEW.version),
            pointer=read_pointers(self.sitevars, "m"),
            endpoints=EndpointsRead(now, True, True),
            traffic=TrafficRead(
                now, 1e-9 if rollover.sample_s is None else now - rollover.sample_s,
                Counts(0 if gone else 90, 0), Counts(90, 0), source_s=now,
            ),
            answering=AnsweringRead(now, 2, now),
        ), None  # fmt: skip


class Rig:
    """A rollover of model ``m``, from ``verified`` on, and what operators do with it."""

    def __init__(self, target, *, by_region):
        self.target, self.store = target, open_store(target)
        self.sitevars = sitevars_of(target, self.store)
        self.world = World(Checkout("."), target, self.store, self.sitevars, "ada")
        self.rollovers = Rollovers(self.store.objects)
        live = [{"flavor": "old", "version": OLD.version, "weight": 100.0}]
        for region, sitevars in self.sitevars.items():
            sitevars.set("m", Pointer.of("old"), expected=None, who="ada", why="first")
            facts, now = {"live": live, "region": region}, datetime.now(UTC)
            append(self.store, "m", "pointed", facts, key=f"first {region}", who="ada", now=now)
        checks = replace(CHECKS, by_region=by_region)
        entry = Transition(time.time(), "ada", None, "verified")
        rollover = Rollover(
            "0001", "m", OLD, NEW, (10.0, 100.0), checks, "verified", history=(entry,)
        )
        self.rollovers.create(rollover)

    @property
    def rollover(self):
        return self.rollovers.last("m").rollover

    def do(self, command="advance"):
        kept = self.rollovers.last("m")
        return step(self.rollovers, kept, self.world, who="ada", command=command, why="because")

    def says(self):
        pointers = (sitevars.get("m").pointer for sitevars in self.sitevars.values())
        return [str(pointer) for pointer in pointers]

    def entered(self):
        return [(e.kind, e.facts.get("region")) for e in entries(self.store, "m")]

    def whole(self):
        found = audit(self.target, self.store, "m")
        return (found.problems, found.outside) == ((), None)


TENTH = "new=10, old=90"


def test_everywhere_at_once_and_each_region_has_its_entry(target):
    rig = Rig(target, by_region=False)
    rig.do()
    assert rig.says() == [TENTH] * 3
    for address in target.sitevar_addresses.values():  # what a service of that region reads
        assert str(Sitevar(address).pointer("m")) == TENTH
    kinds = rig.entered()
    assert kinds.count(("pointed", "eu")) == kinds.count(("pointed", "us")) == 2
    assert not [kind for kind, region in kinds if region is None]
    rig.do()
    assert rig.says() == ["new"] * 3
    assert rig.rollover.shares == (100.0,)
    assert rig.whole()


def test_region_by_region_each_takes_a_step_before_any_takes_the_next(target):
    rig = Rig(target, by_region=True)
    seen = []
    while rig.rollover.state != "draining":
        rig.do()
        seen.append((rig.says(), rig.rollover.shares[0], dict(rig.rollover.ahead)))
        assert rig.whole()
    assert seen[:3] == [
        ([TENTH, "old", "old"], 0.0, {"us": 10.0}),
        ([TENTH, TENTH, "old"], 0.0, {"us": 10.0, "eu": 10.0}),
        ([TENTH, TENTH, TENTH], 10.0, {}),
    ]
    assert [says for says, *_ in seen[3:6]] == [
        ["new", TENTH, TENTH], ["new", "new", TENTH], ["new", "new", "new"],
    ]  # fmt: skip
    assert (rig.rollover.shares, rig.rollover.ahead) == ((100.0,), {})
    named = [region for kind, region in rig.entered() if kind == "pointed"]
    assert named == 3 * [*REGIONS]


def test_what_is_kept_of_a_step_on_its_way_is_read_back(target):
    rig = Rig(target, by_region=True)
    rig.do()
    kept = json.loads(json.dumps(rig.rollover.as_dict()))
    assert parse_rollover(kept, "here") == rig.rollover
    assert kept["ahead"] == {"us": 10.0}
    checklist = markdown(Status(rig.rollover, boxes(rig.rollover), (), (), ()))
    assert "now old; us: new=10, old=90" in checklist


@pytest.mark.parametrize("by_region", [False, True])
def test_a_way_back_goes_everywhere_but_where_it_cannot_and_says_so(target, by_region, monkeypatch):
    rig = Rig(target, by_region=by_region)
    rig.do()
    rig.do()
    mend = break_region(rig, "eu", monkeypatch)
    outcome = rig.do("rollback")
    assert [str(rig.sitevars[region].get("m").pointer) for region in ("us", "ap")] == ["old", "old"]
    assert rig.rollover.state == "rolling back"
    (lack,) = outcome.lacks
    assert "the sitevar of eu could not be read" in lack.found
    assert rig.do("advance").lacks  # cron goes on trying
    mend()
    assert rig.do("rollback").rollover.state == "rolled back"
    assert rig.says() == ["old"] * 3
    assert rig.whole()
    back = {region for kind, region in rig.entered() if kind == "rolled-back"}
    assert back == set(REGIONS)


def break_region(rig, region, monkeypatch):
    """Takes a region's sitevar away; returns what brings it back."""
    documents = rig.sitevars[region]._documents
    address = rig.target.sitevar_addresses[region]
    if address.startswith("file:"):
        path = address.removeprefix("file:")
        os.rename(path, path + ".away")
        os.mkdir(path)

        def mend():
            os.rmdir(path)
            os.rename(path + ".away", path)

        return mend
    clients, there = documents._made, os.environ["AWS_ENDPOINT_URL"]
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    documents._made = None  # a client asks where the environment pointed when it was made

    def mend():
        monkeypatch.setenv("AWS_ENDPOINT_URL", there)
        documents._made = clients

    return mend


def test_a_region_that_hangs_does_not_hold_up_the_others(target, monkeypatch):
    rig = Rig(target, by_region=False)
    rig.do()
    hangs = threading.Event()
    monkeypatch.setattr(in_regions, "ANSWER_S", 0.5)
    really = rig.sitevars["us"].get

    def get(model):
        hangs.wait(60)
        return really(model)

    monkeypatch.setattr(rig.sitevars["us"], "get", get)
    outcome = rig.do("rollback")
    hangs.set()
    assert "the sitevar of us could not be read: There was no answer in 0.5 s" in str(outcome.lacks)
    assert [str(rig.sitevars[region].get("m").pointer) for region in ("eu", "ap")] == ["old", "old"]


def test_a_step_waits_until_every_region_can_be_read(target, monkeypatch):
    rig = Rig(target, by_region=True)
    rig.do()
    mend = break_region(rig, "ap", monkeypatch)
    outcome = rig.do()
    assert {lack.verdict for lack in outcome.lacks} == {"waiting"}
    assert "the sitevar of ap" in str(outcome.lacks)
    mend()
    assert rig.says() == [TENTH, "old", "old"]
    assert rig.do().moved


def test_a_region_that_diverged_holds_the_rollover_by_its_name(target):
    rig = Rig(target, by_region=True)
    rig.do()
    half, eu = Pointer.of({"old": 50, "new": 50}), rig.sitevars["eu"]
    eu.set("m", half, expected=Pointer.of("old"), who="bob", why="by hand")
    assert rig.do().rollover.state == "held"
    why = rig.rollover.history[-1].why
    assert why == "the sitevar of eu says new=50, old=50; this rollover left it at old"
    assert ("changed-outside", "eu") in rig.entered()
    eu.set("m", Pointer.of("old"), expected=half, who="bob", why="undone")
    assert rig.do().rollover.state == "pointed"
    rig.do()
    assert rig.says() == [TENTH, TENTH, "old"]
    assert rig.whole()


def test_a_region_that_diverged_holds_the_rollover_while_another_is_away(target, monkeypatch):
    rig = Rig(target, by_region=True)
    rig.do()
    half, eu = Pointer.of({"old": 50, "new": 50}), rig.sitevars["eu"]
    eu.set("m", half, expected=Pointer.of("old"), who="bob", why="by hand")
    mend = break_region(rig, "ap", monkeypatch)
    assert rig.do().rollover.state == "held"
    assert ("changed-outside", "eu") in rig.entered()
    mend()
    eu.set("m", Pointer.of("old"), expected=half, who="bob", why="undone")
    assert rig.do().rollover.state == "pointed"
    rig.do()
    assert rig.whole()


def test_the_way_back_starts_from_whatever_a_region_says(target):
    rig = Rig(target, by_region=True)
    rig.do()
    other = Pointer.of({"old": 50, "new": 50})
    rig.sitevars["ap"].set("m", other, expected=Pointer.of("old"), who="bob", why="by hand")
    assert rig.do("rollback").rollover.state == "rolled back"
    assert rig.says() == ["old"] * 3
    assert rig.whole()


def test_who_is_cut_off_between_two_regions_is_followed_by_who_sets_the_rest(target, monkeypatch):
    rig = Rig(target, by_region=False)
    eu = rig.sitevars["eu"]
    with monkeypatch.context() as away:
        away.setattr(eu, "set", raising(StoreError("away", transient=True)))
        with pytest.raises(StoreError, match="the sitevar of eu could not be set; set: us, ap"):
            rig.do()
    assert rig.says() == [TENTH, "old", TENTH]
    assert rig.rollover.state == "pointing"
    assert rig.do().rollover.state == "pointed"
    assert rig.says() == [TENTH] * 3
    assert rig.whole()


def test_a_rollback_that_one_region_refuses_to_take_names_it_and_again_completes_it(
    target, monkeypatch
):
    rig = Rig(target, by_region=False)
    rig.do()
    with monkeypatch.context() as away:
        away.setattr(rig.sitevars["eu"], "set", raising(StoreError("away", transient=True)))
        with pytest.raises(
            StoreError, match="the sitevar of eu could not be set; set: us, ap"
        ) as e:
            rig.do("rollback")
    assert (e.value.exit_code, "run the same command again" in str(e.value)) == (5, True)
    assert rig.says() == ["old", TENTH, "old"]
    assert rig.rollover.state == "rolling back"
    assert rig.do("rollback").rollover.state == "rolled back"
    assert rig.says() == ["old"] * 3
    assert rig.whole()
    back = [region for kind, region in rig.entered() if kind == "rolled-back"]
    assert sorted(back) == sorted(REGIONS)


def test_a_region_taken_out_of_the_target_while_it_is_set_leaves_no_step_without_an_entry(
    target, monkeypatch
):
    rig = Rig(target, by_region=True)
    with monkeypatch.context() as away:
        away.setattr(rig.sitevars["us"], "set", raising(StoreError("away")))
        with pytest.raises(StoreError):
            rig.do()
    del rig.sitevars["us"]  # the world's own
    rig.do()
    assert (rig.rollover.state, rig.rollover.history[-1].facts["regions"]) == ("pointed", [])
    assert rig.rollover.ahead == {}
    assert rig.whole()
    rig.do()
    rig.do()
    assert rig.says() == [TENTH] * 2
    assert (rig.rollover.shares, rig.rollover.ahead) == ((10.0,), {})
    assert rig.whole()


@pytest.mark.parametrize("transient", [True, False])
def test_regions_that_fail_are_a_passing_failure_where_each_is(transient):
    errors = {"us": StoreError("away", transient=True), "eu": StoreError("x", transient=transient)}

    def set_one(region):
        raise errors[region]

    with pytest.raises(StoreError, match="the sitevar of us, the sitevar of eu") as raised:
        set_everywhere(errors, set_one)
    assert raised.value.transient == transient


def test_who_advances_until_the_end_waits_for_a_region_that_fails_for_a_while(target, monkeypatch):
    rig = Rig(target, by_region=False)
    waited = []
    eu = rig.sitevars["eu"]
    with monkeypatch.context() as patch:
        patch.setattr(eu, "set", raising(StoreError("away", transient=True)))

        def wait(outcome):
            waited.extend(lack.found for lack in outcome.lacks)
            patch.undo()

        kept = rig.rollovers.last("m")
        outcome = advance_until(
            rig.rollovers, kept, rig.world, until="pointed", who="ada", wait=wait
        )
    assert waited == ["the sitevar of eu could not be set; set: us, ap."]
    assert (outcome.rollover.state, rig.says()) == ("pointed", ["new"] * 3)


def raising(error):
    def fail(*_args, **_kwargs):
        raise error

    return fail


def test_an_act_that_came_too_late_is_taken_back_where_it_was_made(target):
    rig = Rig(target, by_region=True)
    rig.do()
    really = rig.world.act

    def late(rollover, action, evidence, mine):
        """Another operator rolls back between the last look and the act."""
        rig.world.act = really
        rig.do("rollback")
        really(rollover, action, evidence, lambda: None)

    rig.world.act = late
    with pytest.raises(RefusedError, match=r"moved the rollover on|not what was expected"):
        rig.do()
    assert rig.rollover.state == "rolled back"
    assert rig.says() == ["old"] * 3


def test_an_act_that_another_has_done_already_is_left_as_it_is(target):
    rig = Rig(target, by_region=True)
    really = rig.world.act

    def late(rollover, action, evidence, mine):
        rig.world.act = really
        rig.do()
        really(rollover, action, evidence, lambda: None)

    rig.world.act = late
    with pytest.raises(RefusedError, match="moved the rollover on"):
        rig.do()
    assert rig.says() == [TENTH, "old", "old"]
    assert rig.rollover.ahead == {"us": 10.0}


# The rules alone, of whatever a region says or does not say.

WEIGHTS = st.sampled_from(
    [{"old": 100.0}, {"old": 90.0, "new": 10.0}, {"new": 100.0}, {"x": 100.0}, {}]
)
ANSWERS = st.dictionaries(st.sampled_from(REGIONS), st.none() | WEIGHTS, min_size=2)


def pointer_of(answers):
    regions = {region: weights for region, weights in answers.items() if weights is not None}
    unread = {region: "away" for region, weights in answers.items() if weights is None}
    return PointerRead(1000.0, None, regions, unread)


def rollover_in(state, ahead=()):
    entry = Transition(0.0, "ada", None, state)
    return Rollover(
        "0001", "m", OLD, NEW, (10.0, 100.0), replace(CHECKS, by_region=True), state, (0.0,),
        goal={"pointing": 10.0, "rolling back": 0.0}.get(state), history=(entry,),
        resume="pointed" if state == "held" else None, ahead=dict.fromkeys(ahead, 10.0),
    )  # fmt: skip


@given(st.sampled_from(LIVE), ANSWERS, st.sets(st.sampled_from(REGIONS), max_size=2))
def test_whatever_regions_say_every_state_has_a_way_out(state, answers, ahead):
    rollover, evidence = rollover_in(state, ahead), Evidence(pointer=pointer_of(answers))

    def next_of(command):
        return next_step(rollover, evidence, 1000.0, who="w", command=command, why="x")

    assert isinstance(next_of("abandon"), Advance)
    if state != "rolling back":
        assert isinstance(next_of("rollback"), Advance) == ("rollback" in commands(rollover))
        return
    away = [region for region, weights in answers.items() if weights is None]
    elsewhere = [weights for weights in answers.values() if weights not in (None, {"old": 100.0})]
    match next_of("rollback"):
        case Do("point"):  # where it can be done it is done, whoever is away
            assert elsewhere
        case Missing((lack,)):
            assert away
            assert not elsewhere
            assert all(
                f"the sitevar of {region} could not be read" in lack.found for region in away
            )
        case Advance(ended):
            assert (ended.state, ended.shares, ended.ahead) == ("rolled back", (0.0,), {})
            assert not away
            assert not elsewhere


@given(ANSWERS, st.sets(st.sampled_from(REGIONS), max_size=2))
def test_a_rollover_is_held_by_exactly_the_regions_that_say_something_else(answers, ahead):
    flavors = FlavorsRead(1000.0, OLD.version, NEW.version)
    rollover = rollover_in("pointed", ahead)
    step_now = next_step(
        rollover, Evidence(flavors=flavors, pointer=pointer_of(answers)), 1000.0, who="w"
    )
    ours = {
        region: {"old": 90.0, "new": 10.0} if region in ahead else {"old": 100.0}
        for region in answers
    }
    other = [r for r, weights in answers.items() if weights is not None and weights != ours[r]]
    held = isinstance(step_now, Advance) and step_now.rollover.state == "held"
    assert held == bool(other)
    if held:
        why = str(step_now.rollover.history[-1].why)
        assert all((f"the sitevar of {r} says" in why) == (r in other) for r in answers)


@pytest.fixture(scope="module")
def root(tmp_path_factory, trained):
    root = make_published(tmp_path_factory.mktemp("regions") / "repo", trained, "file:x.json")
    text = (root / "adroit.toml").read_text()
    table = '{ us = "file:.adroit/us.json", eu = "file:.adroit/eu.json" }'
    (root / "adroit.toml").write_text(text.replace('"file:x.json"', table))
    return root


def test_by_the_command_line_each_region_is_named(root):
    """From the first pointer to drained, region by region; then what history says of it."""

    def region(name):
        return json.loads((root / f".adroit/{name}.json").read_text())["doubler"]

    with served(root) as servers:
        new, old = servers["new"].url, servers["old"].url
        done(root, "sitevar", "set", "doubler", "old", "--why", "the first one")
        done(root, "sitevar", "set", "doubler", "new", "--why", "too early", "--region", "eu")
        assert json.loads(done(root, "sitevar", "get", "doubler", "--json")) == {
            "us": {"doubler": "old"}, "eu": {"doubler": "new"},
        }  # fmt: skip
        begin = ("rollover", "start", "--from", "old", "--to", "new", "--url", new, "--by-region")
        counted = ("--metrics", old, "--metrics", new, "--steps", "50,100", "--quiet", "2s", *SMALL)
        code, said = run(root, *begin, *counted)
        assert (code, "eu: new" in said) == (4, True), said
        done(root, "sitevar", "set", "doubler", "old", "--why", "back", "--region", "eu")
        done(root, *begin, *counted)
        done(root, "rollover", "amend", "doubler", "--everywhere", "--why", "as one")
        code, said = run(root, *begin, *counted)
        assert (code, "--by-region" in said, "--everywhere" in said) == (4, True, True), said
        said = done(root, "rollover", "amend", "doubler", "--by-region", "--why", "one by one")
        assert "changed: --everywhere -> --by-region" in said
        advance_to(root, "pointed")
        assert (region("us"), region("eu")) == ({"new": 50, "old": 50}, "old")
        said = done(root, "rollover", "status", "doubler")
        assert "the sitevar of us points at new=50, old=50" in said
        assert "the sitevar of eu points at old" in said
        standing = json.loads(done(root, "rollover", "status", "doubler", "--json"))
        assert (standing["pointed"], standing["regions"]["eu"]) == (None, {"old": 100.0})
        assert "50 %" in done(root, "status")
        done(root, "rollover", "rollback", "doubler", "--why", "p99 is up")
        assert (region("us"), region("eu")) == ("old", "old")
    told = done(root, "history", "doubler")
    assert "in us" in told
    assert "in eu" in told
    shares = json.loads(done(root, "history", "doubler", "--at", "2099-01-01", "--json"))["live"]
    assert [(share["flavor"], share["region"]) for share in shares] == [
        ("old", "us"),
        ("old", "eu"),
    ]
    assert "us" in done(root, "sitevar", "history", "doubler", "--region", "us")
    assert "whole" in done(root, "verify-ledger", "doubler")
    code, said = run(root, "sitevar", "get", "doubler", "--region", "mars")
    assert (code, "us, eu" in said) == (2, True)


def test_by_region_needs_regions(tmp_path, trained):
    root = make_published(tmp_path / "repo", trained, "file:.adroit/sitevars.json")
    done(root, "sitevar", "set", "doubler", "old", "--why", "the first one")
    begin = ("rollover", "start", "--from", "old", "--to", "new", "--by-region")
    places = ("--url", "http://127.0.0.1:1", "--metrics", "http://127.0.0.1:1")
    code, said = run(root, *begin, *places)
    assert (code, "several sitevars" in said) == (2, True), said
    config = root / "projects/doubler/config.yaml"
    before = config.read_text()
    config.write_text(before + "rollout:\n  by_region: true\n")
    code, said = run(root, *begin[:-1], *places)
    assert (code, "several sitevars" in said) == (2, True), said
    config.write_text(before + "rollout:\n  by_region: soon\n")
    code, said = run(root, *begin[:-1], *places)
    assert (code, "'by_region' is 'soon'; it is true or false" in said) == (2, True), said
    config.write_text(before + "rollout:\n  by_region: true\n")
    done(root, *begin[:-1], "--everywhere", *places)


@pytest.fixture
def sent(root, tmp_path):
    """A copy of the checkout, every region pointed at ``old``, as nothing is running."""
    copy = tmp_path / "repo"
    shutil.copytree(root, copy, ignore=shutil.ignore_patterns("us.json", "eu.json"))
    for kept in ("ledger", "sitevars", "rollovers"):
        shutil.rmtree(copy / ".adroit/bundles" / kept, ignore_errors=True)
    done(copy, "sitevar", "set", "doubler", "old", "--why", "the first one")
    return copy


def says(root, region):
    return json.loads((root / f".adroit/{region}.json").read_text())["doubler"]


def test_a_pointer_set_by_hand_goes_everywhere_but_where_it_cannot_and_says_so(sent):
    us = sent / ".adroit/us.json"
    before = us.read_text()
    us.write_text("{")
    move = ("sitevar", "set", "doubler", "new", "--why", "an emergency")
    code, said = run(sent, *move)
    assert (code, says(sent, "eu")) == (5, "new"), said
    assert "the sitevar of us could not be set; set: eu" in said
    assert "doubler in eu: old -> new" in said
    us.write_text(before)
    said = done(sent, *move)
    assert "doubler in us: old -> new" in said
    assert (says(sent, "us"), says(sent, "eu")) == ("new", "new")
    assert "whole" in done(sent, "verify-ledger", "doubler")


def test_a_damaged_ledger_stops_no_pointer_set_by_hand_where_nothing_is_signed(sent):
    (sent / ".adroit/bundles/ledger/doubler/odd").write_text("?")
    code, said = run(sent, "sitevar", "set", "doubler", "new", "--why", "an emergency")
    assert (code, "is not an entry" in said) == (6, True), said
    assert (says(sent, "us"), says(sent, "eu")) == ("new", "new")


def test_what_no_region_can_be_pointed_at_is_refused_before_any_is(sent):
    code, said = run(sent, "sitevar", "set", "doubler", "nope", "--why", "a slip")
    assert (code, "could not be set" in said) == (2, False), said
    code, said = run(sent, "sitevar", "set", "doubler", "new", "--why", "x", "--expect", "new")
    assert (code, "the sitevar of us, the sitevar of eu could not be set" in said) == (4, True)
    code, said = run(
        sent, "sitevar", "set", "doubler", "new", "--why", "x", "--expect", "new", "--region", "us"
    )
    assert (code, said.startswith("The sitevar of doubler is not")) == (4, True), said
    assert (says(sent, "us"), says(sent, "eu")) == ("old", "old")
