"""What was read of the world, as the rules see it: values, and the time each was read at.

A reading that could not be had is None, and ``absent`` says why. Times are POSIX seconds in UTC.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from adroit_publish.rollover.health import Buckets
from adroit_publish.rollover.state import Weights


class Reading(Protocol):
    """What every reading has: the time it is of."""

    @property
    def utc_s(self) -> float:
        """When it was read."""
        ...


@dataclass(frozen=True)
class Publication:
    """Whether both versions are whole in store and registry.

    Attributes:
        utc_s: When they were looked at.
        old: A line for each problem of the old one.
        new: The same of the new one.
        registry: Whether there is a registry that was looked at.
    """

    utc_s: float
    old: tuple[str, ...]
    new: tuple[str, ...]
    registry: bool = True


@dataclass(frozen=True)
class FlavorsRead:
    """What flavors.yaml says.

    Attributes:
        utc_s: When it was read.
        old: The old flavor's version; None where the flavor is not there.
        new: The new flavor's version; None where the flavor is not there.
        upstream: The branch of a remote that the checkout follows; None where it follows none.
        upstream_has_old: Whether that branch's flavors.yaml has the old flavor.
    """

    utc_s: float
    old: str | None
    new: str | None
    upstream: str | None = None
    upstream_has_old: bool = False


@dataclass(frozen=True)
class PointerRead:
    """What the sitevar says, or those of several regions.

    Attributes:
        utc_s: When it was read.
        weights: Percent by flavor; None where it has no entry for the model, or regions differ.
        regions: By region what its sitevar says, in the order of steps; empty where there is one.
        unread: By region, why its sitevar could not be read.
    """

    utc_s: float
    weights: Weights | None
    regions: Mapping[str, Weights] = field(default_factory=dict)
    unread: Mapping[str, str] = field(default_factory=dict)

    @property
    def by_region(self) -> Mapping[str, Weights]:
        """What every sitevar that could be read says; a target's only one has the region ``""``."""
        return self.regions if self.regions or self.unread else {"": self.weights or {}}


@dataclass(frozen=True)
class EndpointsRead:
    """What the new version's servers answered.

    Attributes:
        utc_s: When they were asked.
        deployed: Whether every URL runs the new version, on all replicas that are expected.
        verified: Whether every answer to the golden input is the recorded one.
        problems: What was wrong, a line each.
        facts: What is kept of it in the history.
    """

    utc_s: float
    deployed: bool
    verified: bool
    problems: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AnsweringRead:
    """Which servers of the old version answer.

    Attributes:
        utc_s: When they were asked.
        servers: How many do; 0 only where it is known that none does.
        last_s: When one was last seen to answer, POSIX seconds; None where that is not known.
    """

    utc_s: float
    servers: int
    last_s: float | None


@dataclass(frozen=True)
class Counts:
    """Answered requests, and what became of them.

    Attributes:
        requests: All of them, failed ones included.
        errors: Those whose status is not 2xx.
        caller_errors: Those of them whose status is 4xx: the version refused what was sent.
        latency: How long they took. No part of what makes two counts equal: a source may estimate.
    """

    requests: float
    errors: float
    caller_errors: float = 0.0
    latency: Buckets = field(default=(), compare=False)

    @property
    def server_errors(self) -> float:
        """Those that failed by the server's own fault."""
        return self.errors - self.caller_errors


@dataclass(frozen=True)
class TrafficRead:
    """What was asked of both versions in the ``window_s`` seconds up to ``utc_s``.

    Attributes:
        utc_s: When the window ends, by the clock of whoever asked.
        window_s: How much was watched without a hole up to then; 0: nothing was.
        old: The old version's.
        new: The new version's.
        source_s: When the window ends, by the clock of what counts; all operators see this one.
        notes: Why the window is shorter than was asked for, a line each.
        answers: What the questions of the user's own were answered with, by question.
    """

    utc_s: float
    window_s: float
    old: Counts
    new: Counts
    source_s: float = 0.0
    notes: tuple[str, ...] = ()
    answers: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Evidence:
    """Everything that was read for one decision.

    Attributes:
        absent: Why a reading is not there, by the name of its attribute.
    """

    published: Publication | None = None
    flavors: FlavorsRead | None = None
    pointer: PointerRead | None = None
    endpoints: EndpointsRead | None = None
    traffic: TrafficRead | None = None
    answering: AnsweringRead | None = None
    absent: Mapping[str, str] = field(default_factory=dict)

    def facts(self, names: Iterable[str]) -> dict[str, Any]:
        """Returns some of the readings as JSON values, for the history."""
        there = {name: getattr(self, name) for name in sorted(names)}
        return {name: _plain(asdict(reading)) for name, reading in there.items() if reading}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
