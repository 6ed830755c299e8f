"""Sources of traffic, chosen by the scheme of their addresses.

    prometheus:http://prometheus.example     one Prometheus that scrapes both versions
    metrics:http://server.example            a server's own counters; an address for each server

To add one, write a ``Traffic`` and enter it in ``SOURCES``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from adroit_publish.errors import ConfigError
from adroit_publish.evidence.prometheus import PrometheusTraffic
from adroit_publish.evidence.server_metrics import MetricsTraffic
from adroit_publish.evidence.traffic import Traffic

State = Mapping[str, Any]


def _prometheus(urls: Sequence[str], _state: State | None) -> PrometheusTraffic:
    if len(urls) > 1:
        raise ConfigError("One Prometheus counts all traffic.", got=", ".join(urls), wanted="one")
    return PrometheusTraffic(urls[0])


SOURCES: dict[str, Callable[[Sequence[str], State | None], Traffic]] = {
    "metrics": MetricsTraffic,
    "prometheus": _prometheus,
}
"""By scheme, what makes a source of its URLs and of its ``state`` after the reading before."""


def open_traffic(addresses: Sequence[str], state: State | None = None) -> Traffic:
    """Returns the source that counts traffic at ``addresses``: ``SCHEME:URL``, all of one scheme.

    Args:
        state: What the source's ``state`` was after the reading before; None begins anew.

    Raises:
        ConfigError: A scheme is unknown, there are several, or a URL is not a plain address.
    """
    schemes = sorted({address.partition(":")[0] for address in addresses})
    if len(schemes) != 1 or schemes[0] not in SOURCES:
        raise ConfigError(
            "A rollover counts its traffic in one kind of place.",
            got=", ".join(addresses) or "no place",
            wanted=f"addresses that all begin with one of {', '.join(f'{s}:' for s in SOURCES)}",
        )
    return SOURCES[schemes[0]]([address.partition(":")[2] for address in addresses], state)
