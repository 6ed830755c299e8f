"""The rules: which evidence moves a rollover from one state to which other.

    by         from           to            on the evidence that
    advance    proposed       deployed      both versions are published; the new one is deployed
    advance    deployed       verified      the new one answers the golden input as recorded
    advance    verified       pointing      published, verified, flavors and sitevar as recorded;
                                            the old one's traffic counted, before the first switch;
                                            approved, where the share waits for a person
    advance    pointing       pointed       the sitevar, read back, says what was to be set
                                            (point: published, verified, and as recorded)
    advance    pointed < 100  pointing      as from verified; the new one has its sample, and is no
                                            worse in it than the old one was (``measured``)
    advance    pointed 100    draining      as recorded; sample and comparison as above
    advance    draining       drained       as recorded; the old one had no request for all of the
                                            quiet time
    finish     drained        retiring      as recorded; quiet still
    finish     retiring       retired       the old flavor is gone from this clone's flavors.yaml,
                                            and from the upstream branch's
                                            (delete: as recorded; quiet still)
    rollback   pointing to    rolling back  it is not known that no server of the old version
               retiring, held               answers (or it is forced)
    rollback,  rolling back   rolled back   the sitevar, read back, points at the old flavor
    advance                                 (point: from whatever it says; where one region's
                                            cannot be read, those of the others)
    abandon    every live one abandoned     nothing: things stay as they are
    against:
    advance,   proposed to    held          others changed the sitevar, or a flavor's version
    finish     retiring
    advance    held           where it was  flavors and sitevar are as recorded again
    advance,   drained        draining      the old one has requests again
    finish
    advance,   retiring       draining      the same, and its flavor is still there
    finish

Where a target has a sitevar for each region, "the sitevar" is all of them. Where steps go region by
region, each pointing and pointed is of one region, until all have taken the step.

``TABLE`` is this, as data. A state changes by evidence alone. The world is changed only in states
that end in -ing (in brackets: what is done, and the evidence it needs then), which are on record
before: whoever comes after a crash knows what may have been done, and finds out by looking. What is
against it is looked at first. A reading older than ``Checks.fresh_s``, or from as far in the
future, does not count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from adroit_publish.rollover.evidence import Evidence
from adroit_publish.rollover.measured import baseline
from adroit_publish.rollover.needs import Lack, busy_text, changes, lacking, next_share, read_by
from adroit_publish.rollover.state import LIVE, Rollover, Transition

_EARLY = ("proposed", "deployed", "verified")
_LATE = ("pointing", "pointed", "draining", "drained", "retiring")
PASSING = ("pointing", "retiring", "rolling back")
"""States that a command goes through without a rest: something is to be done in them."""


@dataclass(frozen=True)
class Missing:
    """Nothing can be done yet: what is missing, and how to get it."""

    lacks: tuple[Lack, ...]


@dataclass(frozen=True)
class Do:
    """The world has to be changed, then looked at again.

    Attributes:
        action: ``point`` (set the sitevar to the goal) or ``delete`` (the old flavor).
    """

    action: str


@dataclass(frozen=True)
class Advance:
    """The next state is reached; ``rollover`` is to be kept."""

    rollover: Rollover


@dataclass(frozen=True)
class Act:
    """What is done in a state that ends in -ing.

    Attributes:
        action: As in ``Do``.
        until: The evidence that it brings about.
        needs: The evidence without which it may not be done.
    """

    action: str
    until: str
    needs: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        by: Commands.
        states: Where it starts.
        to: Where it leads; empty for the state that it was held in.
        needs: Evidence, by the names of ``needs``.
        acts: What to do while a piece of it is not there.
        whole: Only where the new flavor has, or has not, all of the traffic; None: either way.
        against: Whether it stands against going on.
    """

    by: tuple[str, ...]
    states: tuple[str, ...]
    to: str
    needs: tuple[str, ...] = ()
    acts: tuple[Act, ...] = ()
    whole: bool | None = None
    against: bool = False

    def starts(self, rollover: Rollover, command: str) -> bool:
        """Whether ``command`` can take it from where the rollover is."""
        whole = rollover.shares[0] == 100
        return command in self.by and rollover.state in self.states and self.whole in (None, whole)


