"""The evidence that the table in ``rules`` names: what each piece reads, and when it is there.

A check is given readings that are there and fresh. It returns None, or what it found in place of
what is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from adroit_publish.rollover.evidence import Evidence, PointerRead, Reading, TrafficRead
from adroit_publish.rollover.measured import (
    ROUNDING_S,
    Unhealthy,
    health,
    nothing_watched,
    with_notes,
)
from adroit_publish.rollover.state import Rollover, Weights

AHEAD_S = 5.0
"""A reading from further in the future is none: what its clock says is not to be gone by."""


@dataclass(frozen=True)
class Lack:
    """A piece of evidence that is not there.

    Attributes:
        evidence: Its name in the table.
        found: What there is in its place.
        how: What to do about it.
        verdict: ``waiting`` (time or a mend may bring it), ``unhealthy`` (the new version is
            measured to be worse), ``held`` (others changed something), ``refused``, or ``ended``
            (there is no next step, and that is what was wanted).
    """

    evidence: str
    found: str
    how: str
    verdict: str = "waiting"


def lacking(
    needs: Iterable[str], rollover: Rollover, evidence: Evidence, now_s: float
) -> tuple[Lack, ...]:
    """Returns what is missing of ``needs``; empty where all of it is there."""
    lacks = (_lack(need, rollover, evidence, now_s) for need in needs)
    return tuple(filter(None, lacks))


def read_by(needs: Iterable[str]) -> frozenset[str]:
    """Returns the readings that these needs look at: names of attributes of ``Evidence``."""
    return frozenset(name for need in needs for name in _NEEDS[need].reads)


def changes(rollover: Rollover, evidence: Evidence) -> str:
    """Returns what others changed under the rollover; empty where it is as recorded."""
    assert evidence.flavors
    assert evidence.pointer
    lines = []
    sides = ((rollover.old, evidence.flavors.old), (rollover.new, evidence.flavors.new))
    for side, version in sides:
        deleting = "retiring" in (rollover.state, rollover.resume)
        deleted = deleting and side is rollover.old and version is None
        if version != side.version and not deleted:
            there = version or "has no version, or is gone"
            lines.append(f"the flavor {side.flavor} was {side.version}, now {there}")
    return "; ".join([*lines, *_foreign(rollover, evidence.pointer)])


def busy_text(rollover: Rollover, reading: TrafficRead) -> str:
    """Returns the old version's requests in words."""
    requests, window_s = reading.old.requests, reading.window_s
    return f"{rollover.old.flavor} had {requests:.0f} requests in {window_s:.0f} s"


def weights_text(weights: Weights | None) -> str:
    """Returns weights as people write them: ``a``, or ``a=90, b=10``, or ``nothing``."""
    if not weights:
        return "nothing"
    if len(weights) == 1:
        return str(*weights)
    return ", ".join(f"{flavor}={percent:g}" for flavor, percent in sorted(weights.items()))


def pointed_text(rollover: Rollover) -> str:
    """Returns what the rollover left the sitevar at; regions that are ahead by their names."""
    ahead = [
        f"{region}: {weights_text(rollover.weights(at))}" for region, at in rollover.ahead.items()
    ]
    return "; ".join([weights_text(rollover.weights(rollover.shares[0])), *ahead])


def unread_text(pointer: PointerRead) -> str:
    """Returns which regions' sitevars could not be read, and why; empty where all could."""
    return "; ".join(
        f"{sitevar_name(region)} could not be read: {why}" for region, why in pointer.unread.items()
    )


def sitevar_name(region: str) -> str:
    """Returns what people call the sitevar of a region."""
    return f"the sitevar of {region}" if region else "the sitevar"


def _lack(need: str, rollover: Rollover, evidence: Evidence, now_s: float) -> Lack | None:
    kind = _NEEDS[need]
    for name in kind.reads:
        reading: Reading | None = getattr(evidence, name)
        if kind.optional and (reading is None or _too_old(reading, rollover, now_s)):
            return None
        if reading is None:
            return Lack(need, evidence.absent.get(name, "it was not read"), _HOW_TO_READ[name])
        if reading.utc_s > now_s + AHEAD_S:
            ahead = f"the reading is of {reading.utc_s - now_s:.0f} s from now: a clock is wrong"
            return Lack(need, ahead, _HOW_TO_READ[name])
        if _too_old(reading, rollover, now_s):
            stale = f"the reading is {now_s - reading.utc_s:.0f} s old, too old to go by"
            return Lack(need, stale, _HOW_TO_READ[name])
    if kind.everywhere and evidence.pointer and evidence.pointer.unread:
        return Lack(need, unread_text(evidence.pointer), _HOW_TO_READ["pointer"])
    match kind.check(rollover, evidence):
        case None:
            return None
        case Unhealthy(found):
            return Lack(need, found, kind.how, "unhealthy")
        case found:
            how = kind.how.replace("{model}", rollover.model)
            return Lack(need, found, how, kind.verdict)


