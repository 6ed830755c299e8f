"""Traffic as the servers' own ``/metrics`` tell it, where no Prometheus watches them.

A counter says how much, not when: so each reading is compared with the ones before it, which the
caller keeps (``state``, JSON values) from command to command. The first reading only begins the
watch; a window is proven once the watch is as old as it is. The watch begins anew where counts may
have been lost: a process that was not there at the reading before (a restart, or another URL), or
a clock that went back. A server that does not answer is a problem; when it comes back as the same
process, it has counted on.

Each URL has to be one server. Behind a balancer every reading meets another process, so the watch
never grows old: no evidence, rather than wrong evidence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from adroit_publish.errors import PublishError, StoreError
from adroit_publish.evidence.answers import Visit, check_address
from adroit_publish.evidence.traffic import BY_STATUS, REQUESTS, TrafficReading, check_question
from adroit_publish.rollover.evidence import Counts

TIMEOUT_S = 10.0
KEPT = 128
"""So many moments of the watch are kept at most; beyond it every second one goes."""

_LINE = re.compile(rf"({REQUESTS}|{BY_STATUS})\{{(.*)\}} (\d+)(?:\.0)?")
_LABEL = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class _Server:
    """What one process has counted since it began."""

    instance_id: str
    bundle_id: str
    requests: int
    errors: int


class MetricsTraffic:
    """A ``Traffic`` that scrapes servers; raises as ``check_address``.

    Args:
        urls: One for each server, old and new ones.
        state: What ``state`` was after the reading before; None begins the watch.
        clock: Gives the time, aware of its zone.
    """

    watches = True

    def __init__(
        self,
        urls: Sequence[str],
        state: Mapping[str, Any] | None = None,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        for url in urls:
            check_address(url)
        self.state: Mapping[str, Any] = state or {"servers": {}, "totals": []}
        self._urls, self._clock, self._timeout_s = tuple(urls), clock, timeout_s

    def read(self, bundle_ids: Sequence[str], window_s: float) -> TrafficReading:
        """Returns the traffic of the last ``window_s`` seconds; see ``Traffic.read``."""
        check_question(bundle_ids, window_s)
        now = self._clock()
        servers, problems = self._scrape()
        totals = self._watched(servers, now)
        (_, last), base = totals[-1], totals[0]
        for moment in totals:
            if (now - moment[0]).total_seconds() >= window_s:
                base = moment
        watched_s = (now - base[0]).total_seconds()
        if watched_s < window_s:
            problems.append(f"watched for {watched_s:.0f} s of the {window_s:.0f} s asked for")
        counts = {}
        for bundle_id in bundle_ids:
            if any(server.bundle_id == bundle_id for server in servers.values()):
                after, before = last.get(bundle_id, (0, 0)), base[1].get(bundle_id, (0, 0))
                counts[bundle_id] = Counts(after[0] - before[0], after[1] - before[1])
        return TrafficReading(now, window_s, counts, tuple(problems))

    def _scrape(self) -> tuple[dict[str, _Server], list[str]]:
        servers, problems = {}, []
        for url in self._urls:
            try:
                servers[url] = _scrape(url, self._timeout_s)
            except PublishError as error:
                problems.append(f"{url}: {error.what} Its requests are not counted.")
        if not servers:
            raise StoreError(
                "No server tells what traffic there is.",
                where=", ".join(self._urls),
                transient=True,
                next_step="see that they run and can be reached from here",
            )
        return servers, problems

    def _watched(self, servers: Mapping[str, _Server], now: datetime) -> _Totals:
        """Adds this moment to the watch, or begins it anew; returns its moments, oldest first."""
        known = {url: _Server(**server) for url, server in self.state["servers"].items()}
        totals: _Totals = [
            (
                datetime.fromisoformat(utc),
                {key: (counts[0], counts[1]) for key, counts in sums.items()},
            )
            for utc, sums in self.state["totals"]
        ]
        gapless = all(
            url in known and _is_later(known[url], server) for url, server in servers.items()
        )
        if not gapless or not totals or totals[-1][0] > now:
            totals = [(now, {})]
        else:
            sums = dict(totals[-1][1])
            for url, server in servers.items():
                requests, errors = sums.get(server.bundle_id, (0, 0))
                requests += server.requests - known[url].requests
                errors += server.errors - known[url].errors
                sums[server.bundle_id] = (requests, errors)
            totals.append((now, sums))
        if len(totals) > KEPT:
            totals = [*totals[:-1:2], totals[-1]]
        self.state = {
            "servers": {url: vars(server) for url, server in (known | dict(servers)).items()},
            "totals": [
                [utc.isoformat(), {key: list(counts) for key, counts in sums.items()}]
                for utc, sums in totals
            ],
        }
        return totals


_Totals = list[tuple[datetime, dict[str, tuple[int, int]]]]


def _is_later(before: _Server, now: _Server) -> bool:
    """Tells whether both are the same process, in this order."""
    same = (before.instance_id, before.bundle_id) == (now.instance_id, now.bundle_id)
    return same and now.requests >= before.requests and now.errors >= before.errors


def _scrape(url: str, timeout_s: float) -> _Server:
    with Visit(url, timeout_s) as visit:
        served = visit.ask("/bundle").json()
        answer = visit.ask("/metrics", limit_bytes=16 << 20)
    bundle_id, instance_id = served.get("bundle_id"), served.get("instance_id")
    requests: int | None = None
    errors = 0
    for line in answer.body.decode(errors="replace").splitlines():
        if not (match := _LINE.fullmatch(line)):
            continue  # a comment, or a metric of somebody else's
        labels = dict(_LABEL.findall(match[2]))
        if labels.get("bundle_id") != bundle_id:
            continue
        if match[1] == REQUESTS:
            requests = int(match[3])
        elif not labels.get("status", "").startswith("2"):
            errors += int(match[3])
    if answer.status != 200 or requests is None or not isinstance(instance_id, str):
        raise StoreError("Its /bundle and /metrics are not those of a server of ours.", where=url)
    return _Server(instance_id, str(bundle_id), requests, errors)
