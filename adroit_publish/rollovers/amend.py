"""Changing what a live rollover was told of its evidence, on record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from adroit_publish.errors import ConfigError, RefusedError
from adroit_publish.evidence.answers import check_address
from adroit_publish.evidence.sources import open_traffic
from adroit_publish.rollover.checks import Checks
from adroit_publish.rollover.state import Amendment, Rollover
from adroit_publish.rollovers.probes import plain_addresses, plain_traffic
from adroit_publish.rollovers.verbs import Rolling
from adroit_publish.stores.rollovers import find_rollover

_PLAIN: dict[str, Callable[[Any], Any]] = {
    "urls": plain_addresses,
    "old_urls": plain_addresses,
    "traffic": plain_traffic,
}


def _same(value: Any) -> Any:
    return value


def amend(rolling: Rolling, model: str | None, changes: Mapping[str, Any], why: str) -> Rollover:
    """Changes checks of a live rollover, and keeps what they were, who changed them and why.

    Where traffic is counted elsewhere from now on, the watch of counters and the sample begin
    anew. The state stays as it is.

    Args:
        rolling: Where.
        model: The model; None: the one that has a live rollover.
        changes: New values, by their names in ``Checks``.
        why: The reason.

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
            next_step="python -m adroit_publish rollover start --from FLAVOR --to FLAVOR",
        )
    changes = {name: _PLAIN.get(name, _same)(value) for name, value in changes.items()}
    checks = replace(rollover.checks, **changes)
    for url in (*checks.urls, *checks.old_urls):
        check_address(url)
    open_traffic(checks.traffic)
    before, after = rollover.checks.as_dict(), checks.as_dict()
    changed = [name for name in changes if before[name] != after[name]]
    if not changed:
        raise ConfigError(
            "Nothing is changed by this.",
            where=rolling.rollovers.where(rollover),
            wanted=f"options with other values; any of {', '.join(Checks.__dataclass_fields__)}",
        )
    amendment = Amendment(
        rolling.world.now_s(),
        rolling.who,
        why,
        {name: before[name] for name in changed},
        {name: after[name] for name in changed},
    )
    same_source = checks.traffic == rollover.checks.traffic
    amended = replace(
        rollover,
        checks=checks,
        counters=rollover.counters if same_source else None,
        sample_s=rollover.sample_s if same_source else None,
        amendments=(*rollover.amendments, amendment),
    )
    return rolling.rollovers.keep(kept, amended).rollover
