"""Which servers of a bundle answer, and when one last did: whether there is a way back.

Servers are asked for ``/bundle`` by their own addresses, those of the traffic source ``metrics:``
too; a Prometheus is asked for what it scrapes of the bundle id at this moment. Somebody may be in
a hurry, so all are asked at once and each has a few seconds.

Zero is a strong word: it is said where every place that could tell was asked, and none has one.
A Prometheus that is away, or scrapes nothing at all, cannot tell. A server that cannot be reached
from here does not answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from adroit_publish.errors import PublishError, StoreError
from adroit_publish.evidence.access import access_to
from adroit_publish.evidence.answers import Visit
from adroit_publish.evidence.traffic import REQUESTS
from adroit_publish.rollover.evidence import AnsweringRead

TIMEOUT_S = 3.0
HISTORY_S = 86400
"""How far back a Prometheus is asked when a server was last seen."""
_ANSWER_LIMIT_BYTES = 64 << 20


@dataclass(frozen=True)
class _Told:
    """What one place told: servers of the bundle, and when one was last seen, POSIX seconds."""

    servers: int
    last_s: float | None = None


def ask_servers(
    bundle_id: str, urls: Sequence[str], traffic: Sequence[str], timeout_s: float = TIMEOUT_S
) -> AnsweringRead:
    """Returns how many servers of a bundle answer.

    Args:
        bundle_id: The bundle.
        urls: Servers that may serve it.
        traffic: Where traffic is counted, ``SCHEME:URL``.
        timeout_s: How long each may be silent.

    Raises:
        StoreError: No place could tell.
    """
    parts = [address.partition(":") for address in traffic]
    addresses = [*urls, *(url for scheme, _, url in parts if scheme == "metrics")]
    counting = [url for scheme, _, url in parts if scheme == "prometheus"]
    asked = [
        *[(_server, url) for url in dict.fromkeys(addresses)],
        *[(_prometheus, url) for url in counting],
    ]

    def ask(place: tuple[Callable[[Visit, str], _Told], str]) -> _Told | PublishError:
        question, url = place
        try:
            with Visit(url, timeout_s, access_to(url)) as visit:
                return question(visit, bundle_id)
        except PublishError as error:
            return error

    utc_s = time.time()
    with ThreadPoolExecutor(max(1, len(asked)), "old servers") as pool:
        answers = list(pool.map(ask, asked))
    direct = answers[: len(answers) - len(counting)]
    answering: int = sum(told.servers for told in direct if isinstance(told, _Told))
    scraped = [told for told in answers[len(direct) :] if isinstance(told, _Told)]
    if not direct and not scraped:
        raise StoreError(
            "No place tells whether the old version answers.",
            got="; ".join(map(str, answers)) or "no address of its servers",
            next_step="python -m adroit_publish rollover amend --old-url URL --why TEXT",
        )
    seen = [told.last_s for told in scraped if told.last_s is not None]
    seen += [utc_s] if answering else []
    most = max(answering, sum(told.servers for told in scraped))
    return AnsweringRead(utc_s, most, max(seen, default=None))


def _server(visit: Visit, bundle_id: str) -> _Told:
    return _Told(int(visit.ask("/bundle").json().get("bundle_id") == bundle_id))


def _prometheus(visit: Visit, bundle_id: str) -> _Told:
    """Returns what it scrapes of the bundle now: a series of a target that is gone is stale."""
    if not _series(visit, "up"):
        raise StoreError("Prometheus scrapes nothing.", where=visit.url)
    ours = f'{REQUESTS}{{bundle_id="{bundle_id}"}}'
    targets = {(labels.get("job"), labels.get("instance")) for labels, _ in _series(visit, ours)}
    times = f"max_over_time(timestamp({ours})[{HISTORY_S}s:60s])"
    seen = [last_s for _, last_s in _series(visit, times)]
    return _Told(len(targets), max(seen, default=None))


def _series(visit: Visit, query: str) -> list[tuple[dict[str, str], float]]:
    answer = visit.ask("/api/v1/query", {"query": query}, limit_bytes=_ANSWER_LIMIT_BYTES)
    try:
        result = answer.json()["data"]["result"]
        return [(dict(series["metric"]), float(series["value"][1])) for series in result]
    except (KeyError, TypeError, ValueError, IndexError):
        raise StoreError("This does not answer as Prometheus does.", where=answer.where) from None
