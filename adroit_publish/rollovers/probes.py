"""What every address that a rollover was told answers, by the request that was made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from adroit_publish.errors import PublishError
from adroit_publish.evidence.access import access_to
from adroit_publish.evidence.answers import Visit
from adroit_publish.rollover.checks import Checks
from adroit_publish.rollover.state import Rollover

TIMEOUT_S = 5.0
_QUESTIONS = {"metrics": "/metrics", "prometheus": "/api/v1/query?query=up"}


def plain_addresses(urls: Iterable[str]) -> tuple[str, ...]:
    """Returns servers' addresses without the ``/metrics`` or ``/bundle`` that people paste."""
    return tuple(
        url.rstrip("/").removesuffix("/metrics").removesuffix("/bundle").rstrip("/") for url in urls
    )


def plain_traffic(addresses: Iterable[str]) -> tuple[str, ...]:
    """Returns sources of traffic, each server's address as ``plain_addresses`` has it."""
    parts = (address.partition(":") for address in addresses)
    return tuple(
        f"{scheme}:{plain_addresses([url])[0]}" if scheme == "metrics" else f"{scheme}:{url}"
        for scheme, _, url in parts
    )


def probe_addresses(rollover: Rollover) -> Iterator[str]:
    """Yields a line for every address that does not answer as it should: request and answer.

    A server of the new version may not be there yet; a source of traffic has to be.

    Args:
        rollover: As it was begun, or amended.
    """
    questions = _questions(rollover.checks, rollover)
    with ThreadPoolExecutor(max(1, len(questions)), "probe") as pool:
        for line in pool.map(_probe, questions):
            if line:
                yield line


def _questions(checks: Checks, rollover: Rollover) -> list[tuple[str, str, str | None]]:
    """Returns what is asked: address, path, and the bundle id that has to answer."""
    asked: list[tuple[str, str, str | None]] = [
        *((url, "/bundle", rollover.new.bundle_id) for url in checks.urls),
        *((url, "/bundle", rollover.old.bundle_id) for url in checks.old_urls),
    ]
    for address in checks.traffic:
        scheme, _, url = address.partition(":")
        if scheme in _QUESTIONS:
            asked.append((url, _QUESTIONS[scheme], None))
    return asked


def _probe(question: tuple[str, str, str | None]) -> str | None:
    url, path, bundle_id = question
    request = f"GET {url}{path}"
    try:
        with Visit(url, TIMEOUT_S, access_to(url)) as visit:
            reply = visit.ask(path, limit_bytes=16 << 20)
            if reply.status != 200:
                return f"{request}: {reply.status}"
            served = reply.json().get("bundle_id") if bundle_id else None
    except PublishError as error:
        return f"{request}: {error.what} {error.got or ''}".strip()
    if bundle_id and served != bundle_id:
        return f"{request}: it serves bundle {str(served)[:80]}, not {bundle_id}"
    return None
