"""What a rollover asks of traffic: how many requests each bundle answered, and how many failed.

``Traffic`` is the edge; ``prometheus`` and ``server_metrics`` implement it, and ``sources`` chooses
one by its scheme. A reading is evidence for a bundle only where all of this holds; anything else is
*no evidence*, and no evidence is never zero:

* ``read`` returned. A source that is away or answers nonsense is a StoreError.
* ``utc`` is recent: it is the time of the newest count that went in, not the time of asking, so a
  source that goes on answering from old samples gives an old reading.
* ``problems`` is empty: servers that could not be counted, a window that is not fully watched.
* ``by_bundle`` has the bundle: where it has not, no server of it was ever seen.

A request is anything that ``/invocations`` answered; it failed where the status is not 2xx. That
counts 400: a version that no longer takes what its callers send fails with that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Protocol

from adroit_publish.rollover.evidence import Counts

REQUESTS = "adroit_invocation_seconds_count"
"""Counts every request, and is there from 0 on: the counters by status begin with a request."""
BY_STATUS = "adroit_invocations_total"

_BUNDLE_ID = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class TrafficReading:
    """The traffic of several bundles in one window.

    Attributes:
        utc: When the window ends: the time of the oldest of the newest counts that went in.
        by_bundle: By bundle id; a bundle of which no server was ever seen is not in it.
        problems: Why this proves less than it says, a line each.
    """

    utc: datetime
    window_s: float
    by_bundle: Mapping[str, Counts]
    problems: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Returns it as JSON values."""
        return asdict(self) | {"utc": self.utc.isoformat()}


class Traffic(Protocol):
    """Where requests are counted."""

    @property
    def watches(self) -> bool:
        """Whether each reading is compared with the last, so that every look has to take one."""
        ...

    @property
    def state(self) -> Mapping[str, Any] | None:
        """What the next reading needs of those before it, as JSON values; None: nothing."""
        ...

    def read(self, bundle_ids: Sequence[str], window_s: float) -> TrafficReading:
        """Returns the traffic of the bundles in the last ``window_s`` seconds.

        Raises:
            StoreError: The source is away (``transient``), or does not answer as it should.
        """
        ...


def check_question(bundle_ids: Sequence[str], window_s: float) -> None:
    """Raises ValueError unless these are bundle ids and a window of a second at least."""
    if not bundle_ids or not all(_BUNDLE_ID.fullmatch(each) for each in bundle_ids):
        raise ValueError(f"not bundle ids: {bundle_ids!r}")
    if not 1 <= window_s < float("inf"):
        raise ValueError(f"a window of {window_s} s")
