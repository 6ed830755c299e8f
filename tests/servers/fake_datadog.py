"""Datadog's metrics query API as its documentation has it, on loopback.

Implements ``GET /api/v1/validate`` and ``GET /api/v1/query`` for the queries that count by tags:
``sum:METRIC{TAG:VALUE,!TAG:2*} by {TAG,TAG}.as_count().rollup(sum, N)``. A request without the keys
gets the 403 of the documentation.

Source: Datadog documentation, "Query timeseries points" (v1), "Validate API key", "Authentication".
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.servers.odd_servers import odd_server, saying

KEYS = {"DD_API_KEY": "the-api-key", "DD_APP_KEY": "the-application-key"}
_QUERY = re.compile(
    r"sum:(?P<metric>[\w.]+)\{(?P<scope>[^}]*)\}"
    r"( by \{(?P<by>[^}]*)\})?(\.as_count\(\))?(\.rollup\(sum, (?P<step>\d+)\))?"
)


class FakeDatadog:
    """Points by metric and tags.

    Attributes:
        url: Its address.
        asked: The queries it was asked.
    """

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[str] = []
        self._points: dict[tuple[str, tuple[str, ...]], dict[float, float]] = defaultdict(dict)

    def submit(self, metric: str, when_s: float, value: float, **tags: str) -> None:
        """Adds a point of a count."""
        key = metric, tuple(f"{name}:{text}" for name, text in sorted(tags.items()))
        self._points[key][when_s] = self._points[key].get(when_s, 0) + value

    def respond(self, handler: BaseHTTPRequestHandler) -> None:
        """Answers one request."""
        keys = handler.headers.get("DD-API-KEY"), handler.headers.get("DD-APPLICATION-KEY")
        parts = urlsplit(handler.path)
        if keys != tuple(KEYS.values()):
            answer: tuple[int, Any] = 403, {"errors": ["Forbidden"]}
        elif parts.path == "/api/v1/validate":
            answer = 200, {"valid": True}
        elif parts.path == "/api/v1/query":
            answer = self._query({name: v[0] for name, v in parse_qs(parts.query).items()})
        else:
            answer = 404, {"errors": ["Not found"]}
        saying(answer[0], json.dumps(answer[1]).encode())(handler)

    def _query(self, asked: dict[str, str]) -> tuple[int, Any]:
        self.asked.append(asked["query"])
        match = _QUERY.fullmatch(asked["query"])
        if not match:
            return 400, {"errors": ["Error parsing query"]}
        low, high, step = int(asked["from"]), int(asked["to"]), int(match["step"] or 60)
        by = [tag.strip() for tag in (match["by"] or "").split(",")]
        groups: dict[tuple[str, ...], dict[float, float]] = defaultdict(lambda: defaultdict(float))
        for (metric, tags), points in self._points.items():
            if metric == match["metric"] and _matches(tags, match["scope"].split(",")):
                group = tuple(tag for tag in tags if tag.partition(":")[0] in by)
                for when, value in points.items():
                    if low <= when < high:
                        groups[group][when // step * step] += value
        series = [
            {
                "metric": match["metric"],
                "tag_set": list(tags),
                "scope": ",".join(tags),
                "interval": step,
                "aggr": "sum",
                "expression": asked["query"],
                "length": len(points),
                "pointlist": [[when * 1000, value] for when, value in sorted(points.items())],
            }
            for tags, points in groups.items()
        ]
        head = {"status": "ok", "res_type": "time_series", "query": asked["query"], "message": ""}
        times = {"from_date": low * 1000, "to_date": high * 1000, "group_by": by}
        return 200, {**head, **times, "series": series}


def _matches(tags: tuple[str, ...], scope: list[str]) -> bool:
    for wanted in scope:
        negated, text = wanted.startswith("!"), wanted.lstrip("!")
        prefix = text.removesuffix("*")
        found = any(tag.startswith(prefix) if prefix != text else tag == text for tag in tags)
        if text != "*" and found == negated:
            return False
    return True


@contextmanager
def fake_datadog() -> Iterator[FakeDatadog]:
    """Runs one for as long as the context lasts."""
    fake = FakeDatadog()
    with odd_server(fake.respond) as url:
        fake.url = url
        yield fake
