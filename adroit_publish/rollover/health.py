"""Whether the new version does as well as the old one: errors, callers' errors and latency.

Each is the share of a version's requests that is compared by ``shares``: those that failed, those
that were refused for what the caller sent, and those that took longer than the old version's p50
and p99 and the margin. What was counted of the old version before the switch is what the new one is
compared with; where the old one has a sample of its own since then, and did worse in it, that: what
hits both versions at once is not the new one's fault.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from adroit_publish.rollover.shares import Answer, Proportion, compare

QUANTILES = (0.5, 0.99)
SLACK_S = 0.05
"""Less than this is a machine's mood, however small the old time was."""
Buckets = tuple[tuple[float, float], ...]
"""Requests by time: (seconds, how many took at most that long), rising to ``UNBOUNDED_S``."""
UNBOUNDED_S = 1e9
"""The last bucket's bound: no request takes as long; JSON cannot say infinity."""


@dataclass(frozen=True)
class Finding:
    """One comparison, as it came out.

    Attributes:
        answer: See ``shares``.
        text: What was compared, in words.
    """

    answer: Answer
    text: str


def errors(
    name: str, new: Proportion, old: Proportion, margin: float, confidence: float
) -> Finding:
    """Compares the shares of requests that failed in one way.

    Args:
        name: What became of them: ``failed``.
        new: Counted on the new version.
        old: Counted on the old version.
        margin: How much larger the new share may be, 0 to 1.
        confidence: How sure the test has to be, 0 to 1.
    """
    before = f"{old.value:.2%} of {old.whole:.0f}" if old.whole else "no request to compare with"
    return Finding(
        compare(new, old, margin, confidence),
        f"{new.value:.2%} of {new.whole:.0f} requests {name}, before: {before}; "
        f"the margin is {margin:.2%}",
    )


def latencies(new: Buckets, old: Buckets, margin: float, confidence: float) -> Iterator[Finding]:
    """Compares p50 and p99; none where a version has no buckets, or too few requests in them.

    A request of the new version counts as slower where it lies in a bucket that begins at or after
    the end of the old quantile's bucket and the margin, ``SLACK_S`` at least: as far as whole
    buckets prove it.

    Args:
        new: Of the new version.
        old: Of the old version.
        margin: How much longer it may take, as a part of the old time: 0.5 is half as long again.
        confidence: How sure the test has to be, 0 to 1.
    """
    for quantile in QUANTILES:
        limit_s = _bound(old, quantile)
        if limit_s is None or not new or new[-1][1] <= 0:
            continue
        limit_s = max(limit_s * (1 + margin), limit_s + SLACK_S)
        within = next((count for bound, count in new if bound >= limit_s), new[-1][1])
        slower = Proportion(new[-1][1] - within, new[-1][1])
        # Of the old version's own requests 1 - quantile are slower, by what a quantile is.
        answer = compare(slower, Proportion(0, 0), 1 - quantile, confidence)
        times = " and ".join(
            f"{side} {seconds(at)}"
            for side, at in (
                ("new", at_quantile(new, quantile)),
                ("old", at_quantile(old, quantile)),
            )
        )
        yield Finding(answer, f"p{quantile * 100:g} is {times}; the margin is {margin:.0%}")


def at_quantile(buckets: Buckets, quantile: float) -> float | None:
    """Returns the time below which a part of the requests lies, in seconds, between two bounds.

    None where there was no request. Source: Prometheus documentation, ``histogram_quantile``.
    """
    if not buckets or buckets[-1][1] <= 0:
        return None
    rank, low, below = quantile * buckets[-1][1], 0.0, 0.0
    for bound, count in buckets:
        if count >= rank:
            return (
                low
                if bound >= UNBOUNDED_S
                else low
                + (bound - low) * ((rank - below) / (count - below) if count > below else 1.0)
            )
        low, below = bound, count
    return low


def seconds(value: float | None) -> str:
    """Returns a time as people read it: ``2.5 ms``."""
    if value is None:
        return "unknown"
    return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.3g} s"


def worst(findings: Sequence[Finding]) -> Finding | None:
    """Returns the first finding that is worse, or else the first that is open; None: all alike."""
    for answer in ("worse", "open"):
        for finding in findings:
            if finding.answer == answer:
                return finding
    return None


def _bound(buckets: Buckets, quantile: float) -> float | None:
    """Returns the end of a quantile's bucket; None where too few requests tell it."""
    if not buckets or buckets[-1][1] * (1 - quantile) < 1:
        return None
    rank = quantile * buckets[-1][1]
    bound = next(bound for bound, count in buckets if count >= rank)
    return None if bound >= UNBOUNDED_S else bound
