"""C17: rollovers whose operators are killed, failed, raced and lied to by stale readings.

Hypothesis drives the real rules, the real steps and the real store of rollovers through a world of
values. Readings that are stale tell what would let the rollover go on, so that believing one shows.
At the end of each example the world is mended, and the same commands have to bring the rollover to
an end.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from adroit_publish.config.sitevars import Pointer
from adroit_publish.errors import RefusedError, StoreError
from adroit_publish.evidence.sitevars import PointerReading, Sitevars
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
from adroit_publish.rollover.needs import AHEAD_S
from adroit_publish.rollover.rules import PASSING, TABLE, Advance, commands, next_step
from adroit_publish.rollover.state import ENDED, LIVE, Rollover, Side, Transition
from adroit_publish.rollovers.book import enter_pointer, note, pointed_step
from adroit_publish.rollovers.steps import step
from adroit_publish.stores.bundle_store import BundleStore
from adroit_publish.stores.chain import last_number
from adroit_publish.stores.directory import DirectoryObjects
from adroit_publish.stores.ledger import Step, entries, pointed_to
from adroit_publish.stores.rollovers import Rollovers

FLOOR = 50_000 if os.environ.get("ADROIT_FULL") == "1" else 2_000
STEPS = 12
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
QUIET_S, FRESH_S = 60.0, 30.0
OLD, NEW = Side("a", "v-old", "sha256:old"), Side("b", "v-new", "sha256:new")
SAMPLE, BAKE_S = 12, 20.0
CHECKS = Checks(
    ("http://new",), None, ("prometheus:http://p",), QUIET_S, 0.01, 1e-6, FRESH_S,
    min_requests=SAMPLE, bake_s=BAKE_S,
)  # fmt: skip
READINGS = ("published", "flavors", "pointer", "endpoints", "traffic", "answering")
SKEW_S = {"operator": -600.0, "rival": 600.0, "by hand": 300.0}
"""How far each one's clock is off."""
FATES = ("killed", "failed", "raced")
HIDDEN = ("away", "stale", "future")

SHARES = st.sampled_from([(100.0,), (10.0, 100.0), (1.0, 10.0, 50.0, 100.0)])
FATE = st.sampled_from(["none", "none", *FATES])
NTH = st.integers(0, 11)
RIVAL = st.sampled_from(["advance", "finish", "rollback", "rollback"])

injected: Counter[str] = Counter()
fired: Counter[str] = Counter()
reached: Counter[str] = Counter()
counted = Counter[str]()


class Killed(BaseException):
    """The operator's process ended, here and now."""


