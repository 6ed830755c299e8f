"""The format of ``adroit_model_versions``: which flavor of a model is live, or which share of each.

    {
      "fraud": "fraud_v2",
      "ranking": {"ranking_v1": 90, "ranking_v2": 10}
    }

One JSON object (UTF-8, RFC 8259; no duplicate key, no NaN, at most ``MAX_BYTES``): by model name
a flavor's name, or percents by flavor that add up to 100. A place that keeps one document for
each model keeps objects of one entry. Pure; the release pipeline writes what this module reads.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_BYTES = 1 << 20
SUM_TOLERANCE = 1e-6  # 33.3 + 33.3 + 33.4 is not 100 in binary

_NAME = re.compile(r"\w[\w.-]{0,127}")


@dataclass(frozen=True)
class Pointer:
    """What one model's entry says. Two that route every request alike are equal.

    Attributes:
        weights: Flavor and percent, sorted by flavor; percents are above 0 and add up to 100.
    """

    weights: tuple[tuple[str, float], ...]

    @classmethod
    def of(cls, value: str | Mapping[str, float]) -> Pointer:
        """Returns the pointer that an entry spells.

        Args:
            value: A flavor's name, or percents by flavor; a flavor of 0 % gets no request, and
                is left out.

        Raises:
            ValueError: It is neither; the text says why, to follow the entry's name.
        """
        if isinstance(value, str):
            value = {value: 100}
        if not isinstance(value, Mapping) or not value:
            raise ValueError("must be a flavor's name, or percents by flavor")
        for flavor, percent in value.items():
            if not isinstance(flavor, str) or not _NAME.fullmatch(flavor):
                raise ValueError(f"has {flavor!r:.80} where a flavor's name has to be")
            if isinstance(percent, bool) or not isinstance(percent, int | float):
                raise ValueError(f"gives {flavor!r} {percent!r:.80}; a percent is a number")
            if not 0 <= percent <= 100:  # NaN is not, either
                raise ValueError(f"gives {flavor!r} {percent!r:.80}; a percent is from 0 to 100")
        total = math.fsum(value.values())
        if abs(total - 100) > SUM_TOLERANCE:
            raise ValueError(f"has percents that add up to {total:.10g}; they must make 100")
        weights = tuple(sorted((flavor, float(p)) for flavor, p in value.items() if p > 0))
        return cls(weights if len(weights) > 1 else ((weights[0][0], 100.0),))

    @property
    def flavors(self) -> tuple[str, ...]:
        """The flavors that get requests, sorted."""
        return tuple(flavor for flavor, _ in self.weights)

    def percent(self, flavor: str) -> float:
        """Returns the share of ``flavor``, from 0 to 100."""
        return dict(self.weights).get(flavor, 0.0)

    def as_json(self) -> str | dict[str, float]:
        """Returns the entry's value: a name where one flavor gets everything."""
        if len(self.weights) == 1:
            return self.weights[0][0]
        return {f: int(p) if p.is_integer() else p for f, p in self.weights}

    def __str__(self) -> str:
        if len(self.weights) == 1:
            return self.weights[0][0]
        return ", ".join(f"{flavor}={percent:.10g}" for flavor, percent in self.weights)


def read_object(data: bytes) -> dict[str, Any]:
    """Returns the JSON object in ``data``, its entries unchecked.

    Raises:
        ValueError: It is not one that this format allows; the text says why.
    """
    if len(data) > MAX_BYTES:
        raise ValueError(f"has more than {MAX_BYTES:,} bytes; that is the limit")
    try:
        value = json.loads(
            data.decode(), object_pairs_hook=_without_duplicates, parse_constant=_refuse
        )
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError("must be a JSON object: by model name its flavor")
    return value


def read_pointers(entries: Mapping[str, Any]) -> tuple[dict[str, Pointer], dict[str, str]]:
    """Returns the pointers of the entries that are right, and what is wrong with the others.

    Args:
        entries: As ``read_object`` gives them.
    """
    pointers, problems = {}, {}
    for model, value in entries.items():
        if not _NAME.fullmatch(model):
            problems[model] = "is no model's name"
            continue
        try:
            pointers[model] = Pointer.of(value)
        except ValueError as reason:
            problems[model] = str(reason)
    return pointers, problems


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"has {key!r:.80} twice")
        found[key] = value
    return found


def _refuse(constant: str) -> Any:
    raise ValueError(f"has {constant}, which is not JSON")
