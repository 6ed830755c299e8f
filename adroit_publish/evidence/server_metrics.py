"""Traffic as the servers' own ``/metrics`` tell it, where no Prometheus watches them.

A counter says how much, not when: so each reading is compared with the ones before it, which the
caller keeps (``state``, JSON values) from command to command. The first reading only begins the
watch; a window is proven once the watch is as old as it is. The watch begins anew where counts may
have been lost: a process that was not there at the reading before (a restart, or another URL), or
a clock that went back. A server that does not answer leaves no window; when it comes back as the
same process, it has counted on.

The clock is the servers' (``Date``), so operators whose own clocks disagree share one watch.

Each URL has to be one server. Behind a balancer every reading meets another process, so the watch
never grows old: no evidence, rather than wrong evidence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from adroit_publish.errors import ConfigError, PublishError, StoreError
from adroit_publish.evidence.access import access_to
from adroit_publish.evidence.answers import Reply, Visit, check_address
from adroit_publish.evidence.traffic import (
    BUCKETS,
    BY_STATUS,
    FAULTS,
    REQUESTS,
    TrafficReading,
    check_question,
)
from adroit_publish.rollover.evidence import Counts
from adroit_publish.rollover.health import UNBOUNDED_S

TIMEOUT_S = 10.0
KEPT = 128
"""So many moments of the watch are kept at most; beyond it every second one goes."""

_LINE = re.compile(rf"({REQUESTS}|{BY_STATUS}|{FAULTS}|{BUCKETS})\{{(.*)\}} (\d+)(?:\.0)?")
_LABEL = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class _Server:
    """What one process has counted since it began."""

    instance_id: str
    bundle_id: str
    requests: int
    errors: int
    caller_errors: int = 0
    buckets: tuple[tuple[float, int], ...] = ()

    @property
    def counters(self) -> tuple[int, ...]:
        return (self.requests, self.errors, self.caller_errors, *(n for _, n in self.buckets))


class MetricsTraffic:
    """A ``Traffic`` that scrapes servers.

    Args:
        urls: One for each server, old and new ones.
        state: What ``state`` was after the reading before; None begins the watch.
        clock: Gives the time, aware of its zone; None: the servers tell it.
        timeout_s: How long a server may be silent.

    Attributes:
        state: To be kept for the next reading; JSON values.

    Raises:
        ConfigError: A URL is not an address, or holds credentials.
    """

    watches = True

    def __init__(
        self,
        urls: Sequence[str],
        state: Mapping[str, Any] | None = None,
        *,
        clock: Callable[[], datetime] | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        for url in urls:
            check_address(url)
        self.state: Mapping[str, Any] = state or {"servers": {}, "totals": []}
        self._urls, self._clock, self._timeout_s = tuple(urls), clock, timeout_s

    def read(
        self,
        bundle_ids: Sequence[str],
        window_s: float,
        since_s: float | None = None,
        questions: Sequence[str] = (),
    ) -> TrafficReading:
        """Returns the traffic of the last ``window_s`` seconds; see ``Traffic.read``.

        Raises:
            ConfigError: There are questions, which servers do not answer.
            StoreError: No server answers.
        """
        check_question(bundle_ids, window_s)
        if questions:
            raise ConfigError(
                "Servers' own /metrics answer no questions.", got="; ".join(questions)
            )
        asked = datetime.now(UTC)
        servers, problems, told = self._scrape()
        now = self._clock() if self._clock else told or asked
        totals = self._watched(servers, now)
        _, last = totals[-1]
        if since_s is not None and now.timestamp() - window_s < since_s:
            window_s = max(0.0, now.timestamp() - since_s)
            base = next((at for at in totals if at[0].timestamp() >= since_s), totals[-1])
        else:
            aged = [at for at in totals if (now - at[0]).total_seconds() >= window_s]
            base = aged[-1] if aged else totals[0]
        watched_s = (now - base[0]).total_seconds()
        if watched_s < window_s:
            problems.append(
                f"watched for {watched_s:.0f} s of the {window_s:.0f} s that are looked at"
            )
        counts = {
            bundle_id: _grown(base[1].get(bundle_id, ()), last.get(bundle_id, ()), of_bundle[0])
            for bundle_id in bundle_ids
            if (of_bundle := [one for one in servers.values() if one.bundle_id == bundle_id])
        }
        uncounted = len(servers) < len(self._urls)
        return TrafficReading(
            now if self._clock else asked,
            0.0 if uncounted else watched_s,
            counts,
            tuple(problems),
            now.timestamp(),
        )

    def _scrape(self) -> tuple[dict[str, _Server], list[str], datetime | None]:
        """Returns what each server says, what is wrong, and the latest of the servers' clocks."""
        servers, problems, told = {}, [], None
        for url in self._urls:
            try:
                servers[url], date_s = _scrape(url, self._timeout_s)
            except PublishError as error:
                problems.append(f"{url}: {error.what} Its requests are not counted.")
                continue
            if date_s is not None:
                date = datetime.fromtimestamp(date_s, UTC)
                told = max(told or date, date)
        if not servers:
            raise StoreError(
                "No server tells what traffic there is.",
                where=", ".join(self._urls),
                transient=True,
                next_step="see that they run and can be reached from here",
            )
        return servers, problems, told

    def _watched(self, servers: Mapping[str, _Server], now: datetime) -> _Totals:
        """Adds this moment to the watch, or begins it anew; returns its moments, oldest first."""
        known = {url: _server(value) for url, value in self.state["servers"].items()}
        totals: _Totals = [
            (datetime.fromisoformat(utc), {key: tuple(counts) for key, counts in sums.items()})
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
                grown = [
                    after - before
                    for after, before in zip(server.counters, known[url].counters, strict=True)
                ]
                so_far = sums.get(server.bundle_id) or (0,) * len(grown)
                sums[server.bundle_id] = tuple(map(sum, zip(so_far, grown, strict=True)))
            totals.append((now, sums))
        if len(totals) > KEPT:
            totals = [*totals[:-1:2], totals[-1]]
        self.state = {
            "servers": {url: asdict(server) for url, server in (known | dict(servers)).items()},
            "totals": [
                [utc.isoformat(), {key: list(counts) for key, counts in sums.items()}]
                for utc, sums in totals
            ],
        }
        return totals


_Totals = list[tuple[datetime, dict[str, tuple[int, ...]]]]


def _server(value: Mapping[str, Any]) -> _Server:
    buckets = tuple((bound, count) for bound, count in value.get("buckets", ()))
    return _Server(**{**value, "buckets": buckets})


def _grown(before: Sequence[int], after: Sequence[int], server: _Server) -> Counts:
    """Returns what was counted between two moments; the server tells the buckets' bounds."""
    size = len(server.counters)
    grown = [
        late - early
        for late, early in zip(after or (0,) * size, before or (0,) * size, strict=True)
    ]
    bounds = (bound for bound, _ in server.buckets)
    latency = tuple(zip(bounds, map(float, grown[3:]), strict=True))
    return Counts(grown[0], grown[1], grown[2], latency)


def _is_later(before: _Server, now: _Server) -> bool:
    """Tells whether both are the same process, in this order."""
    same = (before.instance_id, before.bundle_id) == (now.instance_id, now.bundle_id)
    same = same and len(before.counters) == len(now.counters)
    return same and all(a <= b for a, b in zip(before.counters, now.counters, strict=True))


def _scrape(url: str, timeout_s: float) -> tuple[_Server, float | None]:
    """Returns what a server has counted, and its time."""
    with Visit(url, timeout_s, access_to(url)) as visit:
        served = visit.ask("/bundle").json()
        answer = visit.ask("/metrics", limit_bytes=16 << 20)
    server = _parsed(answer, served)
    if server is None:
        raise StoreError("Its /bundle and /metrics are not those of a server of ours.", where=url)
    return server, answer.at_s


def _parsed(answer: Reply, served: Mapping[str, Any]) -> _Server | None:
    bundle_id, instance_id = served.get("bundle_id"), served.get("instance_id")
    requests: int | None = None
    errors = refused = 0
    faults: dict[str, int] = {}
    buckets = []
    for line in answer.body.decode(errors="replace").splitlines():
        if not (match := _LINE.fullmatch(line)):
            continue  # a comment, or a metric of somebody else's
        labels, value = dict(_LABEL.findall(match[2])), int(match[3])
        if labels.get("bundle_id") != bundle_id:
            continue
        if match[1] == REQUESTS:
            requests = value
        elif match[1] == BUCKETS:
            buckets.append((min(float(labels["le"]), UNBOUNDED_S), value))
        elif match[1] == FAULTS:
            faults[labels.get("fault", "")] = value
        elif not (status := labels.get("status", "")).startswith("2"):
            errors += value
            refused += value * status.startswith("4")
    if answer.status != 200 or requests is None or not isinstance(instance_id, str):
        return None
    callers = faults.get("client", refused)
    return _Server(instance_id, str(bundle_id), requests, errors, callers, tuple(sorted(buckets)))