_ONWARD = ("advance", "finish")
_SWITCH = ("published", "verified", "unchanged")
TABLE = (
    Row(_ONWARD, (*_EARLY, *_LATE), "held", ("changed",), against=True),
    Row(_ONWARD, ("drained",), "draining", ("busy",), against=True),
    Row(_ONWARD, ("retiring",), "draining", ("busy", "kept"), against=True),
    Row(("advance",), ("held",), "", ("unchanged",)),
    Row(("advance",), ("proposed",), "deployed", ("published", "deployed")),
    Row(("advance",), ("deployed",), "verified", ("verified",)),
    Row(("advance",), ("verified",), "pointing", (*_SWITCH, "counted", "approved")),
    Row(("advance",), ("pointing",), "pointed", ("set",), (Act("point", "set", _SWITCH),)),
    Row(("advance",), ("pointed",), "pointing", (*_SWITCH, "healthy", "approved"), whole=False),
    Row(("advance",), ("pointed",), "draining", ("unchanged", "healthy"), whole=True),
    Row(("advance",), ("draining",), "drained", ("unchanged", "quiet")),
    Row(("finish",), ("drained",), "retiring", ("unchanged", "quiet")),
    Row(
        ("finish",),
        ("retiring",),
        "retired",
        ("deleted", "gone"),
        (Act("delete", "deleted", ("unchanged", "quiet")),),
    ),
    Row(("rollback",), (*_LATE, "held"), "rolling back", ("answers",)),
    Row(
        ("advance", "rollback"),
        ("rolling back",),
        "rolled back",
        ("set",),
        (Act("point", "set", ("settable",)),),
    ),
    Row(("abandon",), LIVE, "abandoned"),
)


def readings(rollover: Rollover, command: str) -> frozenset[str]:
    """Returns the names of the readings that ``next_step`` looks at: attributes of Evidence."""
    names: frozenset[str] = frozenset()
    for row in TABLE:
        if row.starts(rollover, command):
            acts = [need for act in row.acts for need in (act.until, *act.needs)]
            names |= read_by((*row.needs, *acts))
            # A step's sample begins by the clock of what counts it.
            names |= {"traffic"} if row.to == "pointed" else set()
    return names


def next_step(
    rollover: Rollover,
    evidence: Evidence,
    now_s: float,
    *,
    who: str,
    command: str = "advance",
    why: str | None = None,
    force: bool = False,
) -> Advance | Do | Missing:
    """Returns what a command may do next.

    Args:
        rollover: As it is kept.
        evidence: What was read just now; ``readings`` tells what is looked at.
        now_s: The time.
        who: Who runs the command, for the history.
        command: ``advance``, ``finish``, ``rollback`` or ``abandon``.
        why: The reason, for the history.
        force: Whether to roll back to servers that are known not to answer; recorded.

    Returns:
        A rollover to keep, something to do before looking again, or what is missing.
    """
    rows = [row for row in TABLE if row.starts(rollover, command)]
    for row in rows:
        lacks = lacking(row.needs, rollover, evidence, now_s)
        forced = lacks if force and row.to == "rolling back" else ()
        if not lacks or forced:
            why = _against(row, rollover, evidence) if row.against else why
            why = "; ".join([f"{why}, forced", *(lack.found for lack in forced)]) if forced else why
            return Advance(_moved(row, rollover, evidence, now_s, who, why))
        if row.against:
            continue
        for act in row.acts:
            if act.until in {lack.evidence for lack in lacks}:
                standing = lacking(act.needs, rollover, evidence, now_s)
                return Missing(standing) if standing else Do(act.action)
        return Missing(lacks)
    return Missing((_not_from_here(rollover, command),))


