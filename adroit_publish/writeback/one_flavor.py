"""One edit of one flavor by hand or by a rollover: a hold, its end, a deletion; in git if asked."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from adroit_publish.writeback.commit import commit_edits
from adroit_publish.writeback.commit_message import FlavorMessage
from adroit_publish.writeback.committed_flavors import FILE
from adroit_publish.writeback.flavors_file import Edit, edit_file
from adroit_publish.writeback.push import Committed


@dataclass(frozen=True)
class InGit:
    """What is to be done in git about an edit of flavors.yaml.

    Attributes:
        commit: Whether it is committed.
        push: Whether that is pushed too, to the upstream of what is checked out; a push commits.
    """

    commit: bool = False
    push: bool = False


@dataclass(frozen=True)
class FlavorEdited:
    """What came of an edit.

    Attributes:
        changed: Whether this clone's file was changed.
        committed: The commit, where one was asked for.
        subject: What a commit of it says.
        path: The file, from the directory where commands are typed.
    """

    changed: bool
    committed: Committed | None
    subject: str
    path: str = FILE

    def line(self) -> str:
        """Returns what git has of it, or what to type; empty where there is nothing to say."""
        done = self.committed
        if done is None:
            return f"next: git commit {self.path} -m '{self.subject}'" if self.changed else ""
        if done.commit is None:
            return f"{FILE}: {done.branch or 'HEAD'} has it already"
        how = "pushed to" if done.pushed else "committed on"
        lines = [f"{FILE}: {how} {done.branch or 'HEAD'}: {done.commit[:12]}", done.note]
        return "\n".join(filter(None, lines))


def edit_flavor(root: Path, flavor: str, edit: Edit, subject: str, in_git: InGit) -> FlavorEdited:
    """Makes one edit in this clone's flavors.yaml, and in git where that is asked for.

    Args:
        root: The directory of flavors.yaml.
        flavor: Which one is edited.
        edit: The edit; made already is no change.
        subject: What the commit says.
        in_git: What is asked for.

    Raises:
        ConfigError, RefusedError, StoreError: As ``edit_file`` does, and as ``edit``.
        SourceError: As ``commit_edits`` does; the working tree has the edit.
    """
    changed = edit_file(root / FILE, edit)
    committed = None
    if in_git.commit or in_git.push:
        message = FlavorMessage(subject)
        committed = commit_edits(root, {flavor: edit}, message, push=in_git.push)
    return FlavorEdited(changed, committed, subject, os.path.relpath(root / FILE))
