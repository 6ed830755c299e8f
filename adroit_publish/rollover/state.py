"""A rollover as it is kept: a frozen value, and its form in JSON.

    {"schema": 3, "id": "0001", "model": "m", "old": {"flavor", "version", "bundle_id"},
     "new": {...}, "steps": [1, 10, 50, 100], "checks": {...}, "state": "pointed",
     "shares": [10], "goal": null, "moved_s": 1795536000.0, "resume": null, "counters": null,
     "history": [{"at_s", "who", "before", "after", "why", "facts"}, ...],
     "amendments": [{"at_s", "who", "why", "before", "after"}, ...],
     "approvals": [{"at_s", "who", "why", "share"}, ...], "answered": {"at_s", "servers"},
     "baseline": null, "samples": [{"at_s", ...}, ...], "sample_s": null, "told": null,
     "region": null, "ahead": {"eu": 50}}

Times are POSIX seconds in UTC, shares percent of the traffic that the new flavor gets. A missing
field has the default of its class; one that is not known is of a newer version, and the rollover
is left to that. Schema 1 said where traffic is counted in ``prometheus`` and ``metrics``; schema 2
says it in ``traffic``, and writes the other two for who reads the JSON of a command. Schema 3 added
the checks of the way back and of samples, and the last ten fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from adroit_publish.bundle.kept import Fields, count, listed, number, optional, reading, table, text
from adroit_publish.rollover.checks import Checks, parse_checks

SCHEMA = 3
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
class Amendment:
    """A change of a live rollover's checks.

    Attributes:
        at_s: When.
        who: Who made it.
        why: Their reason.
        before: The values it changed, by their names in ``Checks``, as JSON values.
        after: What they have been since.
    """

    at_s: float
    who: str
    why: str
    before: Mapping[str, Any]
    after: Mapping[str, Any]


@dataclass(frozen=True)
class Approval:
    """A person's word that a step may be taken.

    Attributes:
        at_s: When.
        who: Who gave it.
        why: What they said.
        share: The share that may be pointed to.
    """

    at_s: float
    who: str
    why: str
    share: float


@dataclass(frozen=True)
class Answered:
    """The old version's servers, when they last answered.

    Attributes:
        at_s: When.
        servers: How many did.
    """

    at_s: float
    servers: int


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
        amendments: Every change of the checks since it began, oldest first.
        approvals: Every approval of a step by a person, oldest first.
        answered: When the old version's servers last answered; None: nobody has looked.
        baseline: The old version's own traffic as it was before the switch; JSON values.
        samples: What was counted at each look, oldest first; JSON values, ``at_s`` in each.
        sample_s: Since when requests count at this step, by the clock of what counts them; None:
            from the next reading on.
        told: What people were told last, so that they are told once.
        region: The region whose sitevar alone is being set; None: all are, or none is.
        ahead: By region, the share of those where the step was taken already, others being at
            ``shares``: where steps go region by region.
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
    amendments: tuple[Amendment, ...] = ()
    approvals: tuple[Approval, ...] = ()
    answered: Answered | None = None
    baseline: Mapping[str, Any] | None = None
    samples: tuple[Mapping[str, Any], ...] = ()
    sample_s: float | None = None
    told: str | None = None
    region: str | None = None
    ahead: Mapping[str, float] = field(default_factory=dict)

    @property
    def live(self) -> bool:
        """Whether it has not ended."""
        return self.state in LIVE

    def shares_in(self, region: str) -> tuple[float, ...]:
        """Returns what a region's sitevar may give the new flavor by our own doing; goal last."""
        left = (self.ahead[region],) if region in self.ahead else self.shares[:1]
        moving = self.goal is not None and self.region in (None, region)
        return (*left, self.goal) if moving and self.goal is not None else left

    def weights(self, share: float) -> dict[str, float]:
        """Returns what the sitevar says when the new flavor has ``share`` percent."""
        both = {self.old.flavor: 100 - share, self.new.flavor: share}
        return {flavor: percent for flavor, percent in both.items() if percent}

    def as_dict(self) -> dict[str, Any]:
        """Returns it as JSON values; ``parse_rollover`` reads them."""
        return {
            "schema": SCHEMA,
            "id": self.id,
            "model": self.model,
            "old": asdict(self.old),
            "new": asdict(self.new),
            "steps": list(self.steps),
            "checks": self.checks.as_dict(),
            "state": self.state,
            "shares": list(self.shares),
            "goal": self.goal,
            "moved_s": self.moved_s,
            "resume": self.resume,
            "counters": self.counters,
            "history": [asdict(entry) for entry in self.history],
            "amendments": [asdict(amendment) for amendment in self.amendments],
            "approvals": [asdict(approval) for approval in self.approvals],
            "answered": asdict(self.answered) if self.answered else None,
            "baseline": self.baseline,
            "samples": list(self.samples),
            "sample_s": self.sample_s,
            "told": self.told,
            "region": self.region,
            "ahead": dict(self.ahead),
        }


