"""What must be so before a publish works, if what it writes back is to be committed and pushed.

All of it is asked before the first byte is uploaded: a detached HEAD, a missing upstream, missing
credentials, a rebase underway should not come to light after an hour. What a remote's hook or a
branch's protection says is known only from the push itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from adroit_publish.config.flavors import parse_flavors
from adroit_publish.config.targets import Target
from adroit_publish.errors import DirtyTree, RefusedError, SourceError
from adroit_publish.git.commit import check_commits_can_be_made, staged
from adroit_publish.git.history import head_commit, holds
from adroit_publish.git.remote import RemoteBranch, remote_branch
from adroit_publish.git.repository import read_git
from adroit_publish.writeback.committed_flavors import FILE, bytes_at

_UNDERWAY = {
    "MERGE_HEAD": "merge",
    "CHERRY_PICK_HEAD": "cherry-pick",
    "REVERT_HEAD": "revert",
    "rebase-merge": "rebase",
    "rebase-apply": "rebase",
}


def refuse_local_push(target: Target) -> None:
    """Raises RefusedError where only this machine's disk would hold what is pushed."""
    if target.on_this_machine:
        raise RefusedError(
            "--push is refused: the versions of this target are on this machine only.",
            where=f"target {target.name}",
            got=target.bundles,
            wanted="a bundle store that others can read",
            next_step="name another --target, or leave --push out",
        )


def check_commit(
    root: Path, *, push: bool, branch: str | None = None, flavors: Sequence[str] = ()
) -> None:
    """Shows, before a publish works, that what it writes back can be committed, and pushed.

    Args:
        push: Whether the commit is to be pushed; this asks the remote.
        branch: The remote's branch; None for the upstream of the one that is checked out.

    Raises:
        ConfigError: ``branch`` is no name of a branch, or the committed flavors.yaml is not right.
        SourceError: No checkout, no commit, an operation of git underway, staged changes of
            flavors.yaml, a flavor that is not committed, or nowhere to push to.
        RefusedError: HEAD has commits that the branch has not: the push would need them.
        StoreError: git cannot write or sign here, or the remote does not answer or lets us not in.
    """
    read_git(root, "rev-parse", "--show-toplevel")
    head = head_commit(root)
    check_nothing_underway(root)
    check_not_staged(root, head)
    known = parse_flavors(bytes_at(root, head))
    missing = [flavor for flavor in flavors if flavor not in known]
    if missing:
        raise SourceError(
            f"flavors.yaml as committed has no {', '.join(missing)}.",
            where=f"{FILE} at {head[:12]}",
            wanted="flavors that are committed: the publisher commits their versions alone",
            next_step=f'git commit {FILE} -m "...", then run the same command again',
        )
    check_commits_can_be_made(root, head)
    if push:
        upstream = remote_branch(root, branch)
        tip = upstream.tip()
        _check_head_is_there(root, head, upstream, tip)
        upstream.push(tip, dry_run=True)


def check_nothing_underway(root: Path) -> None:
    """Raises SourceError while git waits for a merge, or the like, to be finished."""
    names = [option for name in _UNDERWAY for option in ("--git-path", name)]
    paths = read_git(root, "rev-parse", *names).decode().splitlines()
    for path, operation in zip(paths, _UNDERWAY.values(), strict=True):
        if (root / path).exists():
            raise SourceError(
                f"A {operation} is underway in this checkout.",
                where=root,
                next_step=f"git {operation} --continue, or git {operation} --abort",
            )


def check_not_staged(root: Path, head: str) -> None:
    """Raises DirtyTree where the index has flavors.yaml otherwise than HEAD."""
    if staged(root, head, FILE):
        raise DirtyTree(
            f"{FILE} has staged changes, which the publisher's commit would get mixed up with.",
            where=root,
            wanted=f"a {FILE} that is committed, or changed and not staged",
            next_step=f"git commit {FILE}, or git restore --staged {FILE}",
        )


def _check_head_is_there(root: Path, head: str, upstream: RemoteBranch, tip: str) -> None:
    if not holds(root, tip, head):
        raise RefusedError(
            f"What is checked out is not on {upstream}.",
            where=root,
            got=f"HEAD is {head[:12]}, the branch is at {tip[:12]}",
            wanted="source that others have too: --push sends the publisher's own commit alone",
            next_step=f"git push {upstream.remote} HEAD:{upstream.branch}, or git pull --rebase "
            "first, then run the same command again",
        )
