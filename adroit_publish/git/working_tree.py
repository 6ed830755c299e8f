"""HEAD, and how the working tree differs from it.

Source: git-status, "Porcelain Format Version 2"; git-ls-tree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adroit_publish.errors import SourceError
from adroit_publish.git.blobs import committed_bytes
from adroit_publish.git.repository import OFFLINE, read_git


@dataclass(frozen=True)
class TreeEntry:
    """One row of ``git ls-tree -r -l``."""

    mode: str
    oid: str
    size: str
    path: str


@dataclass(frozen=True)
class TreeStatus:
    """What ``git status`` says: HEAD, and path -> kind of every file that differs from it."""

    commit: str
    branch: str | None
    changes: dict[str, str]


def look(root: Path, paths: Sequence[str]) -> tuple[TreeStatus, dict[str, TreeEntry]]:
    """Returns how files differ from HEAD, and by its path each file that HEAD has.

    Paths are relative to ``root``.

    Raises:
        SourceError: No repository, no working tree, no commit yet, a name that is not UTF-8; or git
            failed.
    """
    prefix = _prefix(root)
    status = _status(root, prefix, paths)
    return status, _entries(root, prefix, paths, status.commit)


def unchanged_bytes(root: Path, path: str) -> bytes | None:
    """Returns a file as the commit has it; None where it differs, or git does not know it.

    It does not differ where git calls it unchanged, whatever line endings it was checked out with.
    """
    place = root / path
    if place.is_symlink() or "\n" in path:
        return None
    try:
        committed = committed_bytes(root, path)
        present = place.read_bytes() if place.is_file() else None
        if committed is None or committed == present:
            return committed
        return None if _status(root, "", [path]).changes else committed
    except (SourceError, OSError):
        return None  # whoever publishes is told by `snapshot`


def _prefix(root: Path) -> str:
    """Returns the path from the work tree's top to ``root``, ending in ``/`` unless empty."""
    shown = read_git(root, "rev-parse", "--is-inside-work-tree", "--show-prefix")
    inside, _, prefix = shown.removesuffix(b"\n").partition(b"\n")
    if inside != b"true":
        raise SourceError(
            "The repository has no working tree.",
            where=root,
            next_step="run this in a clone of the project's repository",
        )
    return _text(prefix, root)


def _status(root: Path, prefix: str, paths: Sequence[str]) -> TreeStatus:
    output = read_git(
        root,
        *("status", "--porcelain=v2", "-z", "--branch", "--no-renames", "--no-ahead-behind"),
        *("--untracked-files=all", "--ignored=no", "--ignore-submodules=dirty"),
        *("--", *paths),
        variables=OFFLINE,
    )
    commit, branch, changes = "", None, {}
    for row in _rows(output, root):
        if row.startswith("# branch.oid "):
            commit = row.removeprefix("# branch.oid ")
        elif row.startswith("# branch.head "):
            branch = row.removeprefix("# branch.head ")
        elif not row.startswith("#"):
            path, kind = _change(row)
            # A path can have two rows: deleted from the index, and there as an untracked file.
            changes[path.removeprefix(prefix)] = kind
    if commit == "(initial)":
        raise SourceError(
            "The repository has no commit yet.",
            where=root,
            next_step='git add -A && git commit -m "..."',
        )
    return TreeStatus(commit, None if branch == "(detached)" else branch, changes)


def _entries(root: Path, prefix: str, paths: Sequence[str], commit: str) -> dict[str, TreeEntry]:
    output = read_git(
        root,
        *("ls-tree", "-r", "-z", "-l", "--full-tree", commit),
        *("--", *(prefix + path for path in paths)),
        variables=OFFLINE,
    )
    entries: dict[str, TreeEntry] = {}
    for row in _rows(output, root):
        facts, _, path = row.partition("\t")
        mode, _, oid, size = facts.split()
        path = path.removeprefix(prefix)
        entries[path] = TreeEntry(mode, oid, size, path)
    return entries


def _change(row: str) -> tuple[str, str]:
    """Returns the path and the kind of change of one row of ``git status``."""
    if row.startswith("? "):
        return row[2:], "untracked"
    if row.startswith("u "):
        return row.split(" ", 10)[10], "in conflict"
    states, path = row[2:4], row.split(" ", 8)[8]
    if "D" in states:
        return path, "deleted"
    if "A" in states:
        return path, "added, not committed"
    return path, "staged, not committed" if states[1] == "." else "modified"


def _rows(output: bytes, root: Path) -> list[str]:
    return [_text(row, root) for row in output.split(b"\0") if row]


def _text(data: bytes, root: Path) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise SourceError(
            "A file name is not valid UTF-8.",
            where=root,
            got=ascii(data[-200:]),
            next_step="rename the file",
        ) from error
