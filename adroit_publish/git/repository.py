"""The one door to git: its binary, run by GitPython for the clone that is named and for no other.

Every command gets the clone by ``-C`` (GitPython's own way runs it in the process's directory where
the given one is gone). No ``GIT_*`` variable reaches it but those that say who commits, by which
transport, with which credentials and configuration: a hook's ``GIT_DIR`` would name another
repository. ``env -u`` takes the others out, because GitPython passes on whatever the process has,
and setting them to something else would switch git's ownership check off. Replacement objects are
ignored, no optional lock is taken, and nobody is asked for a password.

Commands that stay on this machine run no hook, no monitor and no filter that the clone's own
configuration names: a checkout that came from elsewhere must not run commands here. Those that go
to a remote run the user's ``pre-push`` hook, without a terminal to ask at and with a bound in
seconds.

What GitPython does by itself (objects, references, the index) is left out: it knows SHA-1 alone.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from adroit_publish.edge.text import printable
from adroit_publish.edge.urls import without_credentials
from adroit_publish.errors import SourceError, StoreError

if TYPE_CHECKING:
    from git import Git

REMOTE_TIMEOUT_S = 120.0
"""How long one exchange with a remote may take."""
_SHOWN_CHARACTERS = 2000
_SETTINGS = (
    *("-c", "core.fsmonitor=false", "-c", "core.quotePath=false"),
    *("--no-replace-objects", "--literal-pathspecs"),
)
_NO_HOOKS = ("-c", "core.hooksPath=/dev/null")
_VARIABLES = {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
OFFLINE = {"GIT_NO_LAZY_FETCH": "1", "GIT_ALLOW_PROTOCOL": ""}
"""Variables with which a partial clone does not fetch what it lacks."""
_CONVERTING = {"hash-object", "read-tree", "reset", "status", "update-index"}
"""Commands that may run content filters."""
_KEPT_VARIABLES = (
    *("GIT_ASKPASS", "GIT_AUTHOR_", "GIT_COMMITTER_", "GIT_CONFIG_"),
    *("GIT_HTTP_", "GIT_PROXY_", "GIT_SSH", "GIT_SSL_"),
)


@dataclass(frozen=True)
class RemoteAnswer:
    """What git ended with; its ``complaint`` is printable and without credentials.

    The exit code is None where git was killed because its time was over.
    """

    code: int | None
    output: bytes
    complaint: str

    @property
    def rows(self) -> list[list[str]]:
        """The lines of its output, split at tabs."""
        return [row.split("\t") for row in self.output.decode(errors="replace").splitlines()]


def start_git(
    directory: Path,
    *arguments: str,
    variables: Mapping[str, str] | None = None,
    remote: bool = False,
) -> Git.AutoInterrupt:
    """Starts git in a directory of a clone, with pipes; whoever lets go of the process ends it.

    Args:
        variables: Further variables of its environment: an index file of our own, say.
        remote: Whether it goes to a remote.

    Raises:
        SourceError: git cannot be run.
    """
    variables = _VARIABLES | dict(variables or {})
    foreign = [
        name
        for name in os.environ
        if name.startswith("GIT_") and not name.startswith(_KEPT_VARIABLES)
    ]
    unset = [f"--unset={name}" for name in foreign if name not in variables]
    program = ["env", *unset, "git"] if unset else ["git"]
    settings = _SETTINGS if remote else (*_SETTINGS, *_NO_HOOKS)
    try:
        from git import Git
        from git.exc import GitCommandNotFound

        return Git().execute(
            [*program, "-C", str(directory), *settings, *arguments],
            istream=subprocess.PIPE,
            as_process=True,
            env=variables,
            start_new_session=remote,  # ssh finds no terminal to ask at; all of it can be killed
        )
    except ImportError as error:  # which is how GitPython says that it found no git
        reason = str(error).strip().partition("\n")[0]
    except (GitCommandNotFound, OSError) as error:
        reason = str(error)
    raise SourceError("git cannot be run.", where=directory, got=reason, next_step="install git")


def run_git(
    directory: Path,
    *arguments: str,
    given: bytes = b"",
    variables: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
) -> RemoteAnswer:
    """Runs git to its end, with ``given`` as its standard input; raises as ``start_git`` does.

    ``timeout_s`` is how long it may take, where it goes to a remote; None: it stays here.
    """
    remote = timeout_s is not None
    if arguments[0] in _CONVERTING:
        variables = {**inert_variables(directory), **(variables or {})}
    process = start_git(directory, *arguments, variables=variables, remote=remote)
    try:
        output, complaint = process.communicate(given, timeout=timeout_s)
    except BaseException as error:
        if remote:
            os.killpg(process.pid, signal.SIGKILL)
        if isinstance(error, subprocess.TimeoutExpired):
            return RemoteAnswer(None, b"", f"no end after {timeout_s:.0f} s")
        raise
    return RemoteAnswer(process.returncode, output, _shown(complaint))


def read_git(directory: Path, *arguments: str, variables: Mapping[str, str] | None = None) -> bytes:
    """Returns what a command that only reads printed; raises SourceError with what it said."""
    answer = run_git(directory, *arguments, variables=variables)
    if answer.code != 0:
        raise failure(directory, arguments[0], answer.complaint)
    return answer.output


def write_git(
    directory: Path,
    *arguments: str,
    given: bytes = b"",
    variables: Mapping[str, str] | None = None,
) -> str:
    """Returns what a command that writes printed, stripped; raises StoreError where it failed."""
    answer = run_git(directory, *arguments, given=given, variables=variables)
    if answer.code != 0:
        command = arguments[2 * arguments.count("-c")]
        raise StoreError(
            f"git {command} failed.",
            where=directory,
            got=answer.complaint,
            next_step="run `git status` there, mend what it shows, then run the same command again",
        )
    return answer.output.decode(errors="replace").strip()


def ask_remote(directory: Path, *arguments: str) -> RemoteAnswer:
    """Runs a command that talks to a remote, for ``REMOTE_TIMEOUT_S`` at most."""
    return run_git(directory, *arguments, timeout_s=REMOTE_TIMEOUT_S)


def failure(directory: Path, command: str, complaint: str) -> SourceError:
    """Returns the error for a command that only reads, and failed."""
    next_step = "run `git status` there to see what is wrong"
    if not directory.is_dir():
        return SourceError(
            "The directory does not exist.",
            where=directory,
            next_step="run this from the repository's root",
        )
    if "not a git repository" in complaint:
        next_step = "run this in a clone of the project's repository"
    elif "dubious ownership" in complaint:
        next_step = f"git config --global --add safe.directory {directory}"
    elif "promisor remote" in complaint:
        next_step = "git sparse-checkout add DIRECTORY, or clone without --filter"
    return SourceError(
        f"git {command} failed.", where=directory, got=complaint, next_step=next_step
    )


def inert_variables(directory: Path) -> dict[str, str]:
    """Returns the variables with which git runs no command that a clone's own configuration names.

    Those are its file system monitor and its content filters; hooks are another matter. Filters of
    the user's configuration (Git LFS, as a rule) stay on.
    """
    listing = ("config", "-z", "--show-scope", "--name-only", "--get-regexp", r"^filter\..*\.")
    fields = os.fsdecode(run_git(directory, *listing).output).split("\0")
    keys = zip(fields[::2], fields[1::2], strict=False)
    names = {key[7:].rpartition(".")[0] for scope, key in keys if scope in ("local", "worktree")}
    settings = {"core.fsmonitor": "false"} | {
        f"filter.{name}.{part}": ""
        for name in sorted(names)
        for part in ("clean", "smudge", "process", "required")
    }
    count = os.environ.get("GIT_CONFIG_COUNT", "")
    first = int(count) if count.isdecimal() else 0
    variables = {"GIT_CONFIG_COUNT": str(first + len(settings))}
    for number, (key, value) in enumerate(settings.items(), first):
        variables |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return variables


def _shown(complaint: bytes) -> str:
    """Returns what git said, fit for a terminal: a remote's hook may print anything."""
    text = without_credentials(complaint.decode(errors="replace")).replace("\r", "\n")
    lines = [line.rstrip() for line in printable(text, keep_lines=True).split("\n")]
    return "\n".join(line for line in lines if line)[-_SHOWN_CHARACTERS:]
