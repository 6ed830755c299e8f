"""Traffic as CloudWatch keeps it.

    cloudwatch:us-east-1/Adroit        the region, and the namespace of the metrics

The servers' ``/metrics`` get there by the CloudWatch agent's Prometheus support under their own
names, with the dimension ``bundle_id``, and ``status``, ``fault`` or ``le`` where one has it; a
counter arrives as what it grew by. Where the agent publishes by several sets of dimensions, the
finest counts. Credentials are boto3's usual ones; they need cloudwatch:ListMetrics and
cloudwatch:GetMetricData. Time is the service's own, by its ``Date``. Questions of the user's own
are metric math expressions.

Source: Amazon CloudWatch API reference, ``ListMetrics``, ``GetMetricData``; CloudWatch user guide,
"Set up and configure Prometheus metrics collection".
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from adroit_publish.aws.errors import translated
from adroit_publish.aws.session import client_config
from adroit_publish.aws.session import session as aws_session
from adroit_publish.errors import ConfigError
from adroit_publish.evidence.services.points import Moment, Points, nothing_of, reading_of
from adroit_publish.evidence.traffic import (
    BUCKETS,
    BY_STATUS,
    FAULTS,
    REQUESTS,
    TrafficReading,
    check_question,
)

STEP_S = 60
_PLACE = re.compile(r"([a-z0-9-]+)/([A-Za-z0-9._/#:-]{1,255})")
_QUERIES = 500  # of one call


class CloudWatchTraffic:
    """A ``Traffic`` that asks CloudWatch.

    Args:
        place: ``REGION/NAMESPACE``.

    Raises:
        ConfigError: ``place`` has another form.
    """

    watches = False
    state = None

    def __init__(self, place: str) -> None:
        match = _PLACE.fullmatch(place)
        if not match:
            raise ConfigError(
                "Not a place in CloudWatch.", got=place, wanted="cloudwatch:REGION/NAMESPACE"
            )
        self._place, self._region, self._namespace = place, match[1], match[2]

    def read(
        self,
        bundle_ids: Sequence[str],
        window_s: float,
        since_s: float | None = None,
        questions: Sequence[str] = (),
    ) -> TrafficReading:
        """Returns the traffic of the last ``window_s`` seconds; see ``Traffic.read``.

        Raises:
            RefusedError: There are no credentials, or access is denied.
        """
        check_question(bundle_ids, window_s)
        where = f"cloudwatch:{self._place}"
        needs = "cloudwatch:ListMetrics and cloudwatch:GetMetricData"
        with translated(where, to="CloudWatch", needs=needs):
            session = aws_session(None, self._region)
            client = session.client("cloudwatch", region_name=self._region, config=client_config(3))
            at = datetime.now(UTC)
            names = (REQUESTS, BY_STATUS, FAULTS, BUCKETS)
            metrics = {name: self._metrics(client, name, bundle_ids) for name in names}
            now_s = _now_s(client.list_metrics(Namespace=self._namespace), at)
            start_s = max(now_s - window_s, since_s or 0.0)
            asked = Moment(at, now_s, start_s, STEP_S)
            if start_s >= now_s:
                return nothing_of(asked)
            requests, statuses, faults, buckets = (
                _series(client, asked, [_sum_of(metric) for metric in metrics[name]])
                for name in names
            )
            answers = {
                question: tuple(
                    one.points[-1][1]
                    for one in _series(client, asked, [({}, {"Expression": question})])
                    if one.points
                )
                for question in questions
            }
        failed = [one for one in statuses if not one.labels.get("status", "2").startswith("2")]
        of_callers = [one for one in faults if one.labels.get("fault") == "client"]
        return reading_of(asked, where, bundle_ids, requests, failed, of_callers, buckets, answers)

    def _metrics(
        self, client: Any, name: str, bundle_ids: Sequence[str]
    ) -> list[Mapping[str, Any]]:
        """Returns a metric of the bundles by its finest set of dimensions."""
        pages = client.get_paginator("list_metrics")
        of_set: dict[frozenset[str], dict[str, Mapping[str, Any]]] = defaultdict(dict)
        for bundle_id in bundle_ids:
            dimensions = [{"Name": "bundle_id", "Value": bundle_id}]
            for page in pages.paginate(
                Namespace=self._namespace, MetricName=name, Dimensions=dimensions
            ):
                for metric in page["Metrics"]:
                    named = frozenset(part["Name"] for part in metric["Dimensions"])
                    of_set[named][repr(metric["Dimensions"])] = metric  # once, if listed twice
        return [*max(of_set.items(), key=lambda item: len(item[0]), default=(None, {}))[1].values()]


_Query = tuple[dict[str, str], dict[str, Any]]


def _sum_of(metric: Mapping[str, Any]) -> _Query:
    labels = {part["Name"]: part["Value"] for part in metric["Dimensions"]}
    stated = {key: metric[key] for key in ("Namespace", "MetricName", "Dimensions")}
    return labels, {"MetricStat": {"Metric": stated, "Period": STEP_S, "Stat": "Sum"}}


def _series(client: Any, asked: Moment, queries: Sequence[_Query]) -> list[Points]:
    """Returns what each query is answered with, in their order."""
    points: list[list[tuple[float, float]]] = [[] for _ in queries]
    start = datetime.fromtimestamp(asked.start_s - 5 * STEP_S, UTC)
    pages = client.get_paginator("get_metric_data")
    for first in range(0, len(queries), _QUERIES):
        part = [
            {"Id": f"q{number}", "ReturnData": True, **query}
            | ({"Period": STEP_S} if "Expression" in query else {})
            for number, (_, query) in enumerate(queries[first : first + _QUERIES], first)
        ]
        end = datetime.fromtimestamp(asked.now_s, UTC)
        for page in pages.paginate(
            MetricDataQueries=part, StartTime=start, EndTime=end, ScanBy="TimestampAscending"
        ):
            for result in page["MetricDataResults"]:
                whens = (when.timestamp() for when in result["Timestamps"])
                points[int(result["Id"][1:])] += zip(whens, result["Values"], strict=True)
    return [
        Points(labels, sorted(found))
        for (labels, _), found in zip(queries, points, strict=True)
        if found
    ]


def _now_s(answer: Mapping[str, Any], at: datetime) -> float:
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    return parsedate_to_datetime(date).timestamp() if date else at.timestamp()
