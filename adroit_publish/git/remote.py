"""A branch of a remote: what it is at, and a push that never forces.

A push succeeds, finds that the branch has moved, is refused by the remote, or ends without an
answer. Which of them is read from git's own format for programs and from what the protocol defines
(``ng <ref> <reason>``), never from prose.

Source: git-push, "--porcelain"; gitprotocol-pack, "Report Status".
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from adroit_publish.errors import ConfigError, RefusedError, SourceError, StoreError
from adroit_publish.git.history import current_branch
from adroit_publish.git.repository import RemoteAnswer, ask_remote, read_git

# Reasons with which a server says that somebody else was faster.
_FASTER = ("failed to update ref", "incorrect old value", "cannot lock ref", "fetch first")


@dataclass(frozen=True)
class RemoteBranch:
    """A branch on a remote, by its name there, without ``refs/heads/``.

    ``checked_out`` says whether it is the upstream of the branch that is checked out.
    """

    root: Path
    remote: str
    branch: str
    checked_out: bool

    def __str__(self) -> str:
        return f"{self.remote}/{self.branch}"

    def tip(self) -> str:
        """Returns the commit that the branch is at now; the clone has it afterwards.

        Raises:
            SourceError: The remote has no such branch.
            StoreError: The remote was not reached, or did not let us in.
        """
        wanted = f"refs/heads/{self.branch}"
        answer = self._ask("ls-remote", "--quiet", self.remote, wanted)
        tips = [oid for oid, ref in answer.rows if ref == wanted]
        if not tips:
            raise SourceError(
                "The remote has no such branch.",
                where=self,
                next_step=f"git push -u {self.remote} {self.branch}, or name another by --branch",
            )
        if not read_git(self.root, "rev-list", "--no-walk", "--ignore-missing", tips[0]).strip():
            options = ("--quiet", "--no-tags", "--recurse-submodules=no")
            self._ask("fetch", *options, self.remote, wanted)
        return tips[0]

    def push(self, commit: str, *, dry_run: bool = False) -> bool:
        """Pushes a commit, never by force; returns False where the branch has moved meanwhile.

        A dry run shows that the remote takes pushes from us, with the credentials that are there.
        It asks no hook, nor a protection of the branch.

        Raises:
            RefusedError: The remote refuses it: a protected branch, or a hook.
            StoreError: No answer came, or a hook of this machine failed; it may be there or not.
        """
        answer = ask_remote(
            self.root,
            *("push", "--porcelain", "--no-follow-tags", "--recurse-submodules=no"),
            *(["--dry-run", "--no-verify"] if dry_run else []),
            *(self.remote, f"{commit}:refs/heads/{self.branch}"),
        )
        if answer.code == 0:
            return True
        verdicts = [row[2] for row in answer.rows if len(row) == 3 and row[0] == "!"]
        verdict = verdicts[0] if verdicts else ""
        if verdict.startswith("[rejected]") or any(f"({reason}" in verdict for reason in _FASTER):
            return False
        if verdict.startswith("[remote rejected]"):
            raise RefusedError(
                "The remote refuses the push.",
                where=self,
                got="\n".join([verdict, *_of_the_remote(answer.complaint)]),
                next_step=(
                    "nothing is lost: the version is published and stands in flavors.yaml of the "
                    "working tree; commit it to a branch that takes pushes, open a pull request"
                ),
            )
        raise self._failure("push", answer)

    def _ask(self, command: str, *arguments: str) -> RemoteAnswer:
        answer = ask_remote(self.root, command, *arguments)
        if answer.code != 0:
            raise self._failure(command, answer)
        return answer

    def _failure(self, command: str, answer: RemoteAnswer) -> StoreError:
        return StoreError(
            f"git {command} failed.",
            transient=True,
            where=self,
            got=answer.complaint,
            next_step=f"see that `git {command} {self.remote}` works here without being asked "
            "for a password, then run the same command again",
        )


def remote_branch(root: Path, branch: str | None) -> RemoteBranch:
    """Returns the branch that a push goes to; without a name, the upstream of what is checked out.

    Raises:
        ConfigError: That is no name of a branch.
        SourceError: Nothing says where to push: a detached HEAD, no remote, no upstream.
    """
    here = current_branch(root)
    remote, upstream = _upstream(root, here) if here else ("", "")
    if branch is None:
        if not (remote and upstream):
            raise _nowhere(root, here)
        return RemoteBranch(root, remote, upstream, checked_out=True)
    try:
        read_git(root, "check-ref-format", f"refs/heads/{branch}")
    except SourceError as error:
        raise ConfigError("That is no name of a branch.", where="--branch", got=branch) from error
    remote = remote or _only_remote(root)
    return RemoteBranch(root, remote, branch, checked_out=branch == (upstream or here))


def followed_branch(root: Path) -> RemoteBranch | None:
    """Returns the branch of a remote that the one checked out here follows; None: it follows none.

    A directory that is in no clone follows none.
    """
    try:
        here = current_branch(root)
    except SourceError:
        return None
    remote, upstream = _upstream(root, here) if here else ("", "")
    return RemoteBranch(root, remote, upstream, checked_out=True) if remote and upstream else None


def _upstream(root: Path, branch: str) -> tuple[str, str]:
    """Returns the remote and the branch there that a local branch follows; empty: none."""
    shown = read_git(
        root,
        *("for-each-ref", "--format=%(upstream:remotename)%09%(upstream:remoteref)"),
        f"refs/heads/{branch}",
    )
    remote, _, ref = shown.decode().strip("\n").partition("\t")
    if not remote or remote == "." or not ref.startswith("refs/heads/"):
        return "", ""
    return remote, ref.removeprefix("refs/heads/")


def _only_remote(root: Path) -> str:
    remotes = read_git(root, "remote").decode().split()
    if "origin" in remotes or len(remotes) == 1:
        return "origin" if "origin" in remotes else remotes[0]
    raise SourceError(
        "There is no remote to push to.",
        where=root,
        got=", ".join(remotes) or "no remote",
        wanted="one remote, or one of the name origin",
        next_step="git remote add origin URL, or leave --push out",
    )


def _nowhere(root: Path, branch: str | None) -> SourceError:
    if branch is None:
        return SourceError(
            "HEAD is detached: nothing says which branch to push to.",
            where=root,
            next_step="name it by --branch, or check out a branch",
        )
    remote = _only_remote(root)
    return SourceError(
        f"Branch {branch} follows no branch of a remote.",
        where=root,
        next_step=f"git push -u {remote} {branch}, or name another by --branch",
    )


def _of_the_remote(complaint: str) -> list[str]:
    lines = (line.removeprefix("remote:").strip() for line in complaint.splitlines())
    return [line for line in lines if line and not line.startswith("error: failed to push some")]
