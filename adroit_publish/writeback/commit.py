"""What was written back to flavors.yaml, as one commit, on HEAD or on a branch of a remote.

What the user has staged or changed beside it stays as it is; nothing changed means no commit.
Afterwards the branch that is checked out has the commit too, wherever that loses nothing.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from pathlib import Path

from adroit_publish.errors import StoreError
from adroit_publish.git.commit import commit_file, fast_forward
from adroit_publish.git.history import current_branch, head_commit
from adroit_publish.git.remote import remote_branch
from adroit_publish.writeback.commit_checks import check_not_staged, check_nothing_underway
from adroit_publish.writeback.commit_message import CommitMessage, FlavorMessage
from adroit_publish.writeback.committed_flavors import FILE, bytes_at, edited_as_committed
from adroit_publish.writeback.flavors_file import Edit
from adroit_publish.writeback.push import Committed, Push

_ATTEMPTS = 5
"""An editor that looks at the checkout holds the index for a moment."""


def commit_edits(
    root: Path,
    edits: Mapping[str, Edit],
    message: CommitMessage | FlavorMessage,
    *,
    push: bool,
    branch: str | None = None,
) -> Committed:
    """Commits edits of flavors.yaml, which the working tree has already, and nothing else.

    Args:
        edits: Flavor -> its edit, which raises RefusedError where another writer was there.
        push: Whether it goes to the remote. Otherwise it is made on HEAD.
        branch: The remote's branch; None for the upstream of the one that is checked out.

    Raises:
        ConfigError, SourceError: As ``check_commit``.
        RefusedError: An edit found another value (named, with both), or the remote refuses.
        StoreError: git or the network failed; nothing is lost, the same command goes on.
    """
    head = head_commit(root)
    check_nothing_underway(root)
    check_not_staged(root, head)
    if push:
        return Push(root, edits, message, remote_branch(root, branch), head).run()
    return _commit_on_head(root, edits, message)


def _commit_on_head(
    root: Path, edits: Mapping[str, Edit], message: CommitMessage | FlavorMessage
) -> Committed:
    failure: StoreError | None = None
    for attempt in range(_ATTEMPTS):
        if failure:
            time.sleep(random.uniform(0, 0.1 * 2**attempt))
        head, branch = head_commit(root), current_branch(root)
        old = bytes_at(root, head)
        new = edited_as_committed(edits, old, branch or "HEAD")
        if new == old:
            return Committed(None, branch, pushed=False)
        commit = commit_file(root, head, FILE, new, str(message))
        try:
            fast_forward(root, head, commit, FILE, new)
            return Committed(commit, branch, pushed=False)
        except StoreError as error:
            failure = error
    assert failure
    raise failure
