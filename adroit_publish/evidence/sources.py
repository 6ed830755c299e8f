"""Sources of traffic, chosen by the scheme of their addresses.

    prometheus:http://prometheus.example     a Prometheus that scrapes both versions
    metrics:http://server.example            a server's own counters; an address for each server
    datadog:https://api.datadoghq.com        Datadog's metrics query API
    cloudwatch:REGION/NAMESPACE              CloudWatch

To add one, write a ``Traffic`` that passes ``tests/support/traffic_contract.py`` and enter it in
``SOURCES``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from adroit_publish.errors import ConfigError
from adroit_publish.evidence.prometheus import PrometheusTraffic
from adroit_publish.evidence.server_metrics import MetricsTraffic
from adroit_publish.evidence.services.cloudwatch import CloudWatchTraffic
from adroit_publish.evidence.services.datadog import DatadogTraffic
from adroit_publish.evidence.traffic import Several, Traffic

State = Mapping[str, Any]


def _prometheus(urls: Sequence[str], _state: State | None) -> Traffic:
    return _one_or_all([PrometheusTraffic(url) for url in urls])


def _metrics(urls: Sequence[str], state: State | None) -> Traffic:
    return MetricsTraffic(urls, state)


def _datadog(urls: Sequence[str], _state: State | None) -> Traffic:
    return _one_or_all([DatadogTraffic(url) for url in urls])


def _cloudwatch(places: Sequence[str], _state: State | None) -> Traffic:
    return _one_or_all([CloudWatchTraffic(place) for place in places])


def _one_or_all(places: Sequence[Traffic]) -> Traffic:
    return places[0] if len(places) == 1 else Several(places)


SOURCES: dict[str, Callable[[Sequence[str], State | None], Traffic]] = {
    "cloudwatch": _cloudwatch,
    "datadog": _datadog,
    "metrics": _metrics,
    "prometheus": _prometheus,
}
"""By scheme, what makes a source of its URLs and of its ``state`` after the reading before."""


LAG_S = {"cloudwatch": 420.0, "datadog": 300.0}
"""By scheme, how late counts may be; those that are scraped are not."""


def lag_s(addresses: Sequence[str]) -> float:
    """Returns how much later than they are made counts may be there, at these addresses."""
    return max((LAG_S.get(address.partition(":")[0], 0.0) for address in addresses), default=0.0)


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
