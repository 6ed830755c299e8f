"""A bare repository with a flavors.yaml, and clones of it that people and jobs work in."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from adroit_publish.config.flavors import parse_flavors
from adroit_publish.config.flavors_edit import set_version
from adroit_publish.git.history import head_commit
from adroit_publish.writeback.commit import commit_edits
from adroit_publish.writeback.commit_message import TRAILER, CommitMessage, VersionChange
from adroit_publish.writeback.committed_flavors import Edit, bytes_at
from adroit_publish.writeback.flavors_file import try_edits, written
from adroit_publish.writeback.push import Committed
from tests.support.checkouts import commit, git


def run_id(number: int) -> str:
    return f"{number:032x}"


def version(number: int) -> str:
    return f"v{number:08x}-{number:012x}"


def flavors_text(names: list[str]) -> str:
    entries = [
        f"{name}: {{config: projects/m/config.yaml, conda_env: s, version: '{run_id(n)}'}} # {n}"
        for n, name in enumerate(names, 1)
    ]
    return "# the head\n" + "\n".join(entries) + "\n"


def make_bare(directory: Path, names: list[str]) -> Path:
    """Makes ``directory/bare.git`` with one commit on main that refuses every forced push."""
    first = directory / "first"
    first.mkdir()
    (first / "flavors.yaml").write_text(flavors_text(names))
    (first / "other.txt").write_text("other\n")
    git(first, "init", "-q", "-b", "main")
    commit(first, "first")
    bare = directory / "bare.git"
    git(directory, "clone", "-q", "--bare", "first", "bare.git")
    git(bare, "config", "receive.denyNonFastForwards", "true")
    git(bare, "config", "receive.denyDeletes", "true")
    return bare


def clone(bare: Path, name: str, *options: str) -> Path:
    """Clones the bare repository beside it, over git's own protocol."""
    git(bare.parent, "clone", "-q", *options, f"file://{bare}", name)
    return bare.parent / name


def hook(repository: Path, name: str, script: str) -> None:
    """Puts a hook into a repository (the git directory)."""
    path = repository / "hooks" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def versions_at(repository: Path, revision: str = "main") -> dict[str, str | None]:
    text = git(repository, "show", f"{revision}:flavors.yaml") + "\n"
    return {name: flavor.version for name, flavor in parse_flavors(text.encode()).items()}


def write_versions(path: Path, versions: Mapping[str, tuple[str | None, str]]) -> tuple[str, ...]:
    """Sets versions (before, after) of flavors in a flavors.yaml, as releases set them."""
    edits = {
        flavor: partial(
            set_version, flavor=flavor, version=version, expected=expected, file=path.name
        )
        for flavor, (expected, version) in versions.items()
    }
    return written(*try_edits(path, edits))


def version_edits(root: Path, versions: Mapping[str, str]) -> dict[str, Edit]:
    """Returns edits that expect what the commit at HEAD says, as those of releases do."""
    committed = parse_flavors(bytes_at(root, head_commit(root)))
    return {
        flavor: partial(
            set_version,
            flavor=flavor,
            version=version,
            expected=committed[flavor].version if flavor in committed else None,
        )
        for flavor, version in versions.items()
    }


def is_own_commit(root: Path, revision: str) -> bool:
    """Returns whether a commit has the publisher's trailer and changes flavors.yaml alone."""
    trailer = git(root, "log", "-1", f"--format=%(trailers:key={TRAILER},valueonly)", revision)
    changed = git(root, "diff", "--name-only", f"{revision}^", revision).splitlines()
    return bool(trailer) and [Path(path).name for path in changed] == ["flavors.yaml"]


def write_back(root: Path, versions: dict[str, str]) -> None:
    """Does what a publish has done before anything is committed."""
    flavors = parse_flavors((root / "flavors.yaml").read_bytes())
    write_versions(
        root / "flavors.yaml", {name: (flavors[name].version, v) for name, v in versions.items()}
    )


def message(versions: dict[str, str]) -> CommitMessage:
    make = partial(VersionChange, old=None)
    return CommitMessage(tuple(make(name, new=v) for name, v in versions.items()), "eng")


def publish(
    root: Path, versions: dict[str, str], *, push: bool, branch: str | None = None
) -> Committed:
    """Writes versions into a clone's flavors.yaml and commits them."""
    write_back(root, versions)
    edits = version_edits(root, versions)
    return commit_edits(root, edits, message(versions), push=push, branch=branch)
