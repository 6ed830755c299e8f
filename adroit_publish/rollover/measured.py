"""Whether the new version's sample at a step is large enough, and as good as the old one's traffic.

A step needs a number of requests, and a time, that were watched without a hole. What they are
compared with is what was counted of the old version before the switch; where the old one has a
sample of its own since then, and did worse in it, that: what hits both versions at once is not the
new one's fault. A version that is proven to be worse is unhealthy at once, whatever its sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from adroit_publish.rollover.checks import Bound, Checks
from adroit_publish.rollover.evidence import Counts, Evidence, TrafficRead
from adroit_publish.rollover.health import QUANTILES, Finding, at_quantile, errors, latencies, worst
from adroit_publish.rollover.shares import FEWEST, Proportion
from adroit_publish.rollover.state import Rollover

ROUNDING_S = 0.001
SAMPLED = ("verified", "pointed", "draining", "drained")
"""States in which looks are kept, for the picture of how it went."""
SAMPLE_EVERY_S, MOST_SAMPLES = 60.0, 240


@dataclass(frozen=True)
class Unhealthy:
    """What a check says of a new version that is measured to be worse.

    Attributes:
        found: How it is worse.
    """

    found: str


def health(rollover: Rollover, reading: TrafficRead) -> str | Unhealthy | None:
    """Returns None where the new version has its sample and is well in it, or what there is."""
    new, checks = rollover.new.flavor, rollover.checks
    if unwatched := nothing_watched(rollover, reading):
        return unwatched
    findings = tuple(compared(reading.new, reference(rollover, reading), checks))
    found = worst(findings)
    bounds = tuple(_out_of_bounds(checks, reading))
    proven = [line for line in bounds if isinstance(line, Unhealthy)]
    if found and found.answer == "worse":
        return Unhealthy(f"{new}: {found.text}")
    if proven:
        return proven[0]
    least = max(1, checks.min_requests)
    if reading.new.requests < least:
        count = f"{reading.new.requests:.0f} of {least}" if reading.new.requests else "no"
        sample = f"{new} had {count} request{'s' if reading.new.requests else ''}"
        return with_notes(f"{sample} in {reading.window_s:.0f} s", reading)
    if reading.window_s < checks.bake_s - ROUNDING_S:
        watched = f"{new} was watched for {reading.window_s:.0f} of {checks.bake_s:g} s"
        return with_notes(watched, reading)
    if found:
        return f"not clear yet, so it waits for more requests: {found.text}"
    return next(iter(bounds), None)


def nothing_watched(rollover: Rollover, reading: TrafficRead) -> str | None:
    """Returns why a reading says nothing of the time since the last switch; None where it does."""
    if rollover.sample_s is None or reading.source_s <= rollover.sample_s:
        return "nothing was counted yet since the sitevar was set"
    if reading.source_s - reading.window_s < rollover.sample_s - ROUNDING_S:
        return "what was counted is in part of the time before the sitevar was set"
    return with_notes("nothing is proven", reading) if reading.window_s <= 0 else None


def with_notes(text: str, reading: TrafficRead) -> str:
    """Returns a text and why the window is no longer."""
    return "; ".join((text, *reading.notes))


def reference(rollover: Rollover, reading: TrafficRead) -> Counts:
    """Returns the counts of the old version that the new one is compared with."""
    before = counts(rollover.baseline) if rollover.baseline else Counts(0, 0)
    since, least = reading.old, max(FEWEST, rollover.checks.min_requests)
    if since.requests < least and rollover.baseline:
        return before
    worse_since = since.errors * before.requests > before.errors * since.requests
    return since if worse_since or not before.requests else before


def incomparable(rollover: Rollover, reading: TrafficRead | None) -> str | None:
    """Returns why the new version has nothing to be compared with; None where it has.

    Args:
        rollover: As it is kept.
        reading: The old version's traffic as it is now, where that was read before the switch.
    """
    old, before = rollover.old.flavor, rollover.baseline
    if rollover.state in ("pointing", "pointed") and before is None:
        return f"what {old} did before the switch is not on record: only the margin limits errors"
    if rollover.state in ("pointing", "pointed") and before and not before["requests"]:
        seconds = f"the {before['window_s']:.0f} s before the switch"
    elif rollover.state == "verified" and reading and not reading.old.requests:
        seconds = f"{reading.window_s:.0f} s"
    else:
        return None
    return f"{old} had no request in {seconds}: only the margin limits errors, and latency is free"


def compared(new: Counts, old: Counts, checks: Checks) -> Iterator[Finding]:
    """Yields each comparison of the two versions' counts."""
    margin, confidence = checks.margin, checks.confidence
    for name, after, before in (
        ("failed by the server's fault (5xx)", new.server_errors, old.server_errors),
        ("were refused (4xx)", new.caller_errors, old.caller_errors),
    ):
        shares = Proportion(after, new.requests), Proportion(before, old.requests)
        yield errors(name, *shares, margin, confidence)
    if checks.latency_margin is not None:
        yield from latencies(new.latency, old.latency, checks.latency_margin, confidence)


def remembered(rollover: Rollover, evidence: Evidence, counters: Any) -> Rollover:
    """Returns the rollover with what a look has counted.

    Args:
        rollover: As it is kept.
        evidence: What was read.
        counters: The watch of the servers' own counters, to go on with.
    """
    rollover = replace(rollover, counters=counters)
    reading = evidence.traffic
    if reading is None:
        return rollover
    if rollover.sample_s is None and rollover.moved_s is not None and rollover.goal is None:
        rollover = replace(rollover, sample_s=reading.source_s)
    last_s = rollover.samples[-1]["at_s"] if rollover.samples else 0.0
    if rollover.state not in SAMPLED or reading.source_s < last_s + SAMPLE_EVERY_S:
        return rollover
    sample = {
        "at_s": reading.source_s,
        "share": rollover.shares[0],
        "window_s": reading.window_s,
        "old": _in_short(reading.old),
        "new": _in_short(reading.new),
    }
    samples = (*rollover.samples, sample)
    if len(samples) > MOST_SAMPLES:
        samples = (*samples[:-1:2], samples[-1])
    return replace(rollover, samples=samples)


def _in_short(counted: Counts) -> dict[str, Any]:
    p50_s, p99_s = (at_quantile(counted.latency, quantile) for quantile in QUANTILES)
    return {
        "requests": counted.requests,
        "errors": counted.errors,
        "p50_s": p50_s,
        "p99_s": p99_s,
    }


def baseline(reading: TrafficRead) -> dict[str, Any]:
    """Returns what is kept of the old version's traffic before the switch, as JSON values."""
    return {"window_s": reading.window_s, **asdict(reading.old)}


def counts(kept: Any) -> Counts:
    """Returns the counts that were kept as JSON values."""
    latency = tuple((bound, count) for bound, count in kept.get("latency") or ())
    requests, errors, callers = (
        float(kept.get(name) or 0) for name in ("requests", "errors", "caller_errors")
    )
    return Counts(requests, errors, callers, latency)


def _out_of_bounds(checks: Checks, reading: TrafficRead) -> Iterator[str | Unhealthy]:
    for bound in checks.bounds:
        values = reading.answers.get(bound.query, ())
        wrong = [value for value in values if not _within(bound, value)]
        if not values or any(value != value for value in wrong):
            yield f"{bound.name} has no answer yet"
        elif wrong:
            yield Unhealthy(f"{bound.name} is {wrong[0]:g}, out of its bounds: {bound.text}")


def _within(bound: Bound, value: float) -> bool:
    least = bound.least is None or value >= bound.least
    return least and (bound.most is None or value <= bound.most)