class SimulatedWorld:
    """Servers, a sitevar, flavors.yaml and a store, as values; and a clock that rules wind."""

    def __init__(self, objects: DirectoryObjects) -> None:
        self.clock = 1_000_000.0
        self.away: set[str] = set()
        self.stale: set[str] = set()
        self.future: set[str] = set()
        self.point: Callable[[str], None] = lambda where: None
        self.who = "starter"
        self.store = BundleStore(objects)
        self.set_by: dict[str, str] = {}  # key of the ledger -> who set the sitevar
        self.entered = True  # whether the ledger knows what the sitevar says
        self.reset()

    def reset(self) -> None:
        self.weights: dict[str, float] = {OLD.flavor: 100}
        self.versions = {OLD.flavor: OLD.version, NEW.flavor: NEW.version}
        self.upstream_with_old = self.old_up = True
        self.whole = {OLD.version: True, NEW.version: True}
        self.deployed = self.right = True
        self.failing = self.straggling = False
        self.asked = {OLD.flavor: self.clock, NEW.flavor: 0.0}
        self.counted: dict[str, list[tuple[float, int]]] = {OLD.flavor: [], NEW.flavor: []}
        self.hole_end = self.moved = self.clock

    def wind(self, seconds: float, *, watched: bool = True) -> None:
        """Lets time pass, and requests come; in a hole they are on no record."""
        self.clock += seconds
        for flavor in self.asked:
            if self.weights.get(flavor) or (flavor == OLD.flavor and self.straggling):
                self.asked[flavor] = self.clock
                if watched:
                    kept = self.counted[flavor][-200:]
                    self.counted[flavor] = [*kept, (self.clock, max(1, int(seconds)))]
        self.hole_end = self.hole_end if watched else self.clock

    # World.

    def now_s(self) -> float:
        return self.clock + SKEW_S.get(self.who, 0.0)

    def read(self, rollover: Rollover, names: Iterable[str]) -> tuple[Evidence, None]:
        self.point("read")
        found: dict[str, Any] = {}
        for name in names:
            if name in self.stale | self.future:
                found[name] = self._flattery(name, rollover)
            elif name not in self.away:
                found[name] = self._truth(name, rollover)
        return Evidence(**found, absent=dict.fromkeys(self.away, "away")), None

    def _truth(self, name: str, rollover: Rollover) -> Any:
        now, versions = self.now_s(), self.versions
        if name == "published":
            old, new = (() if self.whole[s.version] else ("torn",) for s in (OLD, NEW))
            return Publication(now, old, new)
        if name == "flavors":
            both = versions.get(OLD.flavor), versions.get(NEW.flavor)
            return FlavorsRead(now, *both, "origin/main", self.upstream_with_old)
        if name == "pointer":
            return PointerRead(now, dict(self.weights))
        if name == "endpoints":
            return EndpointsRead(now, self.deployed, self.deployed and self.right)
        if name == "answering":
            return AnsweringRead(now, 2 * self.old_up, now if self.old_up else now - 60)
        return self._traffic(rollover)

    def _traffic(self, rollover: Rollover) -> TrafficRead:
        window_s = QUIET_S if rollover.state in ("draining", "drained", "retiring") else 86400.0
        start = max(self.clock - window_s, rollover.sample_s or 0.0, self.hole_end)
        old, new = (self.requests_since(side.flavor, start) for side in (OLD, NEW))
        sides = Counts(old, 0), Counts(new, new * self.failing)
        return TrafficRead(self.now_s(), self.clock - start, *sides, source_s=self.clock)

    def requests_since(self, flavor: str, start: float) -> int:
        return sum(count for when, count in self.counted[flavor] if when > start)

    def _flattery(self, name: str, rollover: Rollover) -> Any:
        """A reading of long ago, or of a time to come, that would let everything go on."""
        then = self.now_s() + (AHEAD_S + 1 if name in self.future else -FRESH_S - 1)
        gone = rollover.state == "retiring"
        share = rollover.shares[0] if rollover.goal is None else rollover.goal
        return {
            "published": Publication(then, (), ()),
            "flavors": FlavorsRead(then, None if gone else OLD.version, NEW.version),
            "pointer": PointerRead(then, rollover.weights(share)),
            "endpoints": EndpointsRead(then, True, True),
            "answering": AnsweringRead(then, 2, then),
            "traffic": TrafficRead(
                then, QUIET_S * 9, Counts(0, 0), Counts(99, 0), source_s=self.clock + QUIET_S * 9
            ),
        }[name]

    def act(
        self, rollover: Rollover, action: str, evidence: Evidence, mine: Callable[[], None]
    ) -> None:
        self.point("act")
        mine()
        if action == "point":
            self.point("late")  # another operator may come between the look and the act
            assert evidence.pointer
            assert rollover.goal is not None
            self._set(rollover, evidence.pointer.weights, rollover.weights(rollover.goal))
        else:
            self._delete()
        self.point("acted")

    def _set(self, rollover: Rollover, expected: Any, wanted: dict[str, float]) -> None:
        if self.weights == wanted:
            return
        if self.weights != (expected or {}):
            raise RefusedError("changed by others")
        if wanted.get(NEW.flavor, 0) > self.weights.get(NEW.flavor, 0):
            assert self.deployed, "a switch to what is not deployed"
            assert self.right, "a switch to what was not verified"
            assert self.whole[NEW.version], "a switch to what is not whole"
            assert self.versions[NEW.flavor] == NEW.version, "a switch to another version"
            if rollover.shares[0] > 0:
                assert not self.failing, "a step further while it fails"
                sample = self.requests_since(NEW.flavor, self.moved)
                assert sample >= SAMPLE, "a step on less than its sample"
                assert self.clock - self.moved >= BAKE_S, "a step before its time"
        if wanted.get(NEW.flavor, 0) != self.weights.get(NEW.flavor, 0):
            self.moved = self.clock
        kind = "rolled-back" if rollover.state == "rolling back" else "pointed"
        began = rollover.history[-1].who
        self._change(pointed_step(rollover, kind, len(rollover.history) + 1, self.who, None), began)

    def _change(self, step: Step, began: str | None = None) -> None:
        """Sets the sitevar and enters that, as ``RealWorld`` does; it may be cut off in between.

        Who is cut off in what another began leaves no trace of who it was.
        """
        before, since = self.weights, last_number(self.store, "m")
        self.weights = {share["flavor"]: share["weight"] for share in step.facts["live"]}
        self.entered = False
        first = all(entry.key != step.key for entry in entries(self.store, "m"))
        if first:
            self.set_by[step.key] = self.who if began in (None, self.who) else "either"
        self.point("set")
        if first:
            self.set_by[step.key] = self.who
        enter_pointer(self.store, cast(Sitevars, self), "m", step, before, since)
        self.entered = True

    def get(self, model: str) -> PointerReading:
        """Returns the sitevar, as ``Sitevars`` does."""
        return PointerReading(Pointer.of(self.weights), None, NOON)

    def set_by_hand(self, weights: dict[str, float]) -> None:
        """Somebody moves the pointer by ``sitevar set``."""
        live = [{"flavor": f, "version": "", "weight": p} for f, p in weights.items()]
        self.who = "by hand"
        self._change(Step("pointed", {"live": live}, f"by hand {len(self.set_by)}", self.who))

    def _delete(self) -> None:
        assert OLD.flavor not in self.weights, "a flavor deleted that is pointed to"
        assert self.asked[OLD.flavor] <= self.clock - QUIET_S, "a flavor deleted with traffic"
        assert self.versions.get(OLD.flavor) in (None, OLD.version), "another version deleted"
        self.versions.pop(OLD.flavor, None)

    def take_back(self, rollover: Rollover, share: float, wanted: float) -> None:
        if self.weights == rollover.weights(share):
            back = replace(rollover, goal=wanted)
            self._change(pointed_step(back, "pointed", len(self.set_by), self.who, "taken back"))

    def note(self, rollover: Rollover) -> None:
        self.point("note")
        note(self.store, rollover, lambda: self.weights)
        if rollover.state in ("pointed", "rolled back"):
            self.entered = True


