"""A rollover as it is kept: a frozen value, and its form in JSON.

    {"schema": 2, "id": "0001", "model": "m", "old": {"flavor", "version", "bundle_id"},
     "new": {...}, "steps": [1, 10, 50, 100], "checks": {...}, "state": "pointed",
     "shares": [10], "goal": null, "moved_s": 1795536000.0, "resume": null, "counters": null,
     "history": [{"at_s", "who", "before", "after", "why", "facts"}, ...]}

Times are POSIX seconds in UTC, shares percent of the traffic that the new flavor gets. A missing
field has the default of its class; one that is not known is of a newer version, and the rollover
is left to that. Schema 1 said where traffic is counted in ``prometheus`` and ``metrics``; schema 2
says it in ``traffic``, and writes the other two for who reads the JSON of a command.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from adroit_publish.bundle.kept import Fields, count, listed, number, optional, reading, table, text

SCHEMA = 2
LIVE = (
    "proposed",
    "deployed",
    "verified",
    "pointing",
    "pointed",
    "draining",
    "drained",
    "retiring",
    "rolling back",
    "held",
)
ENDED = ("retired", "rolled back", "abandoned")
Weights = Mapping[str, float]
"""What a sitevar says of one model: percent by flavor, no zeros."""


@dataclass(frozen=True)
class Side:
    """What one of the two flavors was when the rollover started.

    Attributes:
        flavor: Its name.
        version: The version behind it.
        bundle_id: What a server of that version says it is.
    """

    flavor: str
    version: str
    bundle_id: str


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
    """

    urls: tuple[str, ...]
    replicas: int | None
    traffic: tuple[str, ...]
    quiet_s: float
    margin: float
    rtol: float
    fresh_s: float

    def urls_of(self, scheme: str) -> list[str]:
        """Returns the URLs at which a source of traffic counts."""
        parts = (address.partition(":") for address in self.traffic)
        return [url for name, _, url in parts if name == scheme]


@dataclass(frozen=True)
class Transition:
    """One transition.

    Attributes:
        at_s: When.
        who: Who ran the command.
        before: The state it left; None where the rollover began.
        after: The state it reached.
        why: The reason, where one was given or found.
        facts: The readings it rests on, as JSON values.
    """

    at_s: float
    who: str
    before: str | None
    after: str
    why: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Rollover:
    """A rollover between two commands.

    Attributes:
        id: Counts the model's rollovers, four digits or more.
        model: The model's name.
        old: What is live when it starts.
        new: What is to be.
        steps: Shares to go through; ends in 100.
        checks: Where evidence comes from.
        state: See ``rules``.
        shares: What the sitevar may give the new flavor by our own doing; one, but while it is set.
        goal: The share that is being set, or None.
        moved_s: When the sitevar was last read back after a change; None before the first.
        resume: The state it was in before it was held.
        counters: The watch of the servers' own counters, to go on with, or None.
        history: Every transition, oldest first.
    """

    id: str
    model: str
    old: Side
    new: Side
    steps: tuple[float, ...]
    checks: Checks
    state: str = "proposed"
    shares: tuple[float, ...] = (0.0,)
    goal: float | None = None
    moved_s: float | None = None
    resume: str | None = None
    counters: Mapping[str, Any] | None = None
    history: tuple[Transition, ...] = ()

    @property
    def live(self) -> bool:
        """Whether it has not ended."""
        return self.state in LIVE

    def weights(self, share: float) -> dict[str, float]:
        """Returns what the sitevar says when the new flavor has ``share`` percent."""
        both = {self.old.flavor: 100 - share, self.new.flavor: share}
        return {flavor: percent for flavor, percent in both.items() if percent}

    def as_dict(self) -> dict[str, Any]:
        """Returns it as JSON values; ``parse_rollover`` reads them."""
        checks = self.checks
        return {
            "schema": SCHEMA,
            "id": self.id,
            "model": self.model,
            "old": asdict(self.old),
            "new": asdict(self.new),
            "steps": list(self.steps),
            "checks": {
                "urls": list(checks.urls),
                "replicas": checks.replicas,
                "traffic": list(checks.traffic),
                "prometheus": next(iter(checks.urls_of("prometheus")), None),
                "metrics": checks.urls_of("metrics"),
                "quiet_s": checks.quiet_s,
                "margin": checks.margin,
                "rtol": checks.rtol,
                "fresh_s": checks.fresh_s,
            },
            "state": self.state,
            "shares": list(self.shares),
            "goal": self.goal,
            "moved_s": self.moved_s,
            "resume": self.resume,
            "counters": self.counters,
            "history": [asdict(entry) for entry in self.history],
        }


def parse_rollover(value: Mapping[str, Any], where: str) -> Rollover:
    """Returns the rollover that ``as_dict`` gave.

    Args:
        value: The parsed JSON object.
        where: Where it is kept, for messages.

    Raises:
        VerificationError: It is damaged, or was written by a newer version of this program.
    """
    with reading("The rollover", where, value.get("schema"), 1, SCHEMA):
        fields = Fields(value)
        fields.take("schema", count)
        rollover = Rollover(
            id=fields.take("id", text),
            model=fields.take("model", text),
            old=fields.take("old", _side),
            new=fields.take("new", _side),
            steps=fields.take("steps", listed(number)),
            checks=fields.take("checks", _checks),
            state=fields.take("state", _state, "proposed"),
            shares=fields.take("shares", listed(number), (0.0,)),
            goal=fields.take("goal", optional(number), None),
            moved_s=fields.take("moved_s", optional(number), None),
            resume=fields.take("resume", optional(_state), None),
            counters=fields.take("counters", optional(table), None),
            history=fields.take("history", listed(_entry), ()),
        )
        fields.end()
    return rollover


def _state(value: Any) -> str:
    if value not in (*LIVE, *ENDED):
        raise ValueError(f"no state {value!r}")
    return text(value)


def _side(value: Any) -> Side:
    fields = Fields(value)
    side = Side(*(fields.take(name, text) for name in ("flavor", "version", "bundle_id")))
    fields.end()
    return side


def _checks(value: Any) -> Checks:
    fields = Fields(value)
    prometheus = fields.take("prometheus", optional(text), None)
    no_urls: tuple[str, ...] = ()
    metrics = fields.take("metrics", listed(text), no_urls)
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
    )
    fields.end()
    return checks


def _entry(value: Any) -> Transition:
    fields = Fields(value)
    entry = Transition(
        at_s=fields.take("at_s", number),
        who=fields.take("who", text),
        before=fields.take("before", optional(text), None),
        after=fields.take("after", text),
        why=fields.take("why", optional(text), None),
        facts=fields.take("facts", table, {}),
    )
    fields.end()
    return entry
