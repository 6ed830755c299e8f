"""One file into one commit, by plumbing: neither the working tree nor the user's index takes part.

The new content becomes a blob, a temporary index the tree of the parent with that blob in it, the
tree a commit. ``fast_forward`` then moves HEAD there, and moves the index and the files with it
as ``git merge --ff-only`` would: all of it, or an error and nothing.

Author, committer and ``commit.gpgSign`` are the user's. Where git knows no identity, as in most CI
jobs, the commit is ``adroit-publish``'s own: it is the publisher's work, who asked for it stands
in the record, and an unset name is no reason to throw a publish away. The hooks of ``git commit``
do not run: they would judge (and some would stash) a working tree that is not what is committed.

Source: git-read-tree, "Two Tree Merge"; git-commit-tree.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from adroit_publish.errors import StoreError
from adroit_publish.git.history import changed_files, committed_file
from adroit_publish.git.repository import read_git, write_git

NAME, EMAIL = "adroit-publish", "adroit-publish@localhost"
_IDENTITY = ("-c", f"user.name={NAME}", "-c", f"user.email={EMAIL}")


def staged(root: Path, commit: str, name: str) -> bool:
    """Returns whether the index has a file otherwise than a commit does, or in conflict."""
    return read_git(root, "diff-index", "--cached", "--name-only", commit, "--", name) != b""


def commit_file(root: Path, parent: str, name: str, data: bytes, message: str) -> str:
    """Makes a commit that changes one file of its parent, and returns its id.

    Nothing refers to it yet: until it is pushed or HEAD is moved there, nobody sees it.

    Raises:
        SourceError: The parent has no such file.
        StoreError: git could not write, or could not sign.
    """
    tree = _tree_with(root, parent, name, _write_blob(root, data))
    return _commit_tree(root, parent, tree, message)


def check_commits_can_be_made(root: Path, parent: str) -> None:
    """Makes a commit that nobody will see: StoreError where git cannot write here, or sign."""
    _commit_tree(root, parent, f"{parent}^{{tree}}", "adroit-publish looks whether it may commit\n")


def fast_forward(root: Path, start: str, end: str, name: str, edited: bytes) -> None:
    """Moves HEAD, the index and the files from one commit to one of its descendants.

    Whatever else is staged or changed stays so. The file itself may be as ``start`` has it or hold
    ``edited``; if it holds anything else it stays as it is, which works where the commits differ in
    nothing but that edit (else the file would take back what others have changed).

    Args:
        end: The descendant.
        name: The file that was edited, relative to ``root``.
        edited: What the file of ``start`` is with the edit alone.

    Raises:
        StoreError: Something that is staged or changed stands against it, or HEAD is no longer at
            ``start``; files and index are as they were.
    """
    before, after = committed_file(root, start, name), committed_file(root, end, name)
    if staged(root, start, name):
        raise StoreError(f"{name} has staged changes.", where=root)
    # The id that the file in the working tree would have if it were added.
    present = write_git(root, "hash-object", "-w", "--", name)
    wanted, base = _write_blob(root, edited), None
    try:
        if present in (before.blob, wanted):
            tree = _tree_with(root, start, name, present)
            write_git(root, "update-index", "--", name)
            write_git(root, "read-tree", "-m", "-u", tree, end)
            base = tree
        elif after.blob == wanted and changed_files(root, start, end) == [after.path]:
            entry = f"{after.mode},{after.blob},{after.path}"
            write_git(root, "update-index", "--cacheinfo", entry)
        else:
            raise StoreError(f"{name} has further changes that are not committed.", where=root)
        write_git(root, "update-ref", "-m", "adroit-publish: fast-forward", "HEAD", end, start)
    except StoreError:
        if base is not None:
            write_git(root, "read-tree", "-m", "-u", end, base)
        write_git(root, "reset", "--quiet", "--", name)
        raise
    write_git(root, "reset", "--quiet", "--", name)


def _write_blob(root: Path, data: bytes) -> str:
    return write_git(root, "hash-object", "-w", "--stdin", given=data)


def _tree_with(root: Path, commit: str, name: str, blob: str) -> str:
    """Returns the tree of a commit with another content of one file."""
    file = committed_file(root, commit, name)
    with tempfile.TemporaryDirectory(prefix="adroit-") as scratch:
        own = {"GIT_INDEX_FILE": f"{scratch}/index"}
        write_git(root, "read-tree", commit, variables=own)
        entry = f"{file.mode},{blob},{file.path}"
        write_git(root, "update-index", "--cacheinfo", entry, variables=own)
        return write_git(root, "write-tree", "--missing-ok", variables=own)


def _commit_tree(root: Path, parent: str, tree: str, message: str) -> str:
    setting = ("config", "--type=bool", "--get", "--default", "false", "commit.gpgSign")
    signs = write_git(root, *setting) == "true"
    return write_git(
        root,
        *_identity(root),
        *("commit-tree", *(["-S"] if signs else []), "-p", parent, "-F", "-", tree),
        given=message.encode(),
    )


def _identity(root: Path) -> tuple[str, ...]:
    """Returns nothing where git knows who commits; it is not to guess from the host's name."""
    try:
        for who in ("GIT_AUTHOR_IDENT", "GIT_COMMITTER_IDENT"):
            write_git(root, "-c", "user.useConfigOnly=true", "var", who)
    except StoreError:
        return _IDENTITY
    return ()
