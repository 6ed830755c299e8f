"""Traffic as a Prometheus server, or what speaks its query API, has seen it.

All questions are asked for one moment of the server's own clock. Counters are taken as raw samples
and added up here: ``increase()`` extrapolates, and misses what a series counted before its first
sample, such as the only request to a server that has just restarted. Only latency is asked for with
it, where a share is all that counts.

What was watched is read from ``up``, which Prometheus writes for every scrape, failed or not:

* A *hole* is a time in which a target, or all of them, have no good sample for more than two and a
  half intervals; or in which a scrape failed and the counters began anew. The window begins after
  the last hole: what a process answered in it, and was restarted, is on no record.
* ``up`` is 0: a server cannot be scraped. What it answers is not counted: there is no window.
* Relabelling that gives the metrics another ``job`` or ``instance`` than ``up`` has leaves it open
  which target they are of, and whether it is scraped: there is no window.
* The target is no longer there, or scrapes well and shows another bundle: the server has gone, and
  what it counted to its end is all there is. So a bundle whose servers were taken out of the scrape
  configuration, or were replaced, ends at zero; whoever takes a running server out of sight of
  Prometheus takes its traffic out of sight as well.
* No server of the bundle was scraped in ``HISTORY_S``: the bundle is not in the reading.

A Prometheus that no longer scrapes gives an old ``utc``, and, once its own look-back (5 minutes) is
over, a StoreError. What a process answered between its last scrape and its end was never counted.
Two servers that scrape the same targets behind one address count twice, unless it deduplicates.

Source: Prometheus documentation, "HTTP API", "Querying basics" (staleness), "Jobs and instances".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import ceil, isfinite
from typing import Any

from adroit_publish.edge.text import printable
from adroit_publish.errors import StoreError
from adroit_publish.evidence.access import access_to
from adroit_publish.evidence.answers import SHOWN_CHARS, Visit, check_address
from adroit_publish.evidence.samples import Samples, gaps, holes, increase, usual_step
from adroit_publish.evidence.traffic import (
    BUCKETS,
    BY_STATUS,
    FAULTS,
    REQUESTS,
    TrafficReading,
    check_question,
)
from adroit_publish.rollover.evidence import Counts
from adroit_publish.rollover.health import UNBOUNDED_S, Buckets

TIMEOUT_S = 30.0
HISTORY_S = 7 * 86400
"""How far back a bundle's servers are remembered that have gone since."""
BASELINE_S = 300
"""How long before the window the sample may lie that the first one in it is compared with."""
_ANSWER_LIMIT_BYTES = 64 << 20
_BEFORE_S = 0.001

_Target = tuple[str | None, str | None]
_Series = tuple[dict[str, str], list[tuple[float, float]]]


class PrometheusTraffic:
    """A ``Traffic`` that asks a Prometheus server.

    Args:
        url: ``http://HOST:9090``; the path before ``/api/v1``, where there is one, goes with it.
        timeout_s: How long it may be silent.

    Raises:
        ConfigError: ``url`` is not an address, or holds credentials.
    """

    watches = False
    state = None

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_S) -> None:
        check_address(url)
        self._url, self._timeout_s = url, timeout_s

    def read(
        self,
        bundle_ids: Sequence[str],
        window_s: float,
        since_s: float | None = None,
        questions: Sequence[str] = (),
    ) -> TrafficReading:
        """Returns the traffic of the last ``window_s`` seconds; see ``Traffic.read``.

        Raises:
            ConfigError: What lets us in cannot be read.
        """
        check_question(bundle_ids, window_s)
        asked = datetime.now(UTC)
        with Visit(self._url, self._timeout_s, access_to(self._url)) as visit:
            return _Reader(visit, bundle_ids).read(asked, window_s, since_s, questions)


