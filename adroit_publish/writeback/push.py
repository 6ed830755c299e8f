"""One commit of flavors.yaml to a branch that others push to as well.

The commit stands on the branch's head. Where the branch has moved, the edits are made again to the
file at its new head: nothing is forced, and nothing merged as text. The answer of a push may be
lost, so every attempt begins by looking whether the branch has an earlier one already.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from adroit_publish.errors import RefusedError, SourceError, StoreError
from adroit_publish.git.commit import commit_file, fast_forward
from adroit_publish.git.history import holds
from adroit_publish.git.remote import RemoteBranch
from adroit_publish.writeback.commit_message import CommitMessage, FlavorMessage
from adroit_publish.writeback.committed_flavors import FILE, bytes_at, edited_as_committed
from adroit_publish.writeback.flavors_file import Edit

_ATTEMPTS, _GIVE_UP_S = 40, 300.0
_UNANSWERED = 4
"""So often may the remote not answer before it is given up."""
_BACK_OFF_LIMIT_S = 2.0


@dataclass(frozen=True)
class Committed:
    """What came of a commit.

    Attributes:
        commit: Its id; None where the branch had everything already.
        branch: Where it is: a local branch, or ``remote/branch``; None on a detached HEAD.
        note: What is left to be done in this clone; empty where nothing is.
    """

    commit: str | None
    branch: str | None
    pushed: bool
    note: str = ""


@dataclass(frozen=True)
class Push:
    """One commit on its way to a branch that others push to as well."""

    root: Path
    edits: Mapping[str, Edit]
    message: CommitMessage | FlavorMessage
    upstream: RemoteBranch
    head: str

    def run(self) -> Committed:
        """Returns once the branch has the edits; raises as ``commit_edits``."""
        give_up = time.monotonic() + _GIVE_UP_S
        offered: dict[str, str] = {}  # parent -> the commit that was offered on it
        attempt, unanswered, failure = 0, 0, self._always_moved()
        while attempt < _ATTEMPTS and unanswered < _UNANSWERED and time.monotonic() < give_up:
            attempt += 1
            try:
                if done := self._attempt(offered):
                    return done
                unanswered, failure = 0, self._always_moved()
            except StoreError as error:
                if not error.transient:
                    raise
                unanswered, failure = unanswered + 1, error
            time.sleep(random.uniform(0, min(_BACK_OFF_LIMIT_S, 0.05 * 2**attempt)))
        raise failure

    def _attempt(self, offered: dict[str, str]) -> Committed | None:
        """Makes the commit on the branch's head and offers it; None where the branch moved."""
        tip = self.upstream.tip()
        for commit in offered.values():
            if holds(self.root, tip, commit):  # it arrived, and the answer did not
                return self._done(commit, tip)
        old = bytes_at(self.root, tip)
        new = edited_as_committed(self.edits, old, str(self.upstream))
        if new == old:
            return self._done(None, tip)
        if tip not in offered:
            offered[tip] = commit_file(self.root, tip, FILE, new, str(self.message))
        commit = offered[tip]
        return self._done(commit, commit) if self.upstream.push(commit) else None

    def _done(self, commit: str | None, tip: str) -> Committed:
        note = self._follow(tip)
        return Committed(commit, str(self.upstream), pushed=commit is not None, note=note)

    def _follow(self, tip: str) -> str:
        """Takes the checked out branch to the pushed one; returns what is left to be done."""
        if not self.upstream.checked_out or tip == self.head:
            return ""
        try:
            if holds(self.root, tip, self.head):
                edited = edited_as_committed(self.edits, bytes_at(self.root, self.head), "HEAD")
                fast_forward(self.root, self.head, tip, FILE, edited)
                return ""
            why = "the branch here has commits of its own"
        except (RefusedError, SourceError, StoreError) as error:
            why = " ".join(filter(None, [error.what, str(error.got or "").split("\n")[0]]))
        return f"This clone does not follow yet: {why}\n  next:   git pull --rebase --autostash"

    def _always_moved(self) -> StoreError:
        return StoreError(
            "Others were faster each time: the branch moved while we pushed.",
            transient=True,
            where=self.upstream,
            next_step="run the same command again; the version is published, nothing is lost",
        )
