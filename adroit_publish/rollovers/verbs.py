"""The verbs of a rollover that has begun: look at it, move it on, undo it.

``start`` begins one; ``steps`` is how one is moved on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from adroit_publish.checkout import Checkout
from adroit_publish.config.targets import Target
from adroit_publish.edge.user import user_name
from adroit_publish.rollover.checklist import Box, boxes
from adroit_publish.rollover.evidence import Evidence
from adroit_publish.rollover.needs import Lack, changes
from adroit_publish.rollover.rules import Missing, commands, next_step, readings, way_back
from adroit_publish.rollover.state import Rollover
from adroit_publish.rollovers.sitevars import sitevars_of
from adroit_publish.rollovers.steps import Outcome, advance_until, step
from adroit_publish.rollovers.world import RealWorld
from adroit_publish.stores.bundle_store import BundleStore
from adroit_publish.stores.rollovers import Rollovers, find_rollover

_READINGS = ("published", "flavors", "pointer")


@dataclass(frozen=True)
class Status:
    """How a rollover stands.

    Attributes:
        rollover: As it is kept.
        boxes: The checklist.
        lacks: What is missing for the next step.
        next: Commands that lead on from here.
        warnings: What has to be known before it is needed.
    """

    rollover: Rollover
    boxes: tuple[Box, ...]
    lacks: tuple[Lack, ...]
    next: tuple[str, ...]
    warnings: tuple[str, ...]


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
    ways = tuple(commands(rollover))
    return Status(rollover, boxes(rollover), lacks, ways, _warnings(rollover, evidence, now_s))


def move(rolling: Rolling, model: str | None, command: str, why: str | None = None) -> Outcome:
    """Does the next step of a rollover, if its evidence is there; see ``steps.step``.

    Args:
        rolling: Where.
        model: The model; None: the one that has a live rollover.
        command: ``advance``, ``finish``, ``rollback`` or ``abandon``.
        why: The reason, for the history.
    """
    kept = find_rollover(rolling.rollovers, model)
    return step(rolling.rollovers, kept, rolling.world, who=rolling.who, command=command, why=why)


def move_until(
    rolling: Rolling, model: str | None, until: str, wait: Callable[[Outcome], None]
) -> Outcome:
    """Advances until a state is reached; see ``steps.advance_until``."""
    kept = find_rollover(rolling.rollovers, model)
    return advance_until(
        rolling.rollovers, kept, rolling.world, until=until, who=rolling.who, wait=wait
    )


def _warnings(rollover: Rollover, evidence: Evidence, now_s: float) -> tuple[str, ...]:
    lines = [f"the way back is gone: {lack.found}" for lack in way_back(rollover, evidence, now_s)]
    if evidence.flavors and evidence.pointer and rollover.state != "rolling back":
        lines += [line for line in [changes(rollover, evidence)] if line]
    return tuple(dict.fromkeys(lines))