def _too_old(reading: Reading, rollover: Rollover, now_s: float) -> bool:
    age_s = now_s - reading.utc_s
    return age_s > rollover.checks.fresh_s or age_s < -AHEAD_S


def _foreign(rollover: Rollover, pointer: PointerRead) -> Iterator[str]:
    """Yields a line for each sitevar that says what this rollover did not set."""
    for region, weights in pointer.by_region.items():
        ours = [rollover.weights(share) for share in rollover.shares_in(region)]
        if weights not in ours:
            wanted = " or ".join(map(weights_text, ours))
            says = f"{sitevar_name(region)} says {weights_text(weights)}"
            yield f"{says}; this rollover left it at {wanted}"


def _unset(rollover: Rollover, pointer: PointerRead) -> list[str]:
    """Returns a line for each sitevar that is to be set to the goal, and says something else."""
    assert rollover.goal is not None
    wanted = rollover.weights(rollover.goal)
    return [
        f"{sitevar_name(region)} says {weights_text(weights)}"
        for region, weights in pointer.by_region.items()
        if rollover.region in (None, region) and weights != wanted
    ]


# The checks. `lacking` has seen to it that their readings are there.


def _published(_rollover: Rollover, evidence: Evidence) -> str | None:
    assert evidence.published
    return "; ".join(evidence.published.old + evidence.published.new) or None


def _deployed(_rollover: Rollover, evidence: Evidence) -> str | None:
    assert evidence.endpoints
    problems = "; ".join(evidence.endpoints.problems)
    return None if evidence.endpoints.deployed else problems or "not every server runs it"


def _verified(_rollover: Rollover, evidence: Evidence) -> str | Unhealthy | None:
    assert evidence.endpoints
    problems = "; ".join(evidence.endpoints.problems)
    if not evidence.endpoints.deployed:
        return problems or "not every server runs it"
    if evidence.endpoints.verified:
        return None
    return Unhealthy(problems or "an answer is not the recorded one")


def _unchanged(rollover: Rollover, evidence: Evidence) -> str | None:
    return changes(rollover, evidence) or None


def _changed(rollover: Rollover, evidence: Evidence) -> str | None:
    return None if changes(rollover, evidence) else "everything is as recorded"


def _set(rollover: Rollover, evidence: Evidence) -> str | None:
    assert evidence.pointer
    unread = [unread_text(evidence.pointer)] if evidence.pointer.unread else []
    return "; ".join([*_unset(rollover, evidence.pointer), *unread]) or None


def _settable(rollover: Rollover, evidence: Evidence) -> str | None:
    """Whether a sitevar can be set now: one that cannot be read does not hold up the others."""
    assert evidence.pointer
    return None if _unset(rollover, evidence.pointer) else unread_text(evidence.pointer) or None


def _healthy(rollover: Rollover, evidence: Evidence) -> str | Unhealthy | None:
    assert evidence.traffic
    return health(rollover, evidence.traffic)


def _counted(rollover: Rollover, evidence: Evidence) -> str | None:
    assert evidence.traffic
    if evidence.traffic.window_s > 0:
        return None
    return with_notes(f"nothing was counted of {rollover.old.flavor} yet", evidence.traffic)


def _approved(rollover: Rollover, _evidence: Evidence) -> str | None:
    share, goal = rollover.shares[0], next_share(rollover)
    waits = [at for at in rollover.checks.approve_at if share < at <= goal]
    given = max((approval.share for approval in rollover.approvals), default=0.0)
    return f"{goal:g} % waits for a person" if waits and given < goal else None


def next_share(rollover: Rollover) -> float:
    """Returns the share that the next switch points to; 100 where there is none left."""
    if rollover.ahead:
        return max(rollover.ahead.values())  # the step is on its way through the regions
    return next((step for step in rollover.steps if step > rollover.shares[0]), 100.0)


