"""The traffic of a rollover, as evidence: for which time it is asked, and what it proves.

Before the switch it is the old version's own, for an hour or as long as it was watched. At a step
it is what came since the sitevar was set, for a day at most; while the old version drains, the
quiet time. Moments are the source's own: two operators' clocks need not agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adroit_publish.evidence.sources import open_traffic
from adroit_publish.rollover.evidence import Counts, TrafficRead
from adroit_publish.rollover.state import Rollover

BEFORE_S = 3600.0
LONGEST_S = 86400.0

State = Mapping[str, Any] | None


class NoEvidence(Exception):
    """A reading proves nothing; its watch of counters is kept all the same."""

    def __init__(self, reason: str, counters: State = None) -> None:
        super().__init__(reason)
        self.counters = counters


def count_traffic(rollover: Rollover) -> tuple[TrafficRead, State]:
    """Returns both versions' traffic in the state that a rollover is in, and the watch to keep.

    Raises:
        NoEvidence: No server of a version was ever counted.
        ConfigError: The source is not known here, or what lets us in cannot be read.
        StoreError: The source is away, or does not answer as it should.
    """
    checks = rollover.checks
    source = open_traffic(checks.traffic, rollover.counters)
    window_s, questions = checks.quiet_s, tuple[str, ...]()
    if rollover.state in ("proposed", "deployed", "verified"):
        window_s = BEFORE_S
    elif rollover.state == "pointed":
        window_s = max(checks.bake_s, LONGEST_S)
        questions = tuple(_asked(bound.query, rollover) for bound in checks.bounds)
    both = (rollover.old.bundle_id, rollover.new.bundle_id)
    asked: dict[str, Any] = {"questions": questions} if questions else {}
    if rollover.sample_s is not None:
        asked["since_s"] = rollover.sample_s
    reading = source.read(both, window_s, **asked)
    counts = dict(reading.by_bundle)
    if any(entry.after == "drained" for entry in rollover.history):
        # It was counted down to nothing. That the source forgot it since is no wedge.
        counts.setdefault(rollover.old.bundle_id, Counts(0, 0))
    unseen = [
        f"no server of {side.flavor} ({side.version}) was ever counted"
        for side in (rollover.old, rollover.new)
        if side.bundle_id not in counts
    ]
    if unseen:
        raise NoEvidence("; ".join([*reading.problems, *unseen]), source.state)
    old, new = (counts[bundle_id] for bundle_id in both)
    queries = [bound.query for bound in checks.bounds] if questions else []
    answers = {
        query: reading.answers.get(question, ())
        for query, question in zip(queries, questions, strict=True)
    }
    utc_s = reading.utc.timestamp()
    read = TrafficRead(
        utc_s,
        reading.window_s,
        old,
        new,
        utc_s if reading.source_s is None else reading.source_s,
        reading.problems,
        answers,
    )
    return read, source.state


def _asked(query: str, rollover: Rollover) -> str:
    """Returns a question of the user's with the bundle ids that it leaves open filled in."""
    for name, side in (("$old", rollover.old), ("$new", rollover.new)):
        query = query.replace(name, side.bundle_id)
    return query
