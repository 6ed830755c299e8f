"""The edge to git where it writes: its binary, in the caller's name, never waiting for a person.

As in ``git_process``, no ``GIT_*`` variable reaches it that would name another repository or
another index; those that say who commits, by which transport and with which credentials do,
because CI jobs set them. Commands that stay on this machine run no hook. Those that go to a remote
run the user's ``pre-push`` hook, without a terminal to ask at and with a bound in seconds.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from adroit_publish.edge.text import printable
from adroit_publish.edge.urls import without_credentials
from adroit_publish.errors import StoreError
from adroit_publish.git.process import git_command, git_environment, git_missing

_KEPT = (
    *("GIT_ASKPASS", "GIT_AUTHOR_", "GIT_COMMITTER_", "GIT_CONFIG_"),
    *("GIT_HTTP_", "GIT_PROXY_", "GIT_SSH", "GIT_SSL_"),
)
_SAID_CHARACTERS = 2000
REMOTE_TIMEOUT_S = 120.0
"""How long one exchange with a remote may take."""


@dataclass(frozen=True)
class Answer:
    """What git ended with.

    Attributes:
        code: Its exit code; None where it was killed because its time was over.
        output: Its standard output.
        said: Its standard error, printable and without credentials.
    """

    code: int | None
    output: str
    said: str


def write_git(
    directory: Path,
    *arguments: str,
    given: bytes = b"",
    environ: Mapping[str, str] | None = None,
) -> str:
    """Runs a git command that stays on this machine and returns what it printed.

    Args:
        directory: In a working tree.
        arguments: The command and its arguments.
        given: Its standard input.
        environ: Further variables, an index file of our own, say.

    Raises:
        SourceError: git is not installed.
        StoreError: It failed; says what it said.
    """
    environment = _environment() | dict(environ or {})
    try:
        done = subprocess.run(
            git_command(arguments),
            cwd=directory,
            env=environment,
            input=given,
            capture_output=True,
            check=False,
        )
    except OSError as error:
        raise git_missing(directory, error) from error
    if done.returncode != 0:
        raise StoreError(
            f"git {_command(arguments)} failed.",
            where=directory,
            got=_shown(done.stderr),
            next_step="run `git status` there, mend what it shows, then run the same command again",
        )
    return done.stdout.decode(errors="replace").strip()


def ask_remote(directory: Path, *arguments: str) -> Answer:
    """Runs a git command that talks to a remote, for ``REMOTE_TIMEOUT_S`` at most.

    Raises:
        SourceError: git is not installed.
    """
    command = ["git", "-c", "core.quotePath=false", "--no-replace-objects", *arguments]
    try:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # ssh finds no terminal to ask at, and all of it can be killed
        )
    except OSError as error:
        raise git_missing(directory, error) from error
    with process:
        try:
            output, said = process.communicate(timeout=REMOTE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return Answer(None, "", f"no end after {REMOTE_TIMEOUT_S:.0f} s")
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return Answer(process.returncode, output.decode(errors="replace"), _shown(said))


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name.startswith(_KEPT)}
    return git_environment() | kept


def _command(arguments: tuple[str, ...]) -> str:
    skipped = 0
    while arguments[skipped] == "-c":
        skipped += 2
    return arguments[skipped]


def _shown(stderr: bytes) -> str:
    """Returns what git said, fit for a terminal: a remote's hook may print anything."""
    text = without_credentials(stderr.decode(errors="replace")).replace("\r", "\n")
    lines = [line.rstrip() for line in printable(text, keep_lines=True).split("\n")]
    return "\n".join(line for line in lines if line)[-_SAID_CHARACTERS:]
