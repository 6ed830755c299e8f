"""The edge to git: its binary, run so that it only reads and only the repository decides.

No ``GIT_*`` variable of the caller reaches it (a hook's ``GIT_DIR`` would name another repository),
no optional lock is taken, no file system monitor is started, replacement objects are ignored. The
user's configuration stays in force where it says how the working tree was checked out
(``core.autocrlf``, ``safe.directory``, ignore files); nothing else of it changes an answer.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from adroit_publish.errors import SourceError

_SETTINGS = (
    *("-c", "core.fsmonitor=false"),
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "core.quotePath=false"),
    "--no-replace-objects",
    "--literal-pathspecs",
)


def git_command(arguments: Sequence[str]) -> list[str]:
    """Returns the command line of a git that only reads."""
    return ["git", *_SETTINGS, *arguments]


def git_environment() -> dict[str, str]:
    """Returns this process's environment without what would change git's answers."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    return kept | {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}


def run_git(directory: Path, *arguments: str) -> bytes:
    """Runs git in a directory and returns what it printed.

    Raises:
        SourceError: git is not installed, or it failed; says what it said.
    """
    try:
        done = subprocess.run(
            git_command(arguments),
            cwd=directory,
            env=git_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
    except OSError as error:
        raise git_missing(directory, error) from error
    if done.returncode != 0:
        raise git_failed(directory, arguments[0], done.stderr)
    return done.stdout


def git_missing(directory: Path, error: OSError) -> SourceError:
    """Returns the error for a git that cannot be started in a directory."""
    there = directory.is_dir()
    return SourceError(
        "git cannot be run." if there else "The directory does not exist.",
        where=directory,
        got=error.strerror,
        next_step="install git" if there else "run this from the repository's root",
    )


def git_failed(directory: Path, command: str, stderr: bytes) -> SourceError:
    """Returns the error for a git command that ended with a failure."""
    said = stderr.decode(errors="replace").strip()
    next_step = "run `git status` there to see what is wrong"
    if "not a git repository" in said:
        next_step = "run this in a clone of the project's repository"
    elif "dubious ownership" in said:
        next_step = f"git config --global --add safe.directory {directory}"
    return SourceError(
        f"git {command} failed.", where=directory, got=said[:500], next_step=next_step
    )
