"""What ``doctor`` finds on this machine and in the checkout: packages, files, git.

A check returns what it found, or raises the PublishError that a publish would end with, with all
problems of its kind together; it writes nothing. The places of a target are in ``doctor.places``.
"""

from __future__ import annotations

import platform
import sys
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from adroit_publish.checkout import Checkout
from adroit_publish.config.flavors import Flavor
from adroit_publish.config.targets import Target
from adroit_publish.errors import EXIT_OK, ConfigError, PublishError
from adroit_publish.git.history import current_branch, head_commit
from adroit_publish.git.remote import remote_branch
from adroit_publish.git.repository import read_git

State = Literal["ok", "warning", "problem", "not needed"]

PROJECT = Path(__file__).parents[2] / "pyproject.toml"
_SHOWN_PACKAGES = ("metaflow", "mlflow", "boto3")


@dataclass(frozen=True)
class Check:
    """What was found where one thing was looked at.

    Attributes:
        state: ``ok``, ``warning`` (some publish works all the same), ``problem`` (none does) or
            ``not needed``.
        found: What is there; of several lines where there is much to say.
        exit_code: What a publish would end with for this reason; 0 unless it is a problem.
    """

    name: str
    state: State
    found: str
    next_step: str | None = None
    exit_code: int = EXIT_OK


def failed(name: str, error: PublishError, state: State = "problem") -> Check:
    """Returns the row of an error: its facts, its next step, its exit code."""
    exit_code = error.exit_code if state == "problem" else EXIT_OK
    return Check(name, state, _facts(error), error.next_step, exit_code)


def packages(name: str, project: Path = PROJECT) -> Check:
    """Holds Python and the packages that are installed against what the project asks for.

    Args:
        project: Its pyproject.toml; where there is none, whatever is installed will do.
    """
    asked = tomllib.loads(project.read_text())["project"] if project.is_file() else {}
    python = platform.python_version()
    wrong = []
    if not SpecifierSet(asked.get("requires-python", "")).contains(python, prereleases=True):
        wrong.append(f"python {python}, and {asked['requires-python']} is needed")
    for requirement in map(Requirement, asked.get("dependencies", _SHOWN_PACKAGES)):
        got = _version(requirement.name)
        if got is None or not requirement.specifier.contains(got, prereleases=True):
            wrong.append(f"{requirement.name} {got or 'is missing'}, and {requirement} is needed")
    if wrong:
        raise ConfigError(
            "\n".join(wrong),
            where=sys.prefix,
            next_step=f"{sys.executable} -m pip install -r requirements.lock",
        )
    shown = (f"{package} {_version(package)}" for package in _SHOWN_PACKAGES)
    return Check(name, "ok", ", ".join([f"python {python}", *shown]))


def flavors_file(name: str, checkout: Checkout) -> Check:
    """Reads flavors.yaml."""
    return Check(name, "ok", f"{_count(checkout.flavors, 'flavor')} in {checkout.root}")


def conda_envs_file(name: str, checkout: Checkout, flavors: Mapping[str, Flavor]) -> Check:
    """Reads conda_envs.yaml, and finds each flavor's env and its environment.yml there."""
    envs = checkout.conda_envs
    _check_each(
        flavors.values(), lambda flavor: checkout.environment_digest(checkout.conda_env(flavor))
    )
    return Check(name, "ok", _count(envs, "conda env"))


def config_files(name: str, checkout: Checkout, flavors: Mapping[str, Flavor]) -> Check:
    """Reads every flavor's config.yaml."""
    _check_each(flavors.values(), checkout.project)
    return Check(name, "ok", _count({flavor.config for flavor in flavors.values()}, "file"))


def targets_file(name: str, checkout: Checkout) -> Check:
    """Reads adroit.toml."""
    return Check(name, "ok", f"the targets {', '.join(sorted(checkout.targets.by_name))}")


def git_checkout(name: str, root: Path) -> Check:
    """Looks for a commit that is checked out, of a clone that is whole."""
    head, branch = head_commit(root), current_branch(root)
    head_line = f"{branch or 'a detached HEAD'} at {head[:12]}"
    if read_git(root, "rev-parse", "--is-shallow-repository").strip() == b"true":
        head_line += ", in a shallow clone: it cannot tell which branch holds a commit"
        return Check(name, "warning", head_line, "git fetch --unshallow")
    return Check(name, "ok", head_line)


def git_upstream(name: str, root: Path, target: Target | None) -> Check:
    """Looks for the branch that ``--push`` would push to."""
    if target and target.on_this_machine:
        reason = f"the versions of target {target.name} stay here, so --push is refused"
        return Check(name, "not needed", reason)
    return Check(name, "ok", str(remote_branch(root, None)))


def _check_each(flavors: Iterable[Flavor], look: Callable[[Flavor], object]) -> None:
    wrong: dict[str, ConfigError] = {}  # by its facts: flavors share their files
    for flavor in flavors:
        try:
            look(flavor)
        except ConfigError as error:
            wrong.setdefault(_facts(error), error)
    if wrong:
        steps = {error.next_step: None for error in wrong.values() if error.next_step}
        raise ConfigError("\n".join(wrong), next_step="\n".join(steps) or None)


def _facts(error: PublishError) -> str:
    facts = {"where": error.where, "got": error.got, "wanted": error.wanted}
    lines = [f"{key}: {fact}" for key, fact in facts.items() if fact not in (None, "")]
    return "\n".join([error.what, *lines])


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _count(things: Iterable[object], one: str) -> str:
    number = len(list(things))
    return f"{number} {one}" + ("" if number == 1 else "s")