def typed(command: str, rollover: Rollover) -> str:
    """Returns a command of ``rollover`` as it is typed."""
    why = " --why TEXT" if command in ("rollback", "abandon") else ""
    return f"{command} {rollover.model}{why}"


def commands(rollover: Rollover) -> list[str]:
    """Returns the commands that lead on from where a rollover is, those that lead back last."""
    ways = {by for row in TABLE if not row.against for by in row.by if row.starts(rollover, by)}
    return sorted(ways, key=lambda way: (way == "abandon", way == "rollback", way))


def _moved(
    row: Row, rollover: Rollover, evidence: Evidence, now_s: float, who: str, why: str | None
) -> Rollover:
    """Returns the rollover in the row's state, with what that state brings."""
    state = row.to or rollover.resume or ""
    facts = evidence.facts(read_by(row.needs))
    entry = Transition(now_s, who, rollover.state, state, why, facts)
    moved = replace(rollover, state=state, resume=None, history=(*rollover.history, entry))
    match row.to:
        case "held":
            return replace(moved, resume=rollover.state)
        case "pointing":
            goal = next_share(rollover)
            if evidence.traffic and not rollover.baseline:
                moved = replace(moved, baseline=baseline(evidence.traffic))
            region = next(_behind(rollover, evidence), None) if rollover.checks.by_region else None
            return replace(moved, goal=goal, shares=(rollover.shares[0], goal), region=region)
        case "rolling back":
            shares = tuple(dict.fromkeys((*rollover.shares, *rollover.ahead.values(), 0.0)))
            return replace(moved, goal=0.0, shares=shares, region=None)
        case "pointed" | "rolled back":
            since_s = evidence.traffic.source_s if evidence.traffic else None
            return replace(_arrived(moved, evidence), moved_s=now_s, sample_s=since_s)
    return moved


def _behind(rollover: Rollover, evidence: Evidence) -> Iterator[str]:
    """Yields the regions that have not taken the step yet, in the order that they take it."""
    return (region for region in _read_regions(evidence) if region not in rollover.ahead)


def _read_regions(evidence: Evidence) -> Iterable[str]:
    return evidence.pointer.regions if evidence.pointer else ()


def _arrived(moved: Rollover, evidence: Evidence) -> Rollover:
    """Returns the rollover at its goal: in one region, where others follow, or everywhere."""
    goal, region = moved.goal, moved.region
    assert goal is not None
    regions = [name for name in _read_regions(evidence) if region in (None, name)]
    if regions or region:  # a region that is no longer the target's was not set
        facts = {**moved.history[-1].facts, "regions": regions}
        moved = replace(
            moved, history=(*moved.history[:-1], replace(moved.history[-1], facts=facts))
        )
    moved = replace(moved, goal=None, region=None)
    if region:
        taken = {**moved.ahead, **dict.fromkeys(regions, goal)}
        ahead = replace(moved, ahead=taken, shares=moved.shares[:1])
        if any(_behind(ahead, evidence)):
            return ahead
    return replace(moved, ahead={}, shares=(goal,))


def _against(row: Row, rollover: Rollover, evidence: Evidence) -> str:
    if row.to == "held":
        return changes(rollover, evidence)
    assert evidence.traffic
    return busy_text(rollover, evidence.traffic)


def _not_from_here(rollover: Rollover, command: str) -> Lack:
    ways = ", ".join(f"`rollover {typed(way, rollover)}`" for way in commands(rollover))
    stands = f"the rollover is {rollover.state}, which `rollover {command}` does not lead on from"
    how = f"from here: {ways}" if ways else "it has ended; start another"
    wanted = command == "advance" or (command == "finish" and rollover.state == "retired")
    if command == "finish" and rollover.state == "draining":
        return Lack("state", stands, how)  # not yet: `advance` leads there
    return Lack("state", stands, how, "refused" if ways or not wanted else "ended")
