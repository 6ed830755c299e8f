"""From a commit to the project's files: what is packed is what the commit says.

Files are read as blobs at HEAD, not from the working tree, so line-ending conversion and filters
change nothing and the same commit gives the same bytes on every machine. A file there that differs
from the commit, or that git does not know, is refused by name. With ``allow_dirty`` exactly those
files come from the working tree, as they lie there, and the snapshot names them. Ignored files are
never packed. Nothing in the repository is written, and no hook runs; ``git status`` may run the
content filters that the user has configured for it.

Source: git-status, "Porcelain Format Version 2"; git-ls-tree; Git LFS, docs/spec.md, "The Pointer".
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from adroit_publish.artifacts.pull import LocalFile
from adroit_publish.bundle.content import Readable
from adroit_publish.bundle.listing import check_collisions, check_path
from adroit_publish.edge.urls import without_credentials
from adroit_publish.errors import DirtyTree, SourceError
from adroit_publish.git.blobs import GitBlob
from adroit_publish.git.repository import read_git

_SHOWN_FILES = 10
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_LFS_POINTER_LIMIT_BYTES = 1024


@dataclass(frozen=True)
class SourceFile:
    """One file of the project.

    Attributes:
        path: Relative to the root that was asked for, in POSIX form.
        size_bytes: Its length.
        executable: Whether git (or, of a dirty file, the file system) marks it executable.
        content: Its bytes.
    """

    path: str
    size_bytes: int
    executable: bool
    content: Readable


@dataclass(frozen=True)
class Snapshot:
    """The project's files at one commit.

    Attributes:
        commit: The commit's id, 40 hex digits (64 in a SHA-256 repository).
        branch: The branch that is checked out; None where HEAD is detached.
        dirty: Paths that were taken from the working tree, or left out because they are deleted
            there, in place of what the commit says. Empty unless ``allow_dirty``.
        files: Sorted by the bytes of their paths.
        remote_url: Where `origin` is, without credentials; None where there is none.
    """

    commit: str
    branch: str | None
    dirty: tuple[str, ...]
    files: tuple[SourceFile, ...]
    remote_url: str | None


@dataclass(frozen=True)
class _Entry:
    """One row of ``git ls-tree -r -l``."""

    mode: str
    oid: str
    size: str
    path: str


@dataclass(frozen=True)
class _Status:
    """What ``git status`` says: HEAD, and path -> kind of every file that differs from it."""

    commit: str
    branch: str | None
    changes: dict[str, str]


def snapshot(
    root: Path,
    directories: Sequence[str],
    *,
    is_excluded: Callable[[str], bool],
    allow_dirty: bool,
) -> Snapshot:
    """Takes the files below some directories as the commit that is checked out has them.

    Args:
        root: The project repository's root; the git work tree's top, or a directory below it.
        directories: The project directory and its includes, relative to ``root``, POSIX.
        is_excluded: Says of a path relative to ``root`` whether it is left out. What is left out
            is not looked at: it may be dirty, a symlink, or of any name.
        allow_dirty: Whether files that differ from the commit are taken from the working tree.

    Raises:
        DirtyTree: Files that would be packed differ from the commit, and ``allow_dirty`` is not
            set; names the first of them with their kind.
        SourceError: No repository, no commit, a missing directory, a symlink, a submodule, a Git
            LFS pointer, or a name that cannot be packed.
    """
    root = root.absolute()
    for directory in directories:
        check_path(directory, where=root)
    prefix = _prefix(root)
    status = _status(root, prefix, directories)
    changes = {path: kind for path, kind in status.changes.items() if not is_excluded(path)}
    if changes and not allow_dirty:
        raise _dirty_tree(changes, root)
    entries = _entries(root, prefix, directories, status.commit)
    _check_directories(directories, [entry.path for entry in entries], changes, root)
    files = [
        _from_commit(entry, root)
        for entry in entries
        if not is_excluded(entry.path) and entry.path not in changes
    ]
    files += [file for path in changes if (file := _from_work_tree(path, root))]
    for file in files:
        check_path(file.path, where=root)
    check_collisions((file.path for file in files), where=root)
    _check_no_pointers(files, root)
    return Snapshot(
        commit=status.commit,
        branch=status.branch,
        dirty=tuple(sorted(changes, key=str.encode)),
        files=tuple(sorted(files, key=lambda file: file.path.encode())),
        remote_url=_remote_url(root),
    )


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


def _status(root: Path, prefix: str, directories: Sequence[str]) -> _Status:
    output = read_git(
        root,
        *("status", "--porcelain=v2", "-z", "--branch", "--no-renames", "--no-ahead-behind"),
        *("--untracked-files=all", "--ignored=no", "--ignore-submodules=none"),
        *("--", *directories),
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
    return _Status(commit, None if branch == "(detached)" else branch, changes)


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


def _entries(root: Path, prefix: str, directories: Sequence[str], commit: str) -> list[_Entry]:
    output = read_git(
        root,
        *("ls-tree", "-r", "-z", "-l", "--full-tree", commit),
        *("--", *(prefix + directory for directory in directories)),
    )
    found: dict[str, _Entry] = {}
    for row in _rows(output, root):
        facts, _, path = row.partition("\t")
        mode, _, oid, size = facts.split()
        path = path.removeprefix(prefix)
        found[path] = _Entry(mode, oid, size, path)
    return list(found.values())


def _check_directories(
    directories: Iterable[str], committed: Sequence[str], changes: Iterable[str], root: Path
) -> None:
    present = [*committed, *changes]
    for directory in directories:
        if not any(path.startswith(directory + "/") for path in present):
            raise SourceError(
                "The commit has no files in a directory that is to be packed.",
                where=root / directory,
                got="a file, or a submodule" if directory in present else "nothing",
                next_step="commit it, or correct the project's directory or `include`",
            )


def _from_commit(entry: _Entry, root: Path) -> SourceFile:
    if entry.mode == "120000":
        raise _not_packed("symlink", "its target may lie outside of the bundle", entry.path, root)
    if entry.mode == "160000":
        raise _not_packed("submodule", "its files are not part of this commit", entry.path, root)
    size_bytes = int(entry.size)
    blob = GitBlob(str(root), entry.oid, size_bytes)
    return SourceFile(entry.path, size_bytes, entry.mode == "100755", blob)


def _from_work_tree(path: str, root: Path) -> SourceFile | None:
    """Returns a dirty file as it lies there; None where it was deleted."""
    place = root / path
    try:
        found = place.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise SourceError("A file cannot be read.", where=place, got=error.strerror) from error
    if stat.S_ISLNK(found.st_mode):
        raise _not_packed("symlink", "its target may lie outside of the bundle", path, root)
    if stat.S_ISDIR(found.st_mode):
        raise _not_packed("repository", "its files are not part of this commit", path, root)
    if not stat.S_ISREG(found.st_mode):
        raise _not_packed("special file", "it has no content", path, root)
    executable = bool(found.st_mode & stat.S_IXUSR)
    return SourceFile(path, found.st_size, executable, LocalFile(str(place), found.st_size))


def _check_no_pointers(files: Iterable[SourceFile], root: Path) -> None:
    for file in files:
        if len(_LFS_POINTER) < file.size_bytes < _LFS_POINTER_LIMIT_BYTES:
            with file.content.open() as stream:
                if stream.read(len(_LFS_POINTER)) == _LFS_POINTER:
                    why = "the commit holds its pointer and not its content"
                    raise _not_packed("Git LFS file", why, file.path, root)


def _remote_url(root: Path) -> str | None:
    urls = read_git(root, "config", "--get", "--default", "", "remote.origin.url")
    first = urls.decode(errors="replace").split("\n")[0]
    return without_credentials(first) or None


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


def _dirty_tree(changes: dict[str, str], root: Path) -> DirtyTree:
    shown = [f"{path!a} ({kind})" for path, kind in sorted(changes.items())[:_SHOWN_FILES]]
    if len(changes) > _SHOWN_FILES:
        shown.append(f"and {len(changes) - _SHOWN_FILES} more")
    return DirtyTree(
        "Files that would be packed are not what the commit says.",
        where=root,
        got="\n".join(shown),
        wanted="a clean working tree",
        next_step="commit them, or give --allow-dirty to pack the working tree as it is",
    )


def _not_packed(kind: str, why: str, path: str, root: Path) -> SourceError:
    return SourceError(
        f"A {kind} cannot be packed: {why}.",
        where=f"{path!a} in {root}",
        wanted="a plain file",
        next_step="replace it by the file itself, or add it to `source: exclude` in config.yaml",
    )
