"""How a rollover is moved on: look, ask the rules, act or keep the new state, look again.

The rules are ``rollover.rules``; the world is what ``World`` promises. What may be done is on
record before it is done, and every act can be done twice, so a command that is killed anywhere is
finished by the same command, or another, from any machine.

Two operators at once: the one who first keeps a state moves the rollover on, the other is refused.
Each act is preceded by a look at whether the state is still one's own. What is left is an act that
was already on its way when another operator rolled back: whoever made it finds that out from the
state, and sets the sitevar back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from adroit_publish.errors import RefusedError, StoreError
from adroit_publish.rollover.evidence import Evidence
from adroit_publish.rollover.measured import remembered
from adroit_publish.rollover.needs import Lack
from adroit_publish.rollover.rules import PASSING, Advance, Do, Missing, next_step, readings
from adroit_publish.rollover.state import ENDED, Answered, Rollover
from adroit_publish.stores.rollovers import Kept, Rollovers

_LOOKS = 8
"""More than the acts and states that one command can need."""
_ORDER = ("proposed", "deployed", "verified", "pointed", "draining", "drained", "retired")


class World(Protocol):
    """What a rollover reads and changes, beside its own state."""

    def now_s(self) -> float:
        """Returns the time, POSIX seconds in UTC."""
        ...

    def read(self, rollover: Rollover, names: Iterable[str]) -> tuple[Evidence, Any]:
        """Returns readings by name, taken now, and the watch of counters to be kept with them."""
        ...

    def act(
        self, rollover: Rollover, action: str, evidence: Evidence, mine: Callable[[], None]
    ) -> None:
        """Does what ``rules.Do`` names; done already is success.

        Args:
            rollover: As it is kept.
            action: ``point`` or ``delete``.
            evidence: What it rests on; a sitevar that says something else by now is left alone.
            mine: Called last before anything changes; raises where that may no longer be.
        """
        ...

    def note(self, rollover: Rollover) -> None:
        """Enters the last transition in the ledger, where it belongs there; once."""
        ...

    def take_back(self, rollover: Rollover, share: float, wanted: float) -> None:
        """Sets the sitevar to ``wanted``, where it still gives the new flavor ``share``."""
        ...


@dataclass(frozen=True)
class Outcome:
    """What a command came to.

    Attributes:
        rollover: As it is kept now.
        before: The state it was in when the command began.
        lacks: What is missing for the next step; empty where the command did its own.
    """

    rollover: Rollover
    before: str
    lacks: tuple[Lack, ...] = ()

    @property
    def moved(self) -> bool:
        """Whether the command did something."""
        return not self.lacks


def step(
    rollovers: Rollovers,
    kept: Kept,
    world: World,
    *,
    who: str,
    command: str,
    why: str | None = None,
    force: bool = False,
) -> Outcome:
    """Does the next step of a rollover, if its evidence is there.

    Args:
        rollovers: Where it is kept.
        kept: As it was read.
        world: What is looked at and changed.
        who: Who does it.
        command: ``advance``, ``finish``, ``rollback`` or ``abandon``.
        why: The reason, for the history.
        force: As for ``rules.next_step``.

    Returns:
        The state reached, or what is missing.

    Raises:
        RefusedError: Another operator was first, the sitevar was changed by others just now, or
            access is denied.
        StoreError: A place failed; the same command goes on.
        VerificationError: Something kept is damaged.
    """
    before = kept.rollover.state
    for _ in range(_LOOKS):
        names = readings(kept.rollover, command)
        if command in ("advance", "finish"):
            names |= {"answering"}
        evidence, counters = world.read(kept.rollover, names)
        looked = remembered(kept.rollover, evidence, counters)
        looked = replace(looked, answered=answered(kept.rollover, evidence))
        now_s, mine = world.now_s(), _remember(rollovers, kept, looked)
        if mine is None:  # what was read is not of the state that another operator left
            kept = rollovers.get(kept.rollover.model, kept.rollover.id)
            continue
        kept = mine
        match next_step(
            kept.rollover, evidence, now_s, who=who, command=command, why=why, force=force
        ):
            case Missing(lacks):
                return Outcome(kept.rollover, before, lacks)
            case Do(action):
                _act(rollovers, kept, world, action, evidence)
            case Advance(rollover):
                world.note(rollover)
                kept = rollovers.keep(kept, rollover)
                if rollover.state not in PASSING:
                    return Outcome(rollover, before)
    raise StoreError(
        "What was done does not show.",
        where=rollovers.where(kept.rollover),
        got=f"the rollover is {kept.rollover.state}",
        transient=True,
        next_step="run the same command again",
    )


def answered(rollover: Rollover, evidence: Evidence) -> Answered | None:
    """Returns when the old version's servers last answered, as far as is known now."""
    read = evidence.answering
    if read is None or read.last_s is None:
        return rollover.answered
    if read.servers == 0 and rollover.answered:
        return replace(rollover.answered, at_s=max(read.last_s, rollover.answered.at_s))
    return Answered(read.last_s, read.servers)


