"""What a rollover was told of its evidence: where it comes from, and when it is enough.

A missing field has the default of its class, so that a rollover which began under an older version
of this program goes on by the rules that it began with.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from adroit_publish.bundle.kept import Fields, count, listed, number, optional, text


@dataclass(frozen=True)
class Bound:
    """A check of the user's own: a question for the source of metrics, and what its answer may be.

    Attributes:
        name: What people call it.
        query: PromQL, or whatever the source takes.
        least: The smallest value that passes; None: any.
        most: The largest value that passes; None: any.
    """

    name: str
    query: str
    least: float | None = None
    most: float | None = None

    @property
    def text(self) -> str:
        """Returns it as it is written: ``queue: max(queue_length) <= 5``."""
        ends = (
            f">= {self.least:g}" if self.least is not None else "",
            f"<= {self.most:g}" if self.most is not None else "",
        )
        return " ".join((f"{self.name}: {self.query}", *filter(None, ends)))


@dataclass(frozen=True)
class Checks:
    """Where the evidence comes from, and when it is enough.

    Attributes:
        urls: Servers of the new version, one for each place it is deployed to.
        replicas: How many of them have to be seen behind each URL; None: one answer will do.
        traffic: Where it is counted: ``SCHEME:URL``, as ``evidence.sources`` has it.
        quiet_s: How long the old version must have had no request.
        margin: How much larger the new one's share of errors may be than the old one's (0 to 1).
        rtol: How far its answer to the golden input may be from the recorded one.
        fresh_s: A reading older than this does not count as evidence.
        old_urls: Servers of the old version: the way back.
        min_requests: How many requests the new version must have answered at a step.
        bake_s: How long a step lasts at least.
        confidence: How sure the test of two shares has to be, 0 to 1.
        latency_margin: By what share the new one's p99 may be larger; None: it is not compared.
        bounds: Checks of the user's own.
        approve_at: Shares that wait for a person before they are pointed to.
        by_region: Whether steps go region by region, rather than everywhere at once.
    """

    urls: tuple[str, ...]
    replicas: int | None
    traffic: tuple[str, ...]
    quiet_s: float
    margin: float
    rtol: float
    fresh_s: float
    old_urls: tuple[str, ...] = ()
    min_requests: int = 0
    bake_s: float = 0.0
    confidence: float = 0.95
    latency_margin: float | None = None
    bounds: tuple[Bound, ...] = ()
    approve_at: tuple[float, ...] = ()
    by_region: bool = False

    def urls_of(self, scheme: str) -> list[str]:
        """Returns the URLs at which a source of traffic counts."""
        parts = (address.partition(":") for address in self.traffic)
        return [url for name, _, url in parts if name == scheme]

    def as_dict(self) -> dict[str, Any]:
        """Returns it as JSON values, with the names that schema 1 had for who reads those."""
        return {
            **asdict(self),
            "urls": list(self.urls),
            "traffic": list(self.traffic),
            "old_urls": list(self.old_urls),
            "bounds": [asdict(bound) for bound in self.bounds],
            "approve_at": list(self.approve_at),
            "prometheus": next(iter(self.urls_of("prometheus")), None),
            "metrics": self.urls_of("metrics"),
        }


def parse_checks(value: Any) -> Checks:
    """Returns the checks that ``as_dict`` gave; raises what ``kept.reading`` turns into words."""
    fields = Fields(value)
    prometheus = fields.take("prometheus", optional(text), None)
    metrics: tuple[str, ...] = fields.take("metrics", listed(text), ())
    of_schema_1 = [f"prometheus:{prometheus}"] if prometheus else []
    of_schema_1 += [f"metrics:{url}" for url in metrics]
    checks = Checks(
        urls=fields.take("urls", listed(text)),
        replicas=fields.take("replicas", optional(count), None),
        traffic=fields.take("traffic", listed(text), tuple(of_schema_1)),
        quiet_s=fields.take("quiet_s", number),
        margin=fields.take("margin", number),
        rtol=fields.take("rtol", number),
        fresh_s=fields.take("fresh_s", number),
        old_urls=fields.take("old_urls", listed(text), ()),
        min_requests=fields.take("min_requests", count, 0),
        bake_s=fields.take("bake_s", number, 0.0),
        confidence=fields.take("confidence", number, 0.95),
        latency_margin=fields.take("latency_margin", optional(number), None),
        bounds=fields.take("bounds", listed(_bound), ()),
        approve_at=fields.take("approve_at", listed(number), ()),
        by_region=fields.take("by_region", _flag, False),
    )
    fields.end()
    return checks


def _bound(value: Any) -> Bound:
    fields = Fields(value)
    bound = Bound(
        fields.take("name", text),
        fields.take("query", text),
        fields.take("least", optional(number), None),
        fields.take("most", optional(number), None),
    )
    fields.end()
    return bound


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} where true or false belongs")
    return value
