"""Traffic as a Prometheus server, or what speaks its query API, has seen it.

All questions are asked for one moment of the server's own clock. Counters are taken as raw samples
and added up here: ``increase()`` extrapolates, and misses what a series counted before its first
sample, such as the only request to a server that has just restarted.

A bundle's server is *counted now* where its series is not stale. One that is not was lost or has
gone, which its target tells:

* ``up`` is 0: it cannot be scraped. What it answers is not counted: a problem, never zero.
* the target is no longer there, or scrapes well and shows another bundle: it has gone, and what it
  counted to its end is all there is. So a bundle whose servers were taken out of the scrape
  configuration, or were replaced, ends at zero; whoever takes a running server out of sight of
  Prometheus takes its traffic out of sight as well.
* no server of the bundle was scraped in ``HISTORY_S``: the bundle is not in the reading.

A window that began before anything was scraped is a problem. A Prometheus that no longer scrapes
gives an old ``utc``, and, once its own look-back (5 minutes) is over, a StoreError. What a process
answered between its last scrape and its end was never counted. Two servers that scrape the same
targets behind one address count twice, unless it deduplicates.

Source: Prometheus documentation, "HTTP API", "Querying basics" (staleness), "Jobs and instances".
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from math import ceil, isfinite
from typing import Any

from adroit_publish.edge.text import printable
from adroit_publish.errors import StoreError
from adroit_publish.evidence.answers import SHOWN_CHARS, Visit, check_address
from adroit_publish.evidence.traffic import BY_STATUS, REQUESTS, TrafficReading, check_question
from adroit_publish.rollover.evidence import Counts

TIMEOUT_S = 30.0
HISTORY_S = 7 * 86400
"""How far back a bundle's servers are remembered that have gone since."""
BASELINE_S = 300
"""How long before the window the sample may lie that the first one in it is compared with."""
_ANSWER_LIMIT_BYTES = 64 << 20

_Series = tuple[dict[str, str], list[tuple[float, float]]]


class PrometheusTraffic:
    """A ``Traffic`` that asks a Prometheus server; raises as ``check_address``.

    Args:
        url: ``http://HOST:9090``; the path before ``/api/v1``, where there is one, goes with it.
    """

    watches = False
    state = None

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_S) -> None:
        check_address(url)
        self._url, self._timeout_s = url, timeout_s

    def read(self, bundle_ids: Sequence[str], window_s: float) -> TrafficReading:
        """Returns the traffic of the last ``window_s`` seconds; see ``Traffic.read``."""
        check_question(bundle_ids, window_s)
        asked = datetime.now(UTC)
        with Visit(self._url, self._timeout_s) as visit:
            return _Reader(visit, bundle_ids, window_s).read(asked)


class _Reader:
    def __init__(self, visit: Visit, bundle_ids: Sequence[str], window_s: float) -> None:
        self._visit, self._bundle_ids, self._window_s = visit, bundle_ids, window_s
        self._problems: list[str] = []
        self._at: float | None = None

    def read(self, asked: datetime) -> TrafficReading:
        some = f'bundle_id=~"{"|".join(self._bundle_ids)}"'
        seconds = ceil(self._window_s)
        window, span = f"{seconds}s", f"{seconds + BASELINE_S}s"
        past = f"present_over_time({REQUESTS}{{{some}}}[{seconds + HISTORY_S}s])"

        newest = self._query("max(timestamp(up))")
        if not newest:
            raise StoreError(
                "Prometheus scrapes nothing, so it cannot tell what traffic there is.",
                where=self._visit.url,
                next_step="see its targets, and that they are up",
            )
        now, scraped = newest[0][1][0]
        self._at = now  # the same moment for all that follows
        if not self._query(f"count(up offset {window})"):
            self._problems.append(f"Prometheus has scraped for less than the {window} asked for")
        known = {labels.get("bundle_id") for labels, _ in self._query(past)}
        for labels, _ in self._query(f"{past} and on (job, instance) (up == 0)"):
            self._problems.append(
                f"{_target(labels)} cannot be scraped, so its requests are not counted; if it has "
                "gone for good, take it out of Prometheus' targets"
            )
        live = self._query(f"timestamp({REQUESTS}{{{some}}})")
        requests = self._query(f"{REQUESTS}{{{some}}}[{span}]")
        errors = self._query(f'{BY_STATUS}{{{some},status!~"2.."}}[{span}]')
        counts = {
            bundle_id: Counts(
                self._sum(requests, bundle_id, now), self._sum(errors, bundle_id, now)
            )
            for bundle_id in self._bundle_ids
            if bundle_id in known
        }
        newest_counted = min((samples[0][1] for _, samples in live), default=scraped)
        # An age, not a time: the server's clock need not be ours.
        utc = asked - timedelta(seconds=max(0.0, now - newest_counted))
        return TrafficReading(utc, self._window_s, counts, tuple(self._problems))

    def _sum(self, series: list[_Series], bundle_id: str, now: float) -> int:
        start = now - self._window_s
        return sum(
            increase(samples, start)
            for labels, samples in series
            if labels.get("bundle_id") == bundle_id
        )

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


def increase(samples: Sequence[tuple[float, float]], start: float) -> int:
    """Returns by how much a counter grew after ``start``, by (unix seconds, value), oldest first.

    A counter that fell began again from 0. One without a sample at or before ``start`` began after
    it, so that its first sample counts whole.
    """
    total = before = 0.0
    for when, value in samples:
        if when > start:
            total += value - before if value >= before else value
        before = value
    return round(total)


def _samples(values: list[Any]) -> list[tuple[float, float]]:
    samples = [(float(when), float(value)) for when, value in values]
    if not (samples and all(isfinite(value) for sample in samples for value in sample)):
        raise ValueError("no samples, or one that is no number")
    return samples


def _warning(text: object) -> str:
    return f"Prometheus warns: {printable(str(text), SHOWN_CHARS)}"


def _target(labels: dict[str, str]) -> str:
    return printable(f"{labels.get('job')}/{labels.get('instance')}", SHOWN_CHARS)