class Operators(RuleBasedStateMachine):
    """Operators and third parties, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self._directory = tempfile.TemporaryDirectory(dir=_scratch())
        objects = DirectoryObjects(Path(self._directory.name))
        self.rollovers = Rollovers(objects)
        self.world = SimulatedWorld(objects)
        self.seen: tuple[Transition, ...] = ()

    @property
    def rollover(self) -> Rollover:
        kept = self.rollovers.last("m")
        assert kept
        return kept.rollover

    @initialize(steps=SHARES, state=st.sampled_from(LIVE))
    def start(self, steps: tuple[float, ...], state: str) -> None:
        """Begins a rollover and brings it to any state, so that examples need not find the way."""
        last = self.rollovers.last("m")
        number = int(last.rollover.id) + 1 if last else 1
        self.world.away, self.world.stale, self.world.future = set(), set(), set()
        self.world.reset()
        self.world.entered = last is None  # the reset is nobody's change
        self.world.wind(1.0)
        entry = Transition(self.world.clock, "starter", None, "proposed")
        begun = Rollover(f"{number:04d}", "m", OLD, NEW, steps, CHECKS, history=(entry,))
        self.rollovers.create(begun)
        self.seen = begun.history
        self.bring_to(state)
        self.look()

    def bring_to(self, state: str) -> None:
        def killed_before_the_act(where: str) -> None:
            if where == "act":
                raise Killed

        command = "advance"
        while self.rollover.state != state:
            self.world.wind(QUIET_S / 2)
            here = self.rollover.state
            if state == "held" and here == "pointed":
                self.world.weights = {"other": 100.0}
            if state == "rolling back" and here == "pointed":
                command = "rollback"
            if here == "drained":
                command = "finish"
            passing = state in PASSING and here in ("verified", "pointed", "drained")
            self.world.point = killed_before_the_act if passing else lambda where: None
            with suppress(Killed):
                self.run(command, "operator")
        self.world.point = lambda where: None

    @precondition(lambda self: not self.rollover.live)
    @rule(steps=SHARES, state=st.sampled_from(LIVE))
    def start_again(self, steps: tuple[float, ...], state: str) -> None:
        self.start(steps, state)
        counted["steps"] += 1

    @rule(seconds=st.sampled_from([5.0, QUIET_S]))
    def prometheus_has_a_hole(self, seconds: float) -> None:
        counted["steps"] += 1
        self.world.wind(seconds, watched=False)
        injected["hole"] += 1
        fired["hole"] += 1

    @rule(fate=FATE, nth=NTH, rival=RIVAL)
    def advance(self, fate: str, nth: int, rival: str) -> None:
        self.command("advance", fate, nth, rival)

    @rule(fate=FATE, nth=NTH, rival=RIVAL, seconds=st.sampled_from([5.0, QUIET_S]))
    def advance_later(self, fate: str, nth: int, rival: str, seconds: float) -> None:
        self.world.wind(seconds)
        self.command("advance", fate, nth, rival)

    @rule(fate=FATE, nth=NTH, rival=RIVAL)
    def finish(self, fate: str, nth: int, rival: str) -> None:
        self.command("finish", fate, nth, rival)

    @rule(
        command=st.sampled_from(["rollback", "rollback", "abandon"]),
        fate=FATE,
        nth=NTH,
        rival=RIVAL,
    )
    def give_up(self, command: str, fate: str, nth: int, rival: str) -> None:
        self.command(command, fate, nth, rival)

    def command(self, command: str, fate: str, nth: int, rival: str) -> None:
        """Runs a command that meets its fate at the nth point where it could."""
        counted["steps"] += 1
        injected[fate] += 1
        points = 0

        def point(where: str) -> None:
            nonlocal points
            points += 1
            if points != nth + 1 or (where == "late" and fate != "raced"):
                return
            fired[fate] += 1
            if fate == "killed":
                raise Killed
            if fate == "failed":
                raise StoreError("failed", transient=True)
            if fate == "raced":
                self.world.point = lambda where: None
                self.run(rival, "rival")
                self.world.point = point

        self.world.point = point if fate != "none" else lambda where: None
        with suppress(Killed):
            self.run(command, "operator", kept_point=point)
        self.world.point = lambda where: None
        self.look()

    def run(self, command: str, who: str, kept_point: Any = None) -> None:
        kept = self.rollovers.last("m")
        assert kept
        rollovers: Any = self.rollovers if kept_point is None else Watched(self, kept_point)
        before, self.world.who = self.world.who, who
        force = command == "rollback" and who == "mender"
        with suppress(RefusedError, StoreError):
            step(rollovers, kept, self.world, who=who, command=command, why="because", force=force)
        self.world.who = before

    def look(self) -> None:
        """What must hold whenever a command has ended, however it did."""
        rollover = self.rollover
        assert rollover.history[: len(self.seen)] == self.seen, "a step was lost"
        for entry in rollover.history[len(self.seen) :]:
            reached[entry.after] += 1
            if entry.after == "rolled back":
                assert self.world.weights == {OLD.flavor: 100}
            if entry.after == "rolling back" and "forced" not in (entry.why or ""):
                known = entry.facts.get("answering", {}).get("servers")
                assert known != 0, "rolled back to servers that are known not to answer"
            if entry.after == "retired":
                assert OLD.flavor not in self.world.versions
                assert not self.world.upstream_with_old, "retired, and the branch still has it"
        self.seen = rollover.history
        assert rollover.state in (*LIVE, *ENDED)
        self.look_for_a_way_out(rollover)
        self.look_at_the_ledger()

    def look_for_a_way_out(self, rollover: Rollover) -> None:
        """From every live state a command leads out of which nothing has to be known."""
        for command, states in (("abandon", LIVE), ("rollback", ("pointed", "draining", "held"))):
            if rollover.state in states:
                out = next_step(rollover, Evidence(), 0.0, who="w", command=command, why="x")
                assert isinstance(out, Advance), f"{command} does not lead out of {rollover.state}"

    def look_at_the_ledger(self) -> None:
        """The chain is whole, each change is its author's, and the last one is the sitevar's."""
        told = entries(self.world.store, "m")
        for entry in told:
            author = self.world.set_by.get(entry.key, entry.who)
            assert author in (entry.who, "either"), (
                f"{author} set the sitevar, and {entry.who} is entered"
            )
        if self.world.entered:
            assert (pointed_to(told) or {OLD.flavor: 100.0}) == self.world.weights

    @rule()
    def the_deletion_is_pushed(self) -> None:
        counted["steps"] += 1
        self.world.upstream_with_old &= OLD.flavor in self.world.versions

    @rule()
    def back_in_an_emergency(self) -> None:
        """Everything but the sitevar is away, whatever it says: the way back works."""
        counted["steps"] += 1
        world = self.world
        if self.rollover.state not in ("pointing", "pointed", "draining", "drained", "held"):
            return
        away, world.away = world.away, set(READINGS) - {"pointer"}
        stale, world.stale = world.stale, set()
        future, world.future = world.future, set()
        self.run("rollback", "operator")
        assert self.rollover.state == "rolled back"
        world.away, world.stale, world.future = away, stale, future
        self.look()

    @rule(seconds=st.sampled_from([0.5, 5.0, 40.0, 1000.0]))
    def time_passes(self, seconds: float) -> None:
        counted["steps"] += 1
        self.world.wind(seconds)

    @rule(
        name=st.sampled_from(READINGS), hidden=st.sampled_from(["seen", *HIDDEN]), how=st.booleans()
    )
    def something_breaks(self, name: str, hidden: str, how: bool) -> None:
        """Something goes wrong; and whoever could tell of it is away, or tells of long ago."""
        counted["steps"] += 1
        world, foreign = self.world, {"other": 100.0} if how else {OLD.flavor: 100.0}
        if name == "published":
            world.whole[(OLD if how else NEW).version] = False
        elif name == "flavors":
            side = OLD if how else NEW
            world.versions |= {side.flavor: "v-other"} if side.flavor in world.versions else {}
        elif name == "pointer" and self.rollover.live and world.weights != foreign:
            if hidden == "seen":
                world.set_by_hand(foreign)
            else:  # by an editor, which tells the ledger nothing
                world.weights, world.entered = foreign, False
            injected["third party"] += 1
            fired["third party"] += 1
        elif name == "endpoints":
            world.deployed, world.right = how, False
        elif name == "answering":
            world.old_up = how
        elif name == "traffic":
            world.failing, world.straggling = how, not how
        world.wind(0.5)
        injected[hidden] += 1
        fired[hidden] += 1
        for names in (world.away, world.stale, world.future):
            names -= {name}
        if hidden != "seen":
            getattr(world, hidden).add(name)

    @rule(name=st.sampled_from([*READINGS, "all"]))
    def it_is_mended(self, name: str) -> None:
        counted["steps"] += 1
        world = self.world
        if name == "all":
            self.mend()
        for names in (world.away, world.stale, world.future):
            names -= {name}

    def mend(self) -> None:
        world = self.world
        self.put_back()
        world.away, world.stale, world.future = set(), set(), set()
        world.whole = dict.fromkeys(world.whole, True)
        world.deployed = world.right = True
        world.failing = world.straggling = False
        world.old_up = True
        world.upstream_with_old = OLD.flavor in world.versions

    def put_back(self) -> None:
        rollover, world = self.rollover, self.world
        if rollover.live:
            shares = {tuple(sorted(rollover.weights(s).items())) for s in rollover.shares}
            if tuple(sorted(world.weights.items())) not in shares:
                world.set_by_hand(rollover.weights(rollover.shares[0]))
            for side in (OLD, NEW):
                if side.flavor in world.versions:
                    world.versions[side.flavor] = side.version

    def teardown(self) -> None:
        """A mended world: the rollover comes to an end by the same commands."""
        world = self.world
        if self.rollovers.last("m") is None:
            return
        self.mend()
        for _ in range(40):
            if not self.rollover.live:
                break
            world.wind(QUIET_S)
            world.upstream_with_old = OLD.flavor in world.versions  # the deletion is pushed
            ways = commands(self.rollover)
            self.run("advance" if "advance" in ways else "finish", "mender")
            self.look()
        assert not self.rollover.live, f"stuck: {self.rollover.state}"
        self._directory.cleanup()


class Watched:
    """The store of rollovers, with points to be killed at before and after each write."""

    def __init__(self, machine: Operators, point: Callable[[str], None]) -> None:
        self._machine, self._point = machine, point

    def __getattr__(self, name: str) -> Any:
        return getattr(self._machine.rollovers, name)

    def keep(self, kept: Any, rollover: Rollover) -> Any:
        self._machine.world.point("keep")
        done = self._machine.rollovers.keep(kept, rollover)
        self._machine.world.point("kept")
        return done


def _scratch() -> str | None:
    """Memory where there is some: what is tested here is not the disk."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def test_operators_that_are_killed_failed_raced_and_lied_to_do_no_harm(capsys: Any) -> None:
    for counter in (injected, fired, reached, counted):
        counter.clear()
    while counted["steps"] < FLOOR:
        run_state_machine_as_test(
            Operators,
            settings=settings(
                max_examples=max(20, (FLOOR - counted["steps"]) // STEPS),
                stateful_step_count=STEPS,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                print_blob=True,
            ),
        )
    faults = [*FATES, *HIDDEN, "third party", "hole"]
    total = sum(injected[fault] for fault in faults), sum(fired[fault] for fault in faults)
    with capsys.disabled():
        print(f"\nC17 steps={counted['steps']} injected={total[0]} fired={total[1]} violations=0")
        print("    " + ", ".join(f"{fault} {fired[fault]}" for fault in faults))
        print("    " + ", ".join(f"{state} {count}" for state, count in sorted(reached.items())))
    assert all(fired[fault] for fault in faults)
    assert reached.keys() >= {row.to for row in TABLE if row.to}
