"""Traffic out of points: counts by interval, as monitoring services keep them.

A point says what was counted from its time on, for a step. A service that keeps points tells when a
server was watched only by having a point, of 0 where nothing was asked:

* Points of a server that lie further apart than they usually do have a hole between them, and the
  window begins after it.
* A server whose points ended before the others' was lost or has gone, which no point tells: the
  window begins where they ended. So a server that is out of sight for all of the quiet time is
  taken to have gone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from adroit_publish.errors import StoreError
from adroit_publish.evidence.samples import Hole, gaps
from adroit_publish.evidence.traffic import TrafficReading
from adroit_publish.rollover.evidence import Counts
from adroit_publish.rollover.health import UNBOUNDED_S, Buckets


@dataclass(frozen=True)
class Points:
    """One series.

    Attributes:
        labels: What it is of: ``bundle_id``, and ``status`` or ``le`` where it has them.
        points: (time, count from then on), seconds by the service's clock, oldest first.
    """

    labels: Mapping[str, str]
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Moment:
    """What was asked for.

    Attributes:
        at: When, by our own clock.
        now_s: When, by the service's clock.
        start_s: Where the window begins, by the service's clock.
        step_s: How long a point's interval is.
    """

    at: datetime
    now_s: float
    start_s: float
    step_s: float


def reading_of(
    asked: Moment,
    where: str,
    bundle_ids: Sequence[str],
    requests: Sequence[Points],
    statuses: Sequence[Points],
    faults: Sequence[Points],
    buckets: Sequence[Points],
    answers: Mapping[str, tuple[float, ...]],
) -> TrafficReading:
    """Returns the traffic that points tell of.

    Args:
        asked: What was asked for.
        where: The service, for messages.
        bundle_ids: Whose traffic.
        requests: Of each server.
        statuses: Those whose status is not 2xx, by status.
        faults: Those that were their callers' fault; empty where servers do not count that.
        buckets: By ``le``, cumulative.
        answers: What questions of the user's own were answered with.

    Raises:
        StoreError: There is no point at all.
    """
    ends = [series.points[-1][0] + asked.step_s for series in requests if series.points]
    if not ends:
        raise StoreError(
            "No point of any server's requests is kept there.",
            where=where,
            next_step="see that the metrics of both versions arrive, under the names in "
            "docs/rollover.md",
        )
    end = min(max(ends), asked.now_s)
    begun = min(series.points[0][0] for series in requests if series.points)
    start, problems = asked.start_s, []
    if begun > start + asked.step_s:
        looked_s = asked.now_s - asked.start_s
        problems.append(f"points are kept for less than the {looked_s:.0f} s that are looked at")
        start = begun
    after = [hole for hole in sorted(_holes(requests, end, asked.step_s)) if hole[1] > start]
    problems += [
        f"no points of a server from {_clock(low)} to {_clock(high)}" for low, high in after
    ]
    start = max([start, *(high for _, high in after)])

    counts = {
        bundle_id: Counts(
            _total(requests, bundle_id, start, end),
            _total(statuses, bundle_id, start, end),
            _total(_callers(faults, statuses, bundle_id), bundle_id, start, end),
            _latency(buckets, bundle_id, start, end),
        )
        for bundle_id in bundle_ids
        if any(series.labels.get("bundle_id") == bundle_id for series in requests)
    }
    utc = asked.at - timedelta(seconds=max(0.0, asked.now_s - end))
    return TrafficReading(utc, max(0.0, end - start), counts, tuple(problems), end, answers)


def nothing_of(asked: Moment) -> TrafficReading:
    """Returns what is known of a time to come: nothing, in a window of no length."""
    return TrafficReading(asked.at, 0.0, {}, (), asked.now_s, {})


def _callers(
    faults: Sequence[Points], statuses: Sequence[Points], bundle_id: str
) -> Sequence[Points]:
    if any(one.labels.get("bundle_id") == bundle_id for one in faults):
        return faults
    return [one for one in statuses if one.labels.get("status", "").startswith("4")]


def _total(series: Sequence[Points], bundle_id: str, start: float, end: float) -> float:
    return sum(
        count
        for one in series
        if one.labels.get("bundle_id") == bundle_id
        for when, count in one.points
        if start <= when < end
    )


def _latency(buckets: Sequence[Points], bundle_id: str, start: float, end: float) -> Buckets:
    of_bound: dict[float, float] = {}
    for one in buckets:
        if "le" in one.labels:
            bound = min(float(one.labels["le"]), UNBOUNDED_S)
            of_bound[bound] = of_bound.get(bound, 0) + _total([one], bundle_id, start, end)
    return tuple(sorted(of_bound.items()))


def _holes(requests: Sequence[Points], end: float, step_s: float) -> Iterator[Hole]:
    for series in requests:
        times = [when for when, _ in series.points]
        yield from gaps([*times], step_s)
        if times and gaps([times[-1], end - step_s], step_s):
            yield times[-1] + step_s, times[-1] + step_s  # lost or gone: from then on without it


def _clock(when: float) -> str:
    return f"{datetime.fromtimestamp(when, UTC):%H:%M:%S}"
