"""What commits say: their ids, their descent, their files. Nothing is checked out or converted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from adroit_publish.errors import SourceError
from adroit_publish.git.repository import failure, read_git, run_git

_PLAIN_MODES = ("100644", "100755")


@dataclass(frozen=True)
class CommittedFile:
    """A file as a commit has it: its mode, its blob's id, its path from the tree's top."""

    mode: str
    blob: str
    path: str


def head_commit(root: Path) -> str:
    """Returns the commit that is checked out; raises SourceError where there is none."""
    commit = _commit_named(root, "HEAD")
    if commit is None:
        raise SourceError(
            "The branch has no commit yet.",
            where=root,
            next_step='git add -A && git commit -m "..."',
        )
    return commit


def current_branch(root: Path) -> str | None:
    """Returns the branch that is checked out; None where HEAD is detached."""
    return read_git(root, "branch", "--show-current").decode().strip() or None


def holds(root: Path, tip: str, commit: str) -> bool:
    """Returns whether ``commit`` is ``tip`` or one of its ancestors, as far as the clone goes."""
    return read_git(root, "rev-list", "-1", commit, f"^{tip}") == b""


def changed_files(root: Path, start: str, end: str) -> list[str]:
    """Returns the paths, from the top of the working tree, in which two commits differ."""
    output = read_git(root, "diff-tree", "-r", "-z", "--name-only", "--no-renames", start, end)
    return [path.decode(errors="replace") for path in output.split(b"\0") if path]


def committed_file(root: Path, commit: str, name: str) -> CommittedFile:
    """Returns a file of a commit; raises SourceError where it has none, or a symbolic link."""
    row = read_git(root, "ls-tree", "-z", "--full-name", commit, "--", name).rstrip(b"\0").decode()
    facts, _, path = row.partition("\t")
    mode, _, blob = [*facts.split(), "", "", ""][:3]
    if mode not in _PLAIN_MODES:
        raise SourceError(
            f"The commit has no file {name}.",
            where=f"{commit[:12]} in {root}",
            got=f"an entry of mode {mode}" if mode else "nothing",
            next_step=f'git add {name} && git commit -m "..." (a file of its own, no link)',
        )
    return CommittedFile(mode, blob, path)


def blobs_of(root: Path, commit: str) -> dict[str, str]:
    """Returns every file of a commit by its path relative to ``root``, with the id of its blob."""
    output = read_git(root, "ls-tree", "-r", "-z", commit).decode(errors="surrogateescape")
    rows = (row.partition("\t") for row in output.split("\0") if row)
    files = ((facts.split(), path) for facts, _, path in rows)
    return {path: blob for (_, kind, blob), path in files if kind == "blob"}


def read_blob(root: Path, blob: str) -> bytes:
    """Returns the bytes of a blob."""
    return read_git(root, "cat-file", "blob", blob)


def file_at(root: Path, ref: str, path: str) -> bytes:
    """Returns a file's bytes as a branch, tag or commit has them, whatever is checked out.

    Raises:
        SourceError: git knows no such commit, or the commit has no such file.
    """
    commit = None if ref.startswith("-") else _commit_named(root, ref)
    if commit is None:
        raise SourceError(
            "git knows no such commit.",
            where=root,
            got=ref,
            wanted="a branch, tag or commit",
            next_step="git fetch --tags (in a shallow clone: git fetch --unshallow), "
            "or name another",
        )
    try:
        return read_blob(root, f"{commit}:./{path}")
    except SourceError as error:
        raise SourceError(
            f"{path} is not in that commit.",
            where=f"{ref} ({commit[:12]})",
            got=error.got,
            next_step=f"git log --oneline -- {path}",
        ) from error


def _commit_named(root: Path, ref: str) -> str | None:
    answer = run_git(root, "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")
    if answer.code != 0 and answer.complaint:
        raise failure(root, "rev-parse", answer.complaint)
    return answer.output.decode().strip() or None
