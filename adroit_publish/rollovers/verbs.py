"""The verbs of a rollover that has begun: look at it, move it on, undo it.

``start`` begins one; ``steps`` is how one is moved on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from adroit_publish.checkout import Checkout
from adroit_publish.config.targets import Target
from adroit_publish.edge.user import user_name
from adroit_publish.errors import PublishError
from adroit_publish.rollover.checklist import Box, boxes
from adroit_publish.rollover.evidence import Evidence, PointerRead
from adroit_publish.rollover.measured import incomparable
from adroit_publish.rollover.needs import Lack, changes, unread_text
from adroit_publish.rollover.rules import Advance, Do, Missing, commands, next_step, readings
from adroit_publish.rollover.state import Answered, Rollover, Weights
from adroit_publish.rollovers.sitevars import sitevars_of
from adroit_publish.rollovers.steps import Outcome, answered, step
from adroit_publish.rollovers.world import RealWorld
from adroit_publish.stores.bundle_store import BundleStore
from adroit_publish.stores.rollovers import Rollovers, find_rollover

_READINGS = ("published", "flavors", "pointer", "answering")


@dataclass(frozen=True)
class Status:
    """How a rollover stands.

    Attributes:
        rollover: As it is kept.
        boxes: The checklist.
        lacks: What is missing for the next step.
        next: Commands that lead on from here, and are not known to be refused.
        warnings: What has to be known before it is needed.
        pointed: What the sitevar says, percent by flavor; None where that could not be read, or
            the rollover has ended, or where regions differ.
        regions: By region what its sitevar says, where there are several.
        answered: When the old version's servers last answered; None where nobody knows.
        probes: A line for each address that was asked and does not answer as it should.
    """

    rollover: Rollover
    boxes: tuple[Box, ...]
    lacks: tuple[Lack, ...]
    next: tuple[str, ...]
    warnings: tuple[str, ...]
    pointed: Weights | None = None
    answered: Answered | None = None
    probes: tuple[str, ...] = ()
    regions: Mapping[str, Weights] = field(default_factory=dict)


@dataclass(frozen=True)
class Rolling:
    """Where rollovers of one target are kept, and the world they are in."""

    checkout: Checkout
    store: BundleStore
    rollovers: Rollovers
    world: RealWorld
    who: str


def open_rolling(checkout: Checkout, target: Target, store: BundleStore) -> Rolling:
    """Returns the rollovers of a target; nothing is read yet.

    Raises:
        ConfigError: The target has no sitevars.
    """
    who = user_name()
    world = RealWorld(checkout, target, store, sitevars_of(target, store), who)
    return Rolling(checkout, store, Rollovers(store.objects), world, who)


def status(rolling: Rolling, model: str | None) -> Status:
    """Returns how a rollover stands, by fresh readings; changes nothing.

    Args:
        rolling: Where.
        model: The model; None: the one that has a live rollover.

    Raises:
        ConfigError, StoreError, VerificationError: As ``find_rollover`` does.
    """
    rollover = find_rollover(rolling.rollovers, model).rollover
    command = "finish" if rollover.state in ("drained", "retiring") else "advance"
    if not rollover.live:
        return Status(rollover, boxes(rollover), (), (), ())
    names = {*readings(rollover, command), *_READINGS}
    evidence, _ = rolling.world.read(rollover, names)
    now_s = rolling.world.now_s()
    step_now = next_step(rollover, evidence, now_s, who=rolling.who, command=command)
    lacks = step_now.lacks if isinstance(step_now, Missing) else ()
    ways = [
        way
        for way in commands(rollover)
        if not _refused(next_step(rollover, evidence, now_s, who=rolling.who, command=way))
    ]
    return Status(
        rollover,
        boxes(rollover),
        lacks,
        tuple(ways),
        _warnings(rollover, evidence),
        _pointed(evidence.pointer),
        answered(rollover, evidence),
        regions=evidence.pointer.regions if evidence.pointer else {},
    )


def _pointed(pointer: PointerRead | None) -> Weights | None:
    if pointer is None or (pointer.weights is None and (pointer.regions or pointer.unread)):
        return None
    return pointer.weights or {}


def move(
    rolling: Rolling,
    model: str | None,
    command: str,
    why: str | None = None,
    *,
    force: bool = False,
) -> Outcome:
    """Does the next step of a rollover, if its evidence is there; see ``steps.step``.

    Args:
        rolling: Where.
        model: The model; None: the one that has a live rollover.
        command: ``advance``, ``finish``, ``rollback`` or ``abandon``.
        why: The reason, for the history.
        force: As for ``step``.
    """
    kept = find_rollover(rolling.rollovers, model)
    return step(
        rolling.rollovers,
        kept,
        rolling.world,
        who=rolling.who,
        command=command,
        why=why,
        force=force,
    )


def move_all(rolling: Rolling) -> Iterator[Outcome | PublishError]:
    """Advances every live rollover by a step; yields what each came to, its failure included."""
    for kept in rolling.rollovers.live():
        try:
            yield move(rolling, kept.rollover.model, "advance")
        except PublishError as error:
            yield error


def _refused(outcome: Advance | Do | Missing) -> bool:
    lacks = outcome.lacks if isinstance(outcome, Missing) else ()
    return any(lack.verdict == "refused" for lack in lacks)


def _warnings(rollover: Rollover, evidence: Evidence) -> tuple[str, ...]:
    old, lines = rollover.old, []
    if evidence.answering is None:
        lines.append(f"the way back is not watched: {evidence.absent.get('answering')}")
    elif evidence.answering.servers == 0:
        lines.append(
            f"the way back is gone: no server of {old.flavor} ({old.version}) answers; "
            "start one before it is needed"
        )
    if no_baseline := incomparable(rollover, evidence.traffic):
        lines.append(no_baseline)
    if evidence.published and evidence.published.old:
        lines.append(f"the way back is gone: {'; '.join(evidence.published.old)}")
    if evidence.pointer and evidence.pointer.unread:
        lines.append(unread_text(evidence.pointer))
    if evidence.flavors and evidence.pointer and rollover.state != "rolling back":
        lines += [line for line in [changes(rollover, evidence)] if line]
    return tuple(dict.fromkeys(lines))
