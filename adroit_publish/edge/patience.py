"""How often and how long a request is made again: jittered back-off with two bounds.

A peer that gives no sign of life is given up within a minute, however it fails to answer; one that
answers with failures is tried as long, and a few times at least. Retry-After is kept.

This is the only clock of its kind: the registry, S3 and the artifact stores wait by it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime

from adroit_publish.errors import PublishError

SILENCE_TIMEOUT_S = 20.0
GIVE_UP_S = 55.0
"""How long a peer may give no sign of life, or go on failing, before it is given up."""
COSTLY_ATTEMPTS = 4
"""So often at least is a peer that answers tried, however long each attempt took."""
BACK_OFF_LIMIT_S = 1.0


class Patience:
    """How long one operation goes on trying.

    It ends where the peer gave no sign of life for ``give_up_s``, or where failed attempts and
    the waiting between them took as long and there were ``COSTLY_ATTEMPTS`` of them. ``wait`` may
    raise, to end an operation that others stopped.
    """

    def __init__(
        self, give_up_s: float = GIVE_UP_S, wait: Callable[[float], object] = time.sleep
    ) -> None:
        self._give_up_s = give_up_s
        self._wait = wait
        self._heard = self._began = time.monotonic()
        self._failing_s = 0.0
        self.failures = 0

    def part(self) -> Patience:
        """Returns the patience for one request of the operation; the silence so far counts."""
        fresh = Patience(self._give_up_s, self._wait)
        fresh._heard = self._heard
        return fresh

    def begin(self) -> None:
        """Notes that an attempt begins; its time counts should it fail."""
        self._began = time.monotonic()

    def heard(self) -> None:
        """Notes a sign of life: an answer, or bytes that were accepted."""
        self._heard = time.monotonic()

    def gained(self) -> None:
        """Notes that something arrived for good: what failed before no longer counts."""
        self._heard = self._began = time.monotonic()
        self._failing_s, self.failures = 0.0, 0

    @property
    def timeout_s(self) -> float:
        """How long the peer may be silent from now on."""
        left = self._give_up_s - (time.monotonic() - self._heard)
        return max(0.1, min(SILENCE_TIMEOUT_S, left))

    def wait_or_raise(self, error: PublishError, retry_after_s: float | None = None) -> None:
        """Waits before the next attempt, or raises ``error`` where there is to be none.

        The wait is longer by what the server asked for.
        """
        now = time.monotonic()
        self.failures += 1
        delay_s = random.uniform(0, min(BACK_OFF_LIMIT_S, 0.05 * 2 ** min(self.failures, 10)))
        delay_s += retry_after_s or 0
        self._failing_s += now - self._began + delay_s
        silent = now - self._heard + delay_s >= self._give_up_s
        failing = self._failing_s >= self._give_up_s and self.failures >= COSTLY_ATTEMPTS
        if silent or failing:
            raise error
        self._wait(delay_s)
        self._began = time.monotonic()


def retry_after_s(text: str | None) -> float | None:
    """Returns the seconds that a ``Retry-After`` header asks to wait; None where it does not."""
    text = (text or "").strip()
    if text.isdecimal():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None
