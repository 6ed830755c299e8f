"""What was written back to flavors.yaml, as one commit, on HEAD or on a branch of a remote.

The commit holds edits of flavors.yaml and nothing else: what the user has staged or changed beside
them stays as it is. Nothing changed means no commit. Afterwards the branch that is checked out has
the commit too, wherever that loses nothing.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from pathlib import Path

from adroit_publish.errors import StoreError
from adroit_publish.git import commit as git_commit
from adroit_publish.git.process import run_git
from adroit_publish.git.remote import remote_branch
from adroit_publish.writeback.commit_checks import check_not_staged, check_nothing_underway
from adroit_publish.writeback.commit_message import TRAILER, CommitMessage
from adroit_publish.writeback.committed_flavors import FILE, Edit, apply_edits, bytes_at
from adroit_publish.writeback.push import Committed, Push

_ATTEMPTS = 5
"""An editor that looks at the checkout holds the index for a moment."""


def commit_edits(
    root: Path,
    edits: Mapping[str, Edit],
    message: CommitMessage,
    *,
    push: bool,
    branch: str | None = None,
) -> Committed:
    """Commits edits of flavors.yaml, and nothing else.

    Args:
        root: The directory of flavors.yaml; the working tree has the edits already.
        edits: Flavor -> its edit, which raises RefusedError where another writer was there.
        message: What the commit says.
        push: Whether it goes to the remote. Otherwise it is made on HEAD.
        branch: The remote's branch; None for the upstream of the one that is checked out.

    Returns:
        The commit, durable when this returns.

    Raises:
        ConfigError, SourceError: As ``check_commit``.
        RefusedError: An edit found another value (named, with both), or the remote refuses.
        StoreError: git or the network failed; nothing is lost, the same command goes on.
    """
    head = git_commit.head_commit(root)
    check_nothing_underway(root)
    check_not_staged(root, head)
    if push:
        return Push(root, edits, message, remote_branch(root, branch), head).run()
    return _commit_on_head(root, edits, message)


def is_own_commit(root: Path, revision: str) -> bool:
    """Returns whether a commit is the publisher's: by its trailer, and by what it changes.

    A commit that changes anything beside flavors.yaml is nobody's but its author's, whatever it
    says; so is one whose parent the clone does not have.

    Raises:
        SourceError: git knows no such commit.
    """
    shown = run_git(
        root,
        *("log", "-1", f"--format=%(trailers:key={TRAILER},valueonly)%x00%H %P"),
        *("--end-of-options", revision, "--"),
    )
    trailer, _, ids = shown.decode(errors="replace").partition("\0")
    commit, *parents = ids.split()
    if not trailer.strip() or len(parents) != 1:
        return False
    changed = git_commit.changed_files(root, parents[0], commit)
    return changed == [git_commit.committed_file(root, commit, FILE).path]


def _commit_on_head(root: Path, edits: Mapping[str, Edit], message: CommitMessage) -> Committed:
    for attempt in range(1, _ATTEMPTS + 1):
        head, branch = git_commit.head_commit(root), git_commit.current_branch(root)
        old = bytes_at(root, head)
        new = apply_edits(edits, old, branch or "HEAD")
        if new == old:
            break
        commit = git_commit.commit_file(root, head, FILE, new, str(message))
        try:
            git_commit.fast_forward(root, head, commit, FILE, new)
            return Committed(commit, branch, False, attempt)
        except StoreError:
            if attempt == _ATTEMPTS:
                raise
            time.sleep(random.uniform(0, 0.1 * 2**attempt))
    return Committed(None, branch, False, attempt)