def parse_rollover(value: Mapping[str, Any], where: str) -> Rollover:
    """Returns the rollover that ``as_dict`` gave.

    Args:
        value: The parsed JSON object.
        where: Where it is kept, for messages.

    Raises:
        VerificationError: It is damaged, or was written by a newer version of this program.
    """
    with reading("The rollover", where, value.get("schema"), 1, 2, SCHEMA):
        fields = Fields(value)
        fields.take("schema", count)
        rollover = Rollover(
            id=fields.take("id", text),
            model=fields.take("model", text),
            old=fields.take("old", _side),
            new=fields.take("new", _side),
            steps=fields.take("steps", listed(number)),
            checks=fields.take("checks", parse_checks),
            state=fields.take("state", _state, "proposed"),
            shares=fields.take("shares", listed(number), (0.0,)),
            goal=fields.take("goal", optional(number), None),
            moved_s=fields.take("moved_s", optional(number), None),
            resume=fields.take("resume", optional(_state), None),
            counters=fields.take("counters", optional(table), None),
            history=fields.take("history", listed(_entry), ()),
            amendments=fields.take("amendments", listed(_amendment), ()),
            approvals=fields.take("approvals", listed(_approval), ()),
            answered=fields.take("answered", optional(_answered), None),
            baseline=fields.take("baseline", optional(table), None),
            samples=fields.take("samples", listed(table), ()),
            sample_s=fields.take("sample_s", optional(number), None),
            told=fields.take("told", optional(text), None),
            region=fields.take("region", optional(text), None),
            ahead=fields.take("ahead", _shares, {}),
        )
        fields.end()
    return rollover


def _state(value: Any) -> str:
    if value not in (*LIVE, *ENDED):
        raise ValueError(f"no state {value!r}")
    return text(value)


def _shares(value: Any) -> dict[str, float]:
    return {region: number(share) for region, share in table(value).items()}


def _side(value: Any) -> Side:
    fields = Fields(value)
    side = Side(*(fields.take(name, text) for name in ("flavor", "version", "bundle_id")))
    fields.end()
    return side


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


def _amendment(value: Any) -> Amendment:
    fields = Fields(value)
    amendment = Amendment(
        at_s=fields.take("at_s", number),
        who=fields.take("who", text),
        why=fields.take("why", text),
        before=fields.take("before", table),
        after=fields.take("after", table),
    )
    fields.end()
    return amendment


def _approval(value: Any) -> Approval:
    fields = Fields(value)
    approval = Approval(
        at_s=fields.take("at_s", number),
        who=fields.take("who", text),
        why=fields.take("why", text),
        share=fields.take("share", number),
    )
    fields.end()
    return approval


def _answered(value: Any) -> Answered:
    fields = Fields(value)
    answered = Answered(fields.take("at_s", number), fields.take("servers", count))
    fields.end()
    return answered
