"""``rollout:`` of config.yaml: how a rollover of this model goes unless told otherwise.

rollout:
  steps: [1, 10, 50, 100]         # percent of the traffic, in turn
  min_requests: 500               # of the new version, at each step
  bake: 30m                       # how long a step lasts at least
  quiet: 1h                       # without a request of the old version, until it has drained
  margin: 0.01                    # how much larger the new one's share of errors may be
  latency_margin: 1.0             # how much longer p50 and p99 may be: 1.0 is twice as long
  approve_at: [50]                # shares that wait for a person
  checks: ["queue: max(queue_length) <= 5"]
  by_region: true                 # of a target with several: one region after the other
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from adroit_publish.config.yaml.values import Section

KEYS = (
    *("steps", "min_requests", "bake", "quiet", "margin", "latency_margin"),
    *("approve_at", "checks", "by_region"),
)
_UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")
_CHECK = re.compile(r"([^:]{1,80}):(.+?)(<=|>=)\s*(\S+)", re.DOTALL)
T = TypeVar("T")


@dataclass(frozen=True)
class Rollout:
    """How a rollover goes.

    Attributes:
        steps: Rising percents that end in 100.
        min_requests: Of the new version, at each step.
        bake_s: How long a step lasts at least.
        quiet_s: How long the old version must have had no request.
        margin: How much larger the new one's share of errors may be, 0 to 1.
        latency_margin: How much longer its p50 and p99 may be, as a part of the old ones.
        approve_at: Shares that wait for a person.
        checks: Checks of the user's own, as ``read_check`` takes them.
        by_region: Whether steps go region by region, rather than everywhere at once.
    """

    steps: tuple[float, ...] = (100.0,)
    min_requests: int = 500
    bake_s: float = 600.0
    quiet_s: float = 3600.0
    margin: float = 0.01
    latency_margin: float = 1.0
    approve_at: tuple[float, ...] = ()
    checks: tuple[str, ...] = ()
    by_region: bool = False


def read_rollout(section: Section) -> Rollout:
    """Returns the section's values; what is wrong goes to its report."""
    usual = Rollout()

    def take(key: str, read: Callable[[Any], T], default: T) -> T:
        value = section.value(key)
        try:
            return default if value is None else read(value)
        except (TypeError, ValueError) as reason:
            section.problem(key, f"{key!r} is {str(value)[:80]!r}; {reason}")
            return default

    return Rollout(
        take("steps", read_steps, usual.steps),
        take("min_requests", _count, usual.min_requests),
        take("bake", read_duration, usual.bake_s),
        take("quiet", read_duration, usual.quiet_s),
        take("margin", _share, usual.margin),
        take("latency_margin", _from_zero, usual.latency_margin),
        take("approve_at", _percents, usual.approve_at),
        take("checks", _checks, usual.checks),
        take("by_region", _flag, usual.by_region),
    )


def read_duration(value: Any) -> float:
    """Returns seconds: a number, or one with a unit, such as ``45s``, ``30m``, ``1h`` or ``2d``.

    Raises:
        ValueError: It is neither.
    """
    match = _DURATION.fullmatch(str(value).strip())
    if isinstance(value, bool) or not match:
        raise ValueError("it is a time such as 45s, 30m or 1h")
    return float(match[1]) * _UNITS_S[match[2]]


def read_steps(value: Any) -> tuple[float, ...]:
    """Returns rising percents that end in 100; raises ValueError for anything else."""
    steps = _percents(value)
    if not steps or sorted(set(steps)) != list(steps) or steps[-1] != 100:
        raise ValueError("they are rising percents that end in 100")
    return steps


def read_check(text: str) -> tuple[str, str, float | None, float | None]:
    """Returns the name, the question, and the least and most that may be answered.

    Args:
        text: ``NAME: QUESTION <= NUMBER``, or ``>=``.

    Raises:
        ValueError: It has another form.
    """
    match = _CHECK.fullmatch(text.strip())
    try:
        bound = float(match[4]) if match else math.nan
    except ValueError:
        bound = math.nan
    if not match or not math.isfinite(bound) or not text.isprintable():
        raise ValueError("a check is 'NAME: QUESTION <= NUMBER', or with >=")
    least, most = (bound, None) if match[3] == ">=" else (None, bound)
    return match[1].strip(), match[2].strip(), least, most


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("it is true or false")
    return value


def _percents(value: Any) -> tuple[float, ...]:
    values = value if isinstance(value, list) else [value]
    shares = tuple(_from_zero(item) for item in values)
    if any(not 0 < share <= 100 for share in shares):
        raise ValueError("shares are percents, above 0 and up to 100")
    return shares


def _from_zero(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError("it is a number from 0")
    return float(value)


def _share(value: Any) -> float:
    if _from_zero(value) > 1:
        raise ValueError("it is a number from 0 to 1")
    return float(value)


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError("it is a whole number from 0")
    return value


def _checks(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError("it is a list of checks")
    for text in value:
        read_check(str(text))
    return tuple(map(str, value))