def advance_until(
    rollovers: Rollovers,
    kept: Kept,
    world: World,
    *,
    until: str,
    who: str,
    wait: Callable[[Outcome], None],
    stop: Callable[[Outcome], bool] = lambda _outcome: False,
) -> Outcome:
    """Advances until a state is reached, whatever time that takes.

    Args:
        rollovers: Where it is kept.
        kept: As it was read.
        world: What is looked at and changed.
        until: The state, or ``pointed`` for all of the traffic.
        who: Who does it.
        wait: Told what is missing; returns when it is time to look again.
        stop: Told the same before; whether to end there.

    Returns:
        The outcome of the last step: there, beyond it, held or ended.

    Raises:
        RefusedError, StoreError, VerificationError: As ``step`` does; a transient StoreError is
            waited for.
    """
    outcome = Outcome(kept.rollover, kept.rollover.state)
    while not _is_there(kept.rollover, until):
        outcome = _step_or_wait(rollovers, kept, world, who)
        if outcome.rollover.state in ("held", *ENDED):
            return outcome
        if stop(outcome):
            return outcome
        if outcome.lacks:
            wait(outcome)
        kept = rollovers.get(outcome.rollover.model, outcome.rollover.id)
    return outcome


def _step_or_wait(rollovers: Rollovers, kept: Kept, world: World, who: str) -> Outcome:
    """Advances a step; a place that fails for a while is one more thing to wait for."""
    try:
        return step(rollovers, kept, world, who=who, command="advance")
    except StoreError as error:
        if not error.transient:
            raise
        lack = Lack("places", error.what, "it is tried again")
        return Outcome(kept.rollover, kept.rollover.state, (lack,))


def _remember(rollovers: Rollovers, kept: Kept, looked: Rollover) -> Kept | None:
    """Keeps what a look has counted; None where another operator was first."""
    if looked == kept.rollover:
        return kept
    try:
        return rollovers.keep(kept, looked)
    except RefusedError:
        return None


def _is_there(rollover: Rollover, until: str) -> bool:
    if rollover.state not in _ORDER:
        return not rollover.live
    whole = until != "pointed" or rollover.state != "pointed" or rollover.shares == (100,)
    return whole and _ORDER.index(rollover.state) >= _ORDER.index(until)


def _act(rollovers: Rollovers, kept: Kept, world: World, action: str, evidence: Evidence) -> None:
    world.act(kept.rollover, action, evidence, lambda: rollovers.check(kept))
    try:
        rollovers.check(kept)
    except RefusedError:
        there = rollovers.get(kept.rollover.model, kept.rollover.id).rollover
        goal, wanted = kept.rollover.goal, there.shares_in(kept.rollover.region or "")[-1]
        if action == "point" and goal is not None and wanted < goal:
            world.take_back(there, goal, wanted)
        raise