class _Reader:
    def __init__(self, visit: Visit, bundle_ids: Sequence[str]) -> None:
        self._visit, self._bundle_ids = visit, bundle_ids
        self._problems: list[str] = []
        self._at: float | None = None

    def read(
        self, asked: datetime, window_s: float, since_s: float | None, questions: Sequence[str]
    ) -> TrafficReading:
        some = f'bundle_id=~"{"|".join(self._bundle_ids)}"'
        newest = self._query("max(timestamp(up))")
        if not newest:
            raise StoreError(
                "Prometheus scrapes nothing, so it cannot tell what traffic there is.",
                where=self._visit.url,
                next_step="see its targets, and that they are up",
            )
        now, scraped = newest[0][1][0]
        self._at = now  # the same moment for all that follows
        if since_s is not None:
            window_s = min(window_s, now - since_s)
        if window_s < 1:
            self._problems.append("nothing was counted yet since the sitevar was set")
        span_s = ceil(max(window_s, 1)) + BASELINE_S
        requests = self._query(f"{REQUESTS}{{{some}}}[{span_s}s]")
        known = self._query(f"present_over_time({REQUESTS}{{{some}}}[{span_s + HISTORY_S}s])")
        live = self._query(f"timestamp({REQUESTS}{{{some}}})")
        in_step = since_s is not None
        start = self._watched_from(now, window_s, span_s, known, requests, in_step)
        errors = self._query(f'{BY_STATUS}{{{some},status!~"2.."}}[{span_s}s]')
        faults = self._query(f'{FAULTS}{{{some},fault="client"}}[{span_s}s]')
        counts = {
            bundle_id: replace(
                _counts(requests, errors, faults, bundle_id, start),
                latency=self._latency(bundle_id, now - start),
            )
            for bundle_id in self._bundle_ids
            if _has(known, bundle_id)
        }
        newest_counted = min((samples[0][1] for _, samples in live), default=scraped)
        answers = {question: self._answers(question) for question in questions}
        return TrafficReading(
            # An age, not a time: the server's clock need not be ours.
            asked - timedelta(seconds=max(0.0, now - newest_counted)),
            max(0.0, now - start),
            counts,
            tuple(self._problems),
            now,
            answers,
        )

    def _answers(self, question: str) -> tuple[float, ...]:
        return tuple(samples[0][1] for _, samples in self._query(question))

    def _watched_from(
        self,
        now: float,
        window_s: float,
        span_s: int,
        known: list[_Series],
        counted: list[_Series],
        in_step: bool,
    ) -> float:
        """Returns since when every server of the bundles was scraped; ``now`` where one is not."""
        if not known:
            return now - window_s
        jobs = "|".join(sorted({_quoted(labels.get("job", "")) for labels, _ in known}))
        up = f'up{{job=~"{jobs}"}}'
        past = self._query(f"present_over_time({up}[{span_s + HISTORY_S}s])")
        targets = {_target(labels) for labels, _ in past}
        down = {_target(labels) for labels, _ in self._query(f"{up} == 0")}
        ours = dict.fromkeys(_target(labels) for labels, _ in known)
        unseen = [
            f"{_name(target)} is not a target's job and instance (relabelled?), so whether its "
            "requests are counted is not known: leave `job` and `instance` of its metrics alone"
            for target in ours
            if target not in targets
        ]
        unseen += [
            f"{_name(target)} cannot be scraped, so its requests are not counted; if it has gone "
            "for good, take it out of Prometheus' targets"
            for target in ours
            if target in down
        ]
        self._problems += unseen
        if unseen:
            return now
        scrapes = {_target(labels): samples for labels, samples in self._query(f"{up}[{span_s}s]")}
        return self._after_holes(now - window_s, scrapes, ours, counted, in_step)

    def _after_holes(
        self,
        start: float,
        scrapes: Mapping[_Target, Samples],
        ours: Iterable[_Target],
        counted: list[_Series],
        in_step: bool,
    ) -> float:
        """Returns since when there was no hole; ``start`` where there was none after it."""
        times = sorted({when for samples in scrapes.values() for when, _ in samples})
        steps = [usual_step(when for when, _ in samples) for samples in scrapes.values()]
        usual_s = max((step for step in steps if step), default=None)
        found = [(low, high, "Prometheus") for low, high in gaps(times, usual_s)]
        if times and times[0] > start + (usual_s or 0):
            looked_s = ceil(round((self._at or 0) - start, 3))
            self._problems.append(
                f"Prometheus has scraped for less than the {looked_s}s that are looked at"
            )
            # A server's first sample counts whole: it may have begun only now. Not so in a step
            # that began before: then it is Prometheus that began anew.
            start = times[0] if in_step else times[0] - _BEFORE_S
        for target in ours:
            counters = [samples for labels, samples in counted if _target(labels) == target]
            of_target = holes(scrapes.get(target, ()), counters)
            found += [(low, high, _name(target)) for low, high in of_target]
        after = [hole for hole in sorted(found) if hole[1] > start]
        self._problems += [
            f"{what} has no samples from {_clock(low)} to {_clock(high)}: what was asked in that "
            "time is not counted"
            for low, high, what in after
        ]
        return max([start, *(high for _, high, _ in after)])

    def _latency(self, bundle_id: str, seconds: float) -> Buckets:
        if seconds < 1:
            return ()
        some = f'{BUCKETS}{{bundle_id="{bundle_id}"}}'
        series = self._query(f"sum by (le) (increase({some}[{ceil(seconds)}s]))")
        pairs = sorted(
            (min(float(labels["le"]), UNBOUNDED_S), samples[0][1]) for labels, samples in series
        )
        return tuple(pairs)

    def _query(self, query: str) -> list[_Series]:
        """Returns the series of an instant query: labels, and (time, value) pairs."""
        form = {"query": query} | ({} if self._at is None else {"time": repr(self._at)})
        answer = self._visit.ask("/api/v1/query", form, limit_bytes=_ANSWER_LIMIT_BYTES)
        answered = answer.json()
        try:
            self._problems += [_warning(text) for text in answered.get("warnings") or ()]
            return [
                (
                    dict(series["metric"]),
                    _samples(series["values"] if "values" in series else [series["value"]]),
                )
                for series in answered["data"]["result"]
            ]
        except (KeyError, TypeError, ValueError, AttributeError):
            raise StoreError(
                "This does not answer as Prometheus does.",
                where=answer.where,
                got=printable(answer.body, SHOWN_CHARS),
                wanted='{"status": "success", "data": {"result": [...]}}',
            ) from None


