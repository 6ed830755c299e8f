"""One file as another commit has it, whatever is checked out."""

from __future__ import annotations

from pathlib import Path

from adroit_publish.errors import SourceError
from adroit_publish.git.process import run_git


def file_at(root: Path, ref: str, path: str) -> bytes:
    """Returns a file's bytes as a commit has them; nothing is checked out or converted.

    Args:
        root: The project repository's root; the git work tree's top, or a directory below it.
        ref: A branch, tag or commit, as git understands it.
        path: Relative to ``root``, in POSIX form.

    Raises:
        SourceError: git knows no such commit, or the commit has no such file.
    """
    commit = _commit(root, ref)
    try:
        return run_git(root, "cat-file", "blob", f"{commit}:./{path}")
    except SourceError as error:
        raise SourceError(
            f"{path} is not in that commit.",
            where=f"{ref} ({commit[:12]})",
            got=error.got,
            next_step=f"git log --oneline -- {path}",
        ) from error


def _commit(root: Path, ref: str) -> str:
    said = None
    try:
        if not ref.startswith("-"):  # it would be an option
            found = run_git(root, "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")
            return found.decode().strip()
    except SourceError as error:
        if error.got:
            raise
        said = error
    raise SourceError(
        "git knows no such commit.",
        where=root,
        got=ref,
        wanted="a branch, tag or commit",
        next_step="git fetch --tags (in a shallow clone: git fetch --unshallow), or name another",
    ) from said
