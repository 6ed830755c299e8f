"""Samples of counters and of scrapes: what grew, and where nobody looked.

Values only: times are seconds by the clock of what took the samples, oldest first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from statistics import median

Samples = Sequence[tuple[float, float]]
Hole = tuple[float, float]


def increase(samples: Samples, start: float) -> int:
    """Returns by how much a counter grew after ``start``.

    A counter that fell began again from 0. One without a sample at or before ``start`` began after
    it, so that its first sample counts whole.

    Args:
        samples: (unix seconds, value), oldest first.
        start: Unix seconds.
    """
    total = before = 0.0
    for when, value in samples:
        if when > start:
            total += value - before if value >= before else value
        before = value
    return round(total)


def usual_step(times: Iterable[float]) -> float | None:
    """Returns how far successive times usually lie apart; None where there are not two."""
    steps = [later - earlier for earlier, later in pairwise(times)]
    return median(steps) if steps else None


def gaps(times: Sequence[float], usual_s: float | None) -> list[Hole]:
    """Returns where successive times lie further apart than two and a half usual steps."""
    if usual_s is None:
        return []
    longest_s = max(2.5 * usual_s, usual_s + 2)  # a second or two late is a busy machine
    return [(low, high) for low, high in pairwise(times) if high - low > longest_s]


def holes(scrapes: Samples, counters: Sequence[Samples]) -> Iterator[Hole]:
    """Yields the times in which a target may have counted what nobody saw.

    Args:
        scrapes: Whether each scrape of it went well: 1 or 0.
        counters: What its counters said in those that did, a series each.
    """
    good = [when for when, value in scrapes if value]
    bad = [when for when, value in scrapes if not value]
    usual_s = usual_step(when for when, _ in scrapes)
    for low, high in pairwise(good):
        failed = any(low < when < high for when in bad)
        if gaps((low, high), usual_s) or (failed and _began_anew(counters, low, high)):
            yield low, high
    late = [when for when in bad if not good or when > good[-1]]
    if late:  # it could not be scraped at its end
        yield (good[-1] if good else late[0]), late[-1]


def _began_anew(counters: Sequence[Samples], low: float, high: float) -> bool:
    """Whether a counter fell, began or ended between two scrapes."""
    for samples in counters:
        last = next((value for when, value in reversed(samples) if when <= low), None)
        after = next((value for when, value in samples if when >= high), None)
        if (last is None) != (after is None) or (last or 0) > (after or 0):
            return True
    return False
