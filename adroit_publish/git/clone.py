"""A clone of a repository, where a step runs on a machine that has no checkout."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from adroit_publish.errors import ConfigError, StoreError
from adroit_publish.git.repository import ask_remote, failure, run_git


def clone(url: str, branch: str | None, directory: Path, commit: str | None = None) -> None:
    """Clones one branch (None: the remote's default), and checks out one of its commits if told to.

    Raises:
        ConfigError: The URL holds a password, or is an option.
        SourceError: The branch does not have the commit.
        StoreError: The remote was not reached, or did not let us in.
    """
    check_repository(url)
    chosen = ("--branch", branch) if branch else ()
    arguments = ("clone", "--quiet", "--single-branch", "--no-tags", *chosen)
    answer = ask_remote(directory.parent, *arguments, "--", url, str(directory))
    if answer.code != 0:
        raise StoreError(
            "git clone failed.",
            transient=True,
            where=url,
            got=answer.complaint,
            wanted=f"branch {branch}" if branch else None,
            next_step="see that `git ls-remote` of it works here and asks for no password",
        )
    if commit is not None:
        answer = run_git(directory, "checkout", "--quiet", "--detach", commit)
        if answer.code != 0:
            raise failure(directory, "checkout", answer.complaint)


def check_repository(url: str) -> None:
    """Raises ConfigError for an address that holds a secret, or that is none of a repository.

    Whatever stands in the address can be read in the process list and in Metaflow's records, and
    what stands before the host of a web address is a token as often as a user's name.
    """
    is_path = url.startswith(("/", "./", "../"))
    is_address = re.fullmatch(r"(https|http|ssh|file)://\S+|[\w.-]+@[\w.-]+:\S+", url)
    try:
        parts = urlsplit(url)
        web = parts.scheme in ("https", "http")
        secret = parts.password is not None or (web and parts.username is not None)
    except ValueError:
        is_address, secret = None, False
    if secret or not (is_path or is_address):
        raise ConfigError(
            "--repo takes a repository's address, without a name or a password in it.",
            got="an address that holds one" if secret else url,
            wanted="https://HOST/PATH, ssh://git@HOST/PATH, git@HOST:PATH or /PATH",
            next_step="give git the password by a credential helper, or GIT_ASKPASS",
        )
