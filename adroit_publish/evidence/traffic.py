"""What a rollover asks of traffic: how many requests each bundle answered, and how many failed.

``Traffic`` is the edge, of one method; each source is a module, and ``sources`` chooses one by its
scheme. A reading is evidence for a bundle only where all of this holds; anything else is *no
evidence*, and no evidence is never zero:

* ``read`` returned. A source that is away or answers nonsense is a StoreError.
* ``utc`` is recent: it is the time of the newest count that went in, not the time of asking, so a
  source that goes on answering from old samples gives an old reading.
* ``window_s`` is long enough: only what was watched without a hole is in it. ``problems`` says why
  it is shorter than was asked for; with a server that cannot be counted at all it is 0.
* ``by_bundle`` has the bundle: where it has not, no server of it was ever seen.

Time is the source's own: whoever asks may have a clock that is wrong, and two operators two of
them. ``source_s`` goes back to the source as ``since_s``.

A request is anything that ``/invocations`` answered, probes aside; it failed where the status is
not 2xx. Its callers' failures are counted apart: a version that no longer takes what its callers
send fails with those. The server says whose a failure is (``FAULTS``), since by MLflow's contract a
model's own exception is a 400 too. Of a server that does not say it, every 4xx is a caller's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Protocol

from adroit_publish.rollover.evidence import Counts
from adroit_publish.rollover.health import Buckets

REQUESTS = "adroit_invocation_seconds_count"
"""Counts every request, and is there from 0 on: the counters by status begin with a request."""
BY_STATUS = "adroit_invocations_total"
BUCKETS = "adroit_invocation_seconds_bucket"
FAULTS = "adroit_invocation_faults_total"
"""Failures by whose they are; there from 0 on. Servers of older runtimes do not count it."""

_BUNDLE_ID = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class TrafficReading:
    """The traffic of several bundles in one window.

    Attributes:
        utc: When the window ends: the time of the oldest of the newest counts that went in.
        window_s: How much was watched without a hole up to then.
        by_bundle: By bundle id; a bundle of which no server was ever seen is not in it.
        problems: Why this proves less than was asked for, a line each.
        source_s: When the window ends by the source's own clock, POSIX seconds; None: by ``utc``.
        answers: What questions of the user's own were answered with, by question.
    """

    utc: datetime
    window_s: float
    by_bundle: Mapping[str, Counts]
    problems: tuple[str, ...] = ()
    source_s: float | None = None
    answers: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Returns it as JSON values."""
        return asdict(self) | {"utc": self.utc.isoformat()}


class Traffic(Protocol):
    """Where requests are counted."""

    @property
    def watches(self) -> bool:
        """Whether each reading is compared with the last, so that every look has to take one."""
        ...

    @property
    def state(self) -> Mapping[str, Any] | None:
        """What the next reading needs of those before it, as JSON values; None: nothing."""
        ...

    def read(
        self,
        bundle_ids: Sequence[str],
        window_s: float,
        since_s: float | None = None,
        questions: Sequence[str] = (),
    ) -> TrafficReading:
        """Returns the traffic of the bundles in the last ``window_s`` seconds.

        Args:
            bundle_ids: ``sha256:...``, one at least.
            window_s: A second at least.
            since_s: The window begins no earlier than this, by the source's own clock.
            questions: Questions of the user's own, in the source's language.

        Raises:
            StoreError: The source is away (``transient``), or does not answer as it should.
        """
        ...


class Several:
    """A ``Traffic`` that is counted in several places, such as one Prometheus for each region.

    All of them have to answer, and what all of them have watched is the window. Their clocks are
    taken to agree: servers' clocks are kept, operators' are not.

    Args:
        places: Two or more that keep no state.
    """

    watches = False
    state = None

    def __init__(self, places: Sequence[Traffic]) -> None:
        self._places = tuple(places)

    def read(
        self,
        bundle_ids: Sequence[str],
        window_s: float,
        since_s: float | None = None,
        questions: Sequence[str] = (),
    ) -> TrafficReading:
        """Returns the traffic of all places together; see ``Traffic.read``."""
        ask = (bundle_ids, window_s, since_s, questions)
        readings = [place.read(*ask) for place in self._places]
        watched_s = min(reading.window_s for reading in readings)
        if watched_s >= 1:  # all of them for the same time, so that shares can be compared
            readings = [
                place.read(bundle_ids, watched_s, since_s, questions) for place in self._places
            ]
        return _together(readings)


def _together(readings: Sequence[TrafficReading]) -> TrafficReading:
    seen = {bundle_id for reading in readings for bundle_id in reading.by_bundle}
    return TrafficReading(
        min(reading.utc for reading in readings),
        min(reading.window_s for reading in readings),
        {
            bundle_id: total(
                reading.by_bundle[bundle_id]
                for reading in readings
                if bundle_id in reading.by_bundle
            )
            for bundle_id in seen
        },
        tuple(dict.fromkeys(line for reading in readings for line in reading.problems)),
        min(reading.source_s or reading.utc.timestamp() for reading in readings),
        {
            question: tuple(value for reading in readings for value in reading.answers[question])
            for question in readings[0].answers
        },
    )


def total(parts: Iterable[Counts]) -> Counts:
    """Returns the sum of counts; their latency only where all have it by the same buckets."""
    counts = list(parts)
    bounds = {tuple(bound for bound, _ in part.latency) for part in counts}
    latency: Buckets = ()
    if len(bounds) == 1:
        columns = zip(*(part.latency for part in counts), strict=True)
        latency = tuple((column[0][0], sum(count for _, count in column)) for column in columns)
    return Counts(
        sum(part.requests for part in counts),
        sum(part.errors for part in counts),
        sum(part.caller_errors for part in counts),
        latency,
    )


def check_question(bundle_ids: Sequence[str], window_s: float) -> None:
    """Raises ValueError unless these are bundle ids and a window of a second at least."""
    if not bundle_ids or not all(_BUNDLE_ID.fullmatch(bundle_id) for bundle_id in bundle_ids):
        raise ValueError(f"not bundle ids: {bundle_ids!r}")
    if not 1 <= window_s < float("inf"):
        raise ValueError(f"a window of {window_s} s")
