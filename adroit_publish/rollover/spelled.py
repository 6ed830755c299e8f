"""What a rollover was told, as the options of ``start`` and ``amend`` spell it."""

from __future__ import annotations

from collections.abc import Mapping
from shlex import quote
from typing import Any

from adroit_publish.rollover.state import Rollover


def spelled(rollover: Rollover) -> Mapping[str, str]:
    """Returns by option what to type for a rollover like this one: ``--quiet 60s``.

    An option that was not given is spelled ``no --check``.
    """
    checks = rollover.checks
    values: dict[str, list[Any]] = {
        "--url": [*checks.urls],
        "--old-url": [*checks.old_urls],
        "--replicas": [checks.replicas],
        "--traffic": [*checks.traffic],
        "--steps": [",".join(f"{step:g}" for step in rollover.steps)],
        "--min-requests": [checks.min_requests],
        "--bake": [f"{checks.bake_s:g}s"],
        "--quiet": [f"{checks.quiet_s:g}s"],
        "--margin": [checks.margin],
        "--latency-margin": [checks.latency_margin],
        "--approve-at": [f"{share:g}" for share in checks.approve_at],
        "--check": [bound.text for bound in checks.bounds],
    }
    regions = {"--by-region": "--by-region" if checks.by_region else "--everywhere"}
    return regions | {
        option: " ".join(f"{option} {quote(str(value))}" for value in given if value is not None)
        or f"no {option}"
        for option, given in values.items()
    }


def differences(before: Rollover, after: Rollover) -> list[tuple[str, str]]:
    """Returns what two rollovers were told differently: as the first has it, and the second."""
    ours, theirs = spelled(before), spelled(after)
    return [(ours[option], theirs[option]) for option in ours if ours[option] != theirs[option]]
