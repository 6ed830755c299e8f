"""``gates:`` of config.yaml: what a run, and what was measured of its bundle, has to be.

    gates:
      test_auc: {min: 0.8, max_drop: 0.01}     # a metric of the run
      log_loss: {max: 0.4, max_rise: 0.02}
      latency_ms_per_row: {max: 5}             # measured when the bundle is verified

``min`` and ``max`` bound the value; ``max_drop`` and ``max_rise`` bound its change against the live
version, and hold nothing up where no version is live. A value that is missing, or not a number,
passes no gate. A gate that stands in the way is accepted by name, with a reason.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adroit_publish.bundle.record import Verification
from adroit_publish.config.yaml.values import Section
from adroit_publish.errors import ConfigError

MEASURED = ("size_mib", "load_s", "peak_mib", "latency_ms_per_row")
"""Gates on what the verification measures; every other name is a metric of the run."""

_BOUNDS = ("min", "max", "max_drop", "max_rise")
_EXACTLY = 1e-9  # 0.9 - 0.89 is more than 0.01 in binary


@dataclass(frozen=True)
class Gate:
    """The bounds of one value: of a metric of the run, or of one of ``MEASURED``.

    ``bounds`` are by name: ``min``, ``max``, ``max_drop``, ``max_rise``; at least one.
    """

    name: str
    bounds: Mapping[str, float]


@dataclass(frozen=True)
class GateResult:
    """How one gate was judged.

    Attributes:
        value: The value; None where there is none.
        live: The live version's value; None where no version is live, or it has none.
        problem: Why the value does not pass; None where it does.
        accepted: The reason for which it passes all the same.
    """

    gate: str
    bounds: Mapping[str, float]
    value: float | None
    live: float | None
    problem: str | None = None
    accepted: str | None = None

    @property
    def passed(self) -> bool:
        """Whether it does not stand in the way."""
        return self.problem is None or self.accepted is not None

    def __str__(self) -> str:
        bounds = ", ".join(f"{bound} {number:g}" for bound, number in self.bounds.items())
        value = "no value" if self.value is None else f"{self.value:.6g}"
        live = "" if self.live is None else f", live {self.live:.6g}"
        outcome = "passed" if self.problem is None else self.problem
        accepted = f"; accepted: {self.accepted}" if self.accepted else ""
        return f"{self.gate} ({bounds}): {value}{live}: {outcome}{accepted}"


def kept_result(kept: Mapping[str, Any]) -> str:
    """Returns the result of a gate, as a record keeps it, as a line for people."""
    accepted = f"; accepted: {kept.get('accepted')}" if kept.get("accepted") else ""
    return f"{kept.get('value')}: {kept.get('problem') or 'passed'}{accepted}"


def read_gates(section: Section) -> tuple[Gate, ...]:
    """Returns the gates of config.yaml's section; what is wrong goes to the section's report."""
    gates = []
    for name in section.entries:
        fields = section.section(name, _BOUNDS, closed=True)
        bounds = {key: _number(fields, key) for key in fields.entries if key in _BOUNDS}
        if not bounds:
            fields.problem("", f"a gate needs one of: {', '.join(_BOUNDS)}")
        if bounds.get("min", -math.inf) > bounds.get("max", math.inf):
            fields.problem("min", "'min' is more than 'max'; nothing passes")
        gates.append(Gate(name, bounds))
    return tuple(gates)


def judge_gates(
    gates: Sequence[Gate],
    values: Mapping[str, float],
    live: Mapping[str, float] | None,
    accepted: Mapping[str, str],
) -> tuple[GateResult, ...]:
    """Returns how each gate is judged.

    Values, the live version's values (None where no version is live) and the reasons for which a
    gate passes all the same are by name.
    """
    results = []
    for gate in gates:
        value, before = values.get(gate.name), (live or {}).get(gate.name)
        problem = _problem(gate.bounds, value, before, is_live=live is not None)
        reason = accepted.get(gate.name) if problem else None
        results.append(GateResult(gate.name, gate.bounds, value, before, problem, reason))
    return tuple(results)


def accepted_before(result: GateResult, kept: Mapping[str, Any]) -> str | None:
    """Returns the reason why a result was accepted before, where the new one is no worse.

    Args:
        result: The new one, which does not pass.
        kept: The earlier one, as a record keeps it.
    """
    bounds, problem = dict(result.bounds), result.problem or ""
    same = (result.gate, bounds, problem) == tuple(map(kept.get, ("gate", "bounds", "problem")))
    if not same or not kept.get("accepted"):
        return None
    value, before = result.value, kept.get("value")
    if value is not None and before is not None and problem.startswith(("less", "more")):
        no_worse = value >= before if problem.startswith("less") else value <= before
    else:
        no_worse = value == before
    return str(kept["accepted"]) if no_worse else None


def measured_values(verification: Verification | None, size_bytes: int) -> dict[str, float]:
    """Returns the values of ``MEASURED`` gates, as far as they were measured.

    ``size_bytes`` is that of the bundle's own layers.
    """
    seen = verification or Verification()
    values = {"size_mib": size_bytes / 2**20}
    if seen.load_seconds is not None:
        values["load_s"] = seen.load_seconds
    if seen.peak_memory_bytes is not None:
        values["peak_mib"] = seen.peak_memory_bytes / 2**20
    if seen.predict_seconds is not None and not seen.outputs_truncated:
        rows = len(seen.outputs) if isinstance(seen.outputs, list) else 1
        values["latency_ms_per_row"] = seen.predict_seconds * 1000 / max(rows, 1)
    return values


def read_acceptances(texts: Sequence[str]) -> dict[str, str]:
    """Returns reasons by the names of gates, out of ``NAME=REASON`` each; raises ConfigError."""
    reasons = {}
    for text in texts:
        name, _, reason = (part.strip() for part in text.partition("="))
        if not name or not reason or not reason.isprintable():
            raise ConfigError(
                "--accept-gate takes the name of a gate and a reason.",
                got=ascii(text[:200]),
                wanted="NAME=REASON",
                next_step='--accept-gate "NAME=why this is right"',
            )
        reasons[name] = reason
    return reasons


def _problem(
    bounds: Mapping[str, float], value: float | None, live: float | None, *, is_live: bool
) -> str | None:
    if value is None:
        return "there is no such value"
    if not math.isfinite(value):
        return "not a number"
    if value < bounds.get("min", -math.inf):
        return f"less than {bounds['min']:g}"
    if value > bounds.get("max", math.inf):
        return f"more than {bounds['max']:g}"
    for bound, word, sign in (("max_drop", "less", 1), ("max_rise", "more", -1)):
        if bound not in bounds or not is_live:
            continue
        if live is None or not math.isfinite(live):
            return "the live version has no value to compare with"
        change = sign * (live - value)
        if change > bounds[bound] and not math.isclose(change, bounds[bound], rel_tol=_EXACTLY):
            return f"{change:.6g} {word} than the live version's"
    return None


def _number(section: Section, key: str) -> float:
    value = section.value(key)
    least = 0 if key.startswith("max_") else -math.inf
    if isinstance(value, bool) or not isinstance(value, int | float):
        section.problem(key, f"{key!r} must be a number")
    elif not math.isfinite(value) or value < least:
        section.problem(key, f"{key!r} must be a number" + (" from 0" if least == 0 else ""))
    else:
        return float(value)
    return 0.0
