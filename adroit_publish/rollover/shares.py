"""Whether a share of the new version's requests is larger than the old one's: by a test.

Two shares that were counted are never just compared: 2 of 40 and 1 of 40 tell nothing. The
difference of the two has an interval, and three answers follow from it and from a margin:

* *worse*: even the lower end of the interval lies above the margin;
* *open*: the difference that was seen lies above the margin, the lower end does not;
* *alike*: the difference that was seen lies within the margin.

A rollover is looked at again and again, and each look is another chance to be wrong: so 99 % is the
confidence unless told otherwise, and not the customary 95 %.

Source: R. G. Newcombe, "Interval estimation for the difference between independent proportions",
Statistics in Medicine 17 (1998), 873-890, method 10; its parts are E. B. Wilson's score intervals,
Journal of the American Statistical Association 22 (1927), 209-212.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist
from typing import Literal

CONFIDENCE = 0.99
FEWEST = 10
"""Fewer requests than this prove nothing against a version, whatever became of them."""

Answer = Literal["alike", "open", "worse"]


@dataclass(frozen=True)
class Proportion:
    """``part`` of ``whole`` requests."""

    part: float
    whole: float

    @property
    def value(self) -> float:
        """From 0 to 1; 0 where there was no request."""
        return self.part / self.whole if self.whole else 0.0

    def interval(self, confidence: float) -> tuple[float, float]:
        """Returns between which two shares the true one lies: Wilson's score interval."""
        if self.whole <= 0:
            return 0.0, 1.0
        z = NormalDist().inv_cdf((1 + confidence) / 2)
        spread = z * z / self.whole
        middle = (self.value + spread / 2) / (1 + spread)
        half = z * sqrt(self.value * (1 - self.value) / self.whole + spread / self.whole / 4)
        half /= 1 + spread
        return min(self.value, middle - half), max(self.value, middle + half)


def excess(new: Proportion, old: Proportion, confidence: float) -> tuple[float, float]:
    """Returns the interval of the new share less the old one: Newcombe's method 10."""
    (new_low, new_high), (old_low, old_high) = new.interval(confidence), old.interval(confidence)
    seen = new.value - old.value
    low = seen - sqrt((new.value - new_low) ** 2 + (old_high - old.value) ** 2)
    high = seen + sqrt((new_high - new.value) ** 2 + (old.value - old_low) ** 2)
    return low, high


def compare(new: Proportion, old: Proportion, margin: float, confidence: float) -> Answer:
    """Returns how the new share compares with the old one.

    Args:
        new: Counted on the new version.
        old: Counted on the old version. Where it had no request, the margin alone is what the new
            share is compared with.
        margin: How much larger the new share may be, 0 to 1.
        confidence: How sure "worse" has to be, two-sided, 0 to 1.
    """
    low = excess(new, old, confidence)[0] if old.whole else new.interval(confidence)[0]
    if low > margin and new.whole >= FEWEST:
        return "worse"
    return "open" if new.value - old.value > margin else "alike"
