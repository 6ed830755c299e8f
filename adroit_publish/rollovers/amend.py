"""Changing what a live rollover was told of its evidence, on record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from adroit_publish.config.rollout import read_check
from adroit_publish.errors import ConfigError, RefusedError
from adroit_publish.evidence.answers import check_address
from adroit_publish.evidence.sources import open_traffic
from adroit_publish.rollover.checks import Bound
from adroit_publish.rollover.spelled import spelled
from adroit_publish.rollover.state import Amendment, Rollover
from adroit_publish.rollovers.probes import plain_addresses, plain_traffic
from adroit_publish.rollovers.start import check_quiet, check_regions, fresh_s
from adroit_publish.rollovers.verbs import Rolling
from adroit_publish.stores.rollovers import START, find_rollover

_PLAIN: dict[str, Callable[[Any], Any]] = {
    "urls": plain_addresses,
    "old_urls": plain_addresses,
    "traffic": plain_traffic,
    "checks": lambda texts: tuple(Bound(*read_check(text)) for text in texts),
}


def amend(
    rolling: Rolling, model: str | None, told: Mapping[str, Any], why: str
) -> tuple[Rollover, Rollover]:
    """Changes steps and checks of a live rollover; keeps what they were, who did it and why.

    Where traffic is counted elsewhere from now on, the watch of counters and the sample begin
    anew. The state stays as it is.

    Args:
        rolling: Where.
        model: The model; None: the one that has a live rollover.
        told: New values, by their names in ``Checks`` and in ``Rollout``.
        why: The reason.

    Returns:
        The rollover as it was, and as it is now.

    Raises:
        ConfigError: Nothing is changed, or there could never be enough evidence by it.
        RefusedError: The rollover has ended, or another operator was first.
        StoreError: A place failed.
    """
    kept = find_rollover(rolling.rollovers, model)
    rollover = kept.rollover
    if not rollover.live:
        raise RefusedError(
            f"The rollover of {rollover.model} has ended.",
            where=rolling.rollovers.where(rollover),
            got=rollover.state,
            next_step=START,
        )
    amended = _amended(rollover, told)
    check_regions(rolling, amended)
    before, after = _as_json(rollover), _as_json(amended)
    changed = [name for name in before if before[name] != after[name]]
    if not changed:
        raise ConfigError(
            "Nothing is changed by this.",
            where=rolling.rollovers.where(rollover),
            got=" ".join(text for text in spelled(rollover).values() if text[:2] == "--"),
            wanted="an option with another value",
        )
    amendment = Amendment(
        rolling.world.now_s(),
        rolling.who,
        why,
        {name: before[name] for name in changed},
        {name: after[name] for name in changed},
    )
    amended = replace(amended, amendments=(*rollover.amendments, amendment))
    return rollover, rolling.rollovers.keep(kept, amended).rollover


def _amended(rollover: Rollover, told: Mapping[str, Any]) -> Rollover:
    values = {
        name: _PLAIN[name](value) if name in _PLAIN else value for name, value in told.items()
    }
    steps = values.pop("steps", rollover.steps)
    if "checks" in values:
        values["bounds"] = values.pop("checks")
    checks = replace(rollover.checks, **values)
    for url in (*checks.urls, *checks.old_urls):
        check_address(url)
    check_quiet(checks.quiet_s)
    open_traffic(checks.traffic)
    if checks.traffic == rollover.checks.traffic:
        return replace(rollover, steps=steps, checks=checks)
    checks = replace(checks, fresh_s=fresh_s(checks.traffic))
    return replace(rollover, steps=steps, checks=checks, counters=None, sample_s=None)


def _as_json(rollover: Rollover) -> dict[str, Any]:
    """Returns what may be amended, by name; ``prometheus`` and ``metrics`` repeat ``traffic``."""
    values = {"steps": list(rollover.steps), **rollover.checks.as_dict()}
    return {name: value for name, value in values.items() if name not in ("prometheus", "metrics")}