def _sum(series: Sequence[_Series], bundle_id: str, start: float, status: str = "") -> int:
    return sum(
        increase(samples, start)
        for labels, samples in series
        if labels.get("bundle_id") == bundle_id and labels.get("status", "").startswith(status)
    )


def _has(series: Sequence[_Series], bundle_id: str) -> bool:
    return any(labels.get("bundle_id") == bundle_id for labels, _ in series)


def _counts(
    requests: Sequence[_Series],
    errors: Sequence[_Series],
    faults: Sequence[_Series],
    bundle_id: str,
    start: float,
) -> Counts:
    callers = (
        _sum(faults, bundle_id, start)
        if _has(faults, bundle_id)
        else _sum(errors, bundle_id, start, "4")
    )
    return Counts(_sum(requests, bundle_id, start), _sum(errors, bundle_id, start), callers)


def _samples(values: list[Any]) -> list[tuple[float, float]]:
    samples = [(float(when), float(value)) for when, value in values]
    if not (samples and all(isfinite(value) for sample in samples for value in sample)):
        raise ValueError("no samples, or one that is no number")
    return samples


def _warning(text: object) -> str:
    return f"Prometheus warns: {printable(str(text), SHOWN_CHARS)}"


def _target(labels: Mapping[str, str]) -> _Target:
    return labels.get("job"), labels.get("instance")


def _name(target: _Target) -> str:
    return printable(f"{target[0]}/{target[1]}", SHOWN_CHARS)


def _clock(when: float) -> str:
    return f"{datetime.fromtimestamp(when, UTC):%H:%M:%S}"


def _quoted(text: str) -> str:
    """Returns a text as a regular expression in a PromQL string that matches it alone."""
    return re.escape(text).replace("\\", "\\\\").replace('"', '\\"')
