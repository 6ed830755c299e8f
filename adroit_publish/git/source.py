"""From a commit to the project's files: what is packed is what the commit says.

Files are read as blobs at HEAD, not from the working tree, so line-ending conversion and filters
change nothing and the same commit gives the same bytes on every machine. A file there that differs
from the commit, or that git does not know, is refused by name. With ``allow_dirty`` exactly those
files come from the working tree, as they lie there, and the snapshot names them. Ignored files are
never packed. What is not packed and decides what is (a config.yaml) is held to the same.

Nothing in the repository is written, nothing is fetched, and no hook runs.

Source: Git LFS, docs/spec.md, "The Pointer".
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

from adroit_publish.artifacts.pull import LocalFile
from adroit_publish.bundle.content import Readable
from adroit_publish.bundle.listing import check_collisions, check_path
from adroit_publish.config.file_names import is_generated, secret_kind
from adroit_publish.edge.urls import without_credentials
from adroit_publish.errors import DirtyTree, SourceError
from adroit_publish.git.blobs import GitBlob
from adroit_publish.git.repository import read_git
from adroit_publish.git.working_tree import TreeEntry, look

_SHOWN_FILES = 10
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_LFS_POINTER_LIMIT_BYTES = 1024

_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class SourceFile:
    """One file of the project, by its POSIX path from the root that was asked for.

    ``executable`` is what git says or, of a dirty file, the file system.
    """

    path: str
    size_bytes: int
    executable: bool
    content: Readable


@dataclass(frozen=True)
class Snapshot:
    """The project's files at one commit.

    Attributes:
        commit: Its id, 40 hex digits (64 in a SHA-256 repository).
        branch: The branch that is checked out; None where HEAD is detached.
        dirty: Paths that were taken from the working tree, or left out because they are deleted
            there, in place of what the commit says. Empty unless ``allow_dirty``.
        files: Sorted by the bytes of their paths.
        remote_url: Where `origin` is, without credentials; None where there is none.
        deciding: The files that decide what is packed and how.
    """

    commit: str
    branch: str | None
    dirty: tuple[str, ...]
    files: tuple[SourceFile, ...]
    remote_url: str | None
    deciding: tuple[SourceFile, ...] = ()


def snapshot(
    root: Path,
    directories: Sequence[str],
    *,
    is_excluded: Callable[[str], bool],
    allow_dirty: bool,
    optional: Sequence[str] = (),
    deciding: Sequence[str] = (),
    differing: Mapping[str, str] = _NOTHING,
) -> Snapshot:
    """Takes the files below some directories as the commit that is checked out has them.

    Args:
        root: The project repository's root; all paths are relative to it, in POSIX form.
        is_excluded: Says of a path whether it is left out. What is left out is not looked at: it
            may be dirty, a symlink, or of any name.
        allow_dirty: Whether files that differ from the commit are taken from the working tree.
        optional: Further directories, of which git need not know any file.
        deciding: Files that are not packed and decide what is; the commit has to have them.
        differing: Further files that decide, of which the caller found that what they say is not
            what the commit's say: by path, how.

    Raises:
        DirtyTree: Files that would be packed, or decide, differ from the commit, and
            ``allow_dirty`` is not set; names the first of them with their kind.
        SourceError: No repository, no commit, a missing directory, a symlink, a submodule, a Git
            LFS pointer, or a name that cannot be packed.
    """
    root = root.absolute()
    paths = (*directories, *optional, *deciding)
    for path in paths:
        check_path(path, where=root)
    status, entries = look(root, paths)

    def is_packed(path: str) -> bool:
        return path.startswith(below) and not is_excluded(path)

    below = tuple(f"{directory}/" for directory in (*directories, *optional))
    # Git sees no change of a file that is ignored, or lies behind a symbolic link.
    changes = {path: "not in the commit" for path in deciding if path not in entries}
    changes |= differing
    changes |= {
        path: kind for path, kind in status.changes.items() if path in deciding or is_packed(path)
    }
    if changes and not allow_dirty:
        raise _dirty_tree(changes, root)
    _check_directories(directories, [*entries, *status.changes], root)

    packed = filter(is_packed, {**entries, **changes})
    take = partial(_take, root=root, entries=entries, changes=changes, deciding=deciding)
    files = [file for path in sorted(packed, key=str.encode) if (file := take(path))]
    for file in files:
        check_path(file.path, where=root)
    check_collisions((file.path for file in files), where=root)
    return Snapshot(
        commit=status.commit,
        branch=status.branch,
        dirty=tuple(sorted(changes, key=str.encode)),
        files=tuple(files),
        remote_url=_remote_url(root),
        deciding=tuple(file for path in deciding if (file := take(path))),
    )


def _check_directories(directories: Iterable[str], present: Sequence[str], root: Path) -> None:
    for directory in directories:
        if not any(path.startswith(directory + "/") for path in present):
            raise SourceError(
                "The commit has no files in a directory that is to be packed.",
                where=root / directory,
                got="a file, or a submodule" if directory in present else "nothing",
                next_step="commit it, or correct the project's directory or `include`",
            )


class _NotPlain(Exception):
    """A file that cannot be packed: its kind, and why that one cannot."""


def _take(
    path: str,
    root: Path,
    entries: Mapping[str, TreeEntry],
    changes: Container[str],
    deciding: Container[str],
) -> SourceFile | None:
    try:
        dirty = path in changes
        file = _from_work_tree(path, root) if dirty else _from_commit(entries[path], root)
        if file:
            _check_content(file)
        return file
    except _NotPlain as error:
        kind, why = error.args
        raise _not_packed(kind, why, path, root, decides=path in deciding) from None


def _from_commit(entry: TreeEntry, root: Path) -> SourceFile:
    if entry.mode == "120000":
        raise _NotPlain("symlink", "its target may lie outside of the bundle")
    if entry.mode == "160000":
        raise _NotPlain("submodule", "its files are not part of this commit")
    if not entry.size.isdecimal():
        raise SourceError(
            "The repository does not hold a file of the commit.",
            where=f"{entry.path!a} in {root}",
            wanted=f"blob {entry.oid}",
            next_step="git fsck",
        )
    size_bytes = int(entry.size)
    blob = GitBlob(str(root), entry.oid, size_bytes)
    return SourceFile(entry.path, size_bytes, entry.mode == "100755", blob)


def _from_work_tree(path: str, root: Path) -> SourceFile | None:
    """Returns a dirty file as it lies there; None where it was deleted."""
    place = root / path
    try:
        status = place.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise SourceError("A file cannot be read.", where=place, got=error.strerror) from error
    if stat.S_ISLNK(status.st_mode):
        raise _NotPlain("symlink", "its target may lie outside of the bundle")
    if stat.S_ISDIR(status.st_mode):
        raise _NotPlain("repository", "its files are not part of this commit")
    if not stat.S_ISREG(status.st_mode):
        raise _NotPlain("special file", "it has no content")
    executable = bool(status.st_mode & stat.S_IXUSR)
    return SourceFile(path, status.st_size, executable, LocalFile(str(place), status.st_size))


def _check_content(file: SourceFile) -> None:
    if len(_LFS_POINTER) < file.size_bytes < _LFS_POINTER_LIMIT_BYTES:
        with file.content.open() as stream:
            if stream.read(len(_LFS_POINTER)) == _LFS_POINTER:
                raise _NotPlain("Git LFS file", "the commit holds its pointer and not its content")


def _remote_url(root: Path) -> str | None:
    urls = read_git(root, "config", "--get", "--default", "", "remote.origin.url")
    first = urls.decode(errors="replace").split("\n")[0]
    return without_credentials(first) or None


def _dirty_tree(changes: dict[str, str], root: Path) -> DirtyTree:
    shown = [f"{path!a} ({kind})" for path, kind in sorted(changes.items())[:_SHOWN_FILES]]
    if len(changes) > _SHOWN_FILES:
        shown.append(f"and {len(changes) - _SHOWN_FILES} more")
    return DirtyTree(
        "Files that the bundle is made from are not what the commit says.",
        where=root,
        got="\n".join(shown),
        wanted="a clean working tree",
        next_step=_mend(changes),
    )


def _mend(changes: Mapping[str, str]) -> str:
    """Returns what to do about changes: a secret, or a program's output, is not to be committed."""
    untracked = [path for path, kind in changes.items() if kind == "untracked"]
    secret = [path for path in untracked if secret_kind(path)]
    generated = [path for path in untracked if path not in secret and is_generated(path)]
    steps = []
    if secret:
        steps.append(f"do not commit {_named(secret)}: move secrets out of the project")
    if generated:
        steps.append(
            f"add {_named(generated)} to .gitignore, or to `source: exclude` in config.yaml"
        )
    if len(secret) + len(generated) < len(changes):
        others = "the others" if steps else "them"
        steps.append(f"commit {others}, or give --allow-dirty to pack the working tree as it is")
    return "; ".join(steps)


def _named(paths: Sequence[str]) -> str:
    names = sorted(path.rpartition("/")[2] for path in paths)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _not_packed(kind: str, why: str, path: str, root: Path, *, decides: bool) -> SourceError:
    name = path.rpartition("/")[2]  # as a pattern it holds from whichever directory
    or_exclude = "" if decides else f", or add {name} to `source: exclude` in config.yaml"
    return SourceError(
        f"A {kind} cannot {'decide what is' if decides else 'be'} packed: {why}.",
        where=f"{path!a} in {root}",
        wanted="a regular file",
        next_step=f"replace it by the file itself{or_exclude}",
    )