def _quiet(rollover: Rollover, evidence: Evidence) -> str | None:
    assert evidence.traffic
    reading, wanted_s = evidence.traffic, rollover.checks.quiet_s
    if reading.old.requests > 0:
        return busy_text(rollover, reading)
    if unwatched := nothing_watched(rollover, reading):
        return unwatched
    if reading.window_s >= wanted_s - ROUNDING_S:
        return None
    quiet = f"{rollover.old.flavor} is quiet for {reading.window_s:.0f} of {wanted_s:g} s"
    return with_notes(quiet, reading)


def _busy(_rollover: Rollover, evidence: Evidence) -> str | None:
    assert evidence.traffic
    return None if evidence.traffic.old.requests > 0 else "it is quiet"


def _deleted(rollover: Rollover, evidence: Evidence) -> str | None:
    assert evidence.flavors
    flavors = evidence.flavors
    if flavors.old is None or (flavors.upstream and not flavors.upstream_has_old):
        return None  # a clone that has not pulled yet decides nothing
    return f"{rollover.old.flavor} is in flavors.yaml"


def _gone(rollover: Rollover, evidence: Evidence) -> str | None:
    assert evidence.flavors
    if not evidence.flavors.upstream_has_old:
        return None
    return f"{rollover.old.flavor} is in flavors.yaml of {evidence.flavors.upstream}"


def _kept(_rollover: Rollover, evidence: Evidence) -> str | None:
    assert evidence.flavors
    return None if evidence.flavors.old is not None else "the flavor is gone"


def _answers(rollover: Rollover, evidence: Evidence) -> str | None:
    assert evidence.answering
    if evidence.answering.servers:
        return None
    return f"no server of {rollover.old.flavor} ({rollover.old.version}) answers"


@dataclass(frozen=True)
class _Need:
    reads: tuple[str, ...]
    check: Callable[[Rollover, Evidence], str | Unhealthy | None]
    how: str
    verdict: str = "waiting"
    optional: bool = False
    """Whether what is not known, or not any more, does not stand against it."""
    everywhere: bool = False
    """Whether the sitevar of every region has to be read for it."""


_NEEDS = {
    "published": _Need(
        ("published",),
        _published,
        "publish it again: that heals it from its other place, or says what to do",
    ),
    "deployed": _Need(("endpoints",), _deployed, "deploy the new version to these URLs"),
    "verified": _Need(("endpoints",), _verified, "look at the servers; nothing is switched"),
    "unchanged": _Need(
        ("flavors", "pointer"),
        _unchanged,
        "put it back as it was, then `rollover advance`; or `rollover rollback --why TEXT`, or "
        "`rollover abandon --why TEXT`",
        "held",
        everywhere=True,
    ),
    "changed": _Need(("flavors", "pointer"), _changed, ""),
    "set": _Need(("pointer",), _set, "the same command sets it"),
    "healthy": _Need(
        ("traffic",), _healthy, "wait, or go back with `rollover rollback --why TEXT`"
    ),
    "counted": _Need(("traffic",), _counted, "look at what counts the traffic of both versions"),
    "approved": _Need((), _approved, "`rollover approve --why TEXT`, by a person who has looked"),
    "quiet": _Need(("traffic",), _quiet, "wait: `rollover advance --until drained` does"),
    "busy": _Need(("traffic",), _busy, ""),
    "deleted": _Need(("flavors",), _deleted, "the same command deletes it"),
    "gone": _Need(
        ("flavors",),
        _gone,
        "commit and push the deletion (`rollover finish --push` does), then `rollover finish`",
    ),
    "kept": _Need(("flavors",), _kept, ""),
    "settable": _Need(("pointer",), _settable, "the same command sets the others, once it answers"),
    "answers": _Need(
        ("answering",),
        _answers,
        "start the old servers; if they answer all the same: "
        "`python -m adroit_publish rollover rollback {model} --force --why TEXT`",
        "refused",
        optional=True,
    ),
}
_HOW_TO_READ = {
    "published": "look at the store and the registry, then run the same command again",
    "flavors": "run the command in a checkout whose flavors.yaml can be read",
    "pointer": "look at the target's sitevars, then run the same command again",
    "endpoints": "look at the servers, then run the same command again",
    "traffic": "look at what counts the traffic, then run the same command again",
    "answering": "name the old servers: `rollover amend --old-url URL --why TEXT`",
}
