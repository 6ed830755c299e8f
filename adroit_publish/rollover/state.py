"""A rollover as it is kept: a frozen value, and its form in JSON.

    {"schema": 1, "id": "0001", "model": "m", "old": {"flavor", "version", "bundle_id"},
     "new": {...}, "steps": [1, 10, 50, 100], "checks": {...}, "state": "pointed",
     "shares": [10], "goal": null, "moved_s": 1795536000.0, "resume": null, "counters": null,
     "history": [{"at_s", "who", "before", "after", "why", "facts"}, ...]}

Times are POSIX seconds in UTC, shares percent of the traffic that the new flavor gets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from adroit_publish.errors import VerificationError

SCHEMA = 1
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
        fresh_s: A reading older than this is no evidence.
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
class Entry:
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
    history: tuple[Entry, ...] = ()

    @property
    def live(self) -> bool:
        """Whether it has not ended."""
        return self.state in LIVE

    def weights(self, share: float) -> dict[str, float]:
        """Returns what the sitevar says when the new flavor has ``share`` percent."""
        both = {self.old.flavor: 100 - share, self.new.flavor: share}
        return {flavor: percent for flavor, percent in both.items() if percent}

    def as_dict(self) -> dict[str, Any]:
        """Returns it as JSON values; ``parse_rollover`` reads them.

        ``checks`` has ``prometheus`` and ``metrics`` as well, for who reads the JSON of a command.
        """
        value = {"schema": SCHEMA, **_plain(asdict(self))}
        value["checks"] |= {
            "prometheus": next(iter(self.checks.urls_of("prometheus")), None),
            "metrics": self.checks.urls_of("metrics"),
        }
        return value


def parse_rollover(value: Mapping[str, Any], where: str) -> Rollover:
    """Returns the rollover that ``as_dict`` gave.

    Args:
        value: The parsed JSON object.
        where: Where it is kept, for messages.

    Raises:
        VerificationError: It is not one, or of another schema.
    """
    if value.get("schema") != SCHEMA:
        raise VerificationError(
            "The rollover was written by another version of this program.",
            where=where,
            got=f"schema {value.get('schema')!r}",
            wanted=f"schema {SCHEMA}",
            next_step="update this checkout and its environment, then run the command again",
        )
    try:
        value = {**value, "checks": _with_traffic(value["checks"])}
        rollover = _read(value)
        same = rollover.as_dict() == value
    except (KeyError, TypeError, ValueError, AttributeError):
        same = False
    if not same or rollover.state not in (*LIVE, *ENDED):
        raise VerificationError(
            "A rollover's state is damaged.",
            where=where,
            wanted="a rollover as this program writes it",
            next_step="restore the object from the store's older versions; nothing was changed",
        )
    return rollover


def _read(value: Mapping[str, Any]) -> Rollover:
    """Every value is made its type again; what is not of it differs from ``value`` afterwards."""
    checks = value["checks"]
    return Rollover(
        id=str(value["id"]),
        model=str(value["model"]),
        old=Side(**{key: str(text) for key, text in value["old"].items()}),
        new=Side(**{key: str(text) for key, text in value["new"].items()}),
        steps=tuple(map(float, value["steps"])),
        checks=Checks(
            urls=tuple(map(str, checks["urls"])),
            replicas=None if checks["replicas"] is None else int(checks["replicas"]),
            traffic=tuple(map(str, checks["traffic"])),
            **{key: float(checks[key]) for key in ("quiet_s", "margin", "rtol", "fresh_s")},
        ),
        state=str(value["state"]),
        shares=tuple(map(float, value["shares"])),
        goal=None if value["goal"] is None else float(value["goal"]),
        moved_s=None if value["moved_s"] is None else float(value["moved_s"]),
        resume=None if value["resume"] is None else str(value["resume"]),
        counters=None if value["counters"] is None else dict(value["counters"]),
        history=tuple(
            Entry(**{**entry, "at_s": float(entry["at_s"]), "facts": dict(entry["facts"])})
            for entry in value["history"]
        ),
    )


def _with_traffic(checks: Mapping[str, Any]) -> dict[str, Any]:
    """Returns checks that say where traffic is counted by addresses; schema 1 had two fields."""
    one = [f"prometheus:{checks['prometheus']}"] if checks["prometheus"] else []
    several = [f"metrics:{url}" for url in checks["metrics"]]
    return {"traffic": one + several, **checks}


def _plain(value: Any) -> Any:
    """Tuples as lists: the value is the same before and after a trip through JSON."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
