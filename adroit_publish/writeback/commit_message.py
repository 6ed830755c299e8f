"""The message of the commit that the publisher makes, and the trailer by which it knows its own.

    Publish example_metaflow v5f2b9c01-3f0c9a1b2c3d

    example_metaflow: 5f2b9c01... -> v5f2b9c01-3f0c9a1b2c3d (run 5f2b9c01...)
    Target: eng

    Adroit-Publish: 1 flavor

Source of the trailer's form: git-interpret-trailers.
"""

from __future__ import annotations

from dataclasses import dataclass

TRAILER = "Adroit-Publish"
_SUBJECT_CHARACTERS = 100


@dataclass(frozen=True)
class VersionChange:
    """What a commit does to one flavor; None where it had no version, or its run is not known."""

    flavor: str
    old: str | None
    new: str
    run_id: str | None = None


@dataclass(frozen=True)
class CommitMessage:
    """What a commit of one change or more says."""

    changes: tuple[VersionChange, ...]
    target: str

    def __str__(self) -> str:
        """Returns the whole message: subject, body, trailer."""
        lines = [_line(change) for change in self.changes]
        count = f"{len(lines)} flavor{'s' if len(lines) != 1 else ''}"
        body = "\n".join([*lines, f"Target: {self.target}"])
        return f"{self._subject(count)}\n\n{body}\n\n{TRAILER}: {count}\n"

    def _subject(self, count: str) -> str:
        named = "Publish " + ", ".join(f"{c.flavor} {c.new}" for c in self.changes)
        if len(named) <= _SUBJECT_CHARACTERS or len(self.changes) == 1:
            return named
        first = self.changes[0]
        return f"Publish {count}: {first.flavor} {first.new} and {len(self.changes) - 1} more"


@dataclass(frozen=True)
class FlavorMessage:
    """What a commit says that publishes nothing: a hold, its end, a deletion.

    Attributes:
        subject: What was done to which flavor.
    """

    subject: str

    def __str__(self) -> str:
        """Returns the whole message: subject, trailer."""
        return f"{self.subject}\n\n{TRAILER}: 1 flavor\n"


def _line(change: VersionChange) -> str:
    made_from = f" (run {change.run_id})" if change.run_id else ""
    return f"{change.flavor}: {change.old or 'no version'} -> {change.new}{made_from}"
