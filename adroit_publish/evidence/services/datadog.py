"""Traffic as Datadog keeps it, by its metrics query API.

    datadog:https://api.datadoghq.com        or another site's API host

The servers' ``/metrics`` get there by the agent's OpenMetrics check with ``namespace: adroit`` and
``metrics: [adroit_.*]``, which names counters ``.count`` and buckets ``.bucket`` with the tag
``upper_bound``, and sends a point of 0 where nothing was asked. The keys are Datadog's usual
``DD_API_KEY`` and ``DD_APP_KEY`` (permission ``timeseries_query``); they go to Datadog's hosts and
to this machine alone. Time is the service's own, by its ``Date``.

Source: Datadog documentation, "Query timeseries points" (v1), "Validate API key", "Mapping
Prometheus Metrics to Datadog Metrics", "Authentication".
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode, urlsplit

from adroit_publish.edge.text import printable
from adroit_publish.errors import ConfigError, StoreError
from adroit_publish.evidence.answers import SHOWN_CHARS, Access, Visit, check_address
from adroit_publish.evidence.services.points import Moment, Points, nothing_of, reading_of
from adroit_publish.evidence.traffic import TrafficReading, check_question

TIMEOUT_S = 30.0
SITES = (".datadoghq.com", ".datadoghq.eu", ".ddog-gov.com")
_REQUESTS = "adroit.adroit_invocation_seconds.count"
_STATUSES = "adroit.adroit_invocations.count"
_FAULTS = "adroit.adroit_invocation_faults.count"
_BUCKETS = "adroit.adroit_invocation_seconds.bucket"


class DatadogTraffic:
    """A ``Traffic`` that asks Datadog.

    Args:
        url: The site's API host: ``https://api.datadoghq.com``.
        environ: The environment's variables.
        timeout_s: How long it may be silent.

    Raises:
        ConfigError: ``url`` is not an address of Datadog's, or of this machine.
    """

    watches = False
    state = None

    def __init__(
        self, url: str, environ: Mapping[str, str] = os.environ, *, timeout_s: float = TIMEOUT_S
    ) -> None:
        check_address(url)
        parts = urlsplit(url)
        host = parts.hostname or ""
        there = parts.scheme == "https" and host.endswith(SITES)
        if not there and host not in ("localhost", "127.0.0.1"):
            raise ConfigError(
                "Datadog's keys are sent to Datadog alone.",
                got=host,
                wanted="https://api.datadoghq.com, or another site's API host",
            )
        self._url, self._environ, self._timeout_s = url, environ, timeout_s

    def read(
        self,
        bundle_ids: Sequence[str],
        window_s: float,
        since_s: float | None = None,
        questions: Sequence[str] = (),
    ) -> TrafficReading:
        """Returns the traffic of the last ``window_s`` seconds; see ``Traffic.read``.

        Raises:
            ConfigError: A key is not in the environment.
        """
        check_question(bundle_ids, window_s)
        with Visit(self._url, self._timeout_s, self._access()) as visit:
            at, valid = datetime.now(UTC), visit.ask("/api/v1/validate")
            valid.json()
            now_s = valid.at_s or at.timestamp()
            start_s = max(now_s - window_s, since_s or 0.0)
            step_s = 60.0 if now_s - start_s >= 900 else 15.0
            asked = Moment(at, now_s, start_s, step_s)
            if start_s >= now_s:
                return nothing_of(asked)

            def series(metric: str, by: str, more: str = "") -> list[Points]:
                return [
                    points
                    for bundle_id in bundle_ids
                    for points in _query(
                        visit,
                        asked,
                        f"sum:{metric}{{bundle_id:{bundle_id}{more}}} by {{bundle_id,{by}}}"
                        f".as_count().rollup(sum, {step_s:.0f})",
                    )
                ]

            answers = {question: _last(_query(visit, asked, question)) for question in questions}
            return reading_of(
                asked,
                self._url,
                bundle_ids,
                series(_REQUESTS, "host"),
                series(_STATUSES, "status", ",!status:2*"),
                series(_FAULTS, "fault", ",fault:client"),
                series(_BUCKETS, "upper_bound"),
                answers,
            )

    def _access(self) -> Access:
        keys = {"DD-API-KEY": "DD_API_KEY", "DD-APPLICATION-KEY": "DD_APP_KEY"}
        missing = [variable for variable in keys.values() if not self._environ.get(variable)]
        if missing:
            raise ConfigError(
                "Datadog is asked with keys, which are not in the environment.",
                got=f"no {', no '.join(missing)}",
                next_step=f"export {missing[0]}=...",
            )
        return Access({header: self._environ[variable] for header, variable in keys.items()})


def _query(visit: Visit, asked: Moment, query: str) -> list[Points]:
    """Returns the series of a query; a point that is null is none."""
    margin_s = 5 * asked.step_s  # so that the first point in the window has one before it
    form = {
        "from": f"{asked.start_s - margin_s:.0f}",
        "to": f"{asked.now_s:.0f}",
        "query": query,
    }
    answer = visit.ask(f"/api/v1/query?{urlencode(form)}", limit_bytes=64 << 20)
    answered = answer.json()
    try:
        if answered["status"] != "ok":
            raise ValueError(answered.get("error"))
        return [_points(series) for series in answered["series"]]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise StoreError(
            "This does not answer as Datadog does.",
            where=answer.where.partition("?")[0],
            got=printable(answer.body, SHOWN_CHARS),
            wanted='{"status": "ok", "series": [...]}',
        ) from None


def _points(series: Mapping[str, Any]) -> Points:
    tags = series.get("tag_set") or series["scope"].split(",")
    labels = dict(tag.split(":", 1) for tag in tags if ":" in tag)
    if "upper_bound" in labels:
        labels["le"] = labels["upper_bound"]
    points = [
        (when / 1000, float(value)) for when, value in series["pointlist"] if value is not None
    ]
    return Points(labels, sorted(points))


def _last(series: Sequence[Points]) -> tuple[float, ...]:
    return tuple(one.points[-1][1] for one in series if one.points)
