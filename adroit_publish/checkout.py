"""The checkout a command works in: its files, read once and checked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from adroit_publish.bundle.digest import Digest
from adroit_publish.config.conda_envs import CondaEnv, find_conda_env, parse_conda_envs
from adroit_publish.config.flavors import Flavor, parse_flavors
from adroit_publish.config.project import Project, parse_project
from adroit_publish.config.targets import Target, Targets, choose_target, parse_targets
from adroit_publish.config.yaml.tree import MAX_BYTES
from adroit_publish.errors import ConfigError


@dataclass(frozen=True)
class Workspace:
    """What the checkout's files say.

    Attributes:
        root: The repository's root: the directory of flavors.yaml.
        flavors: Every flavor by name, in the file's order.
        targets: Every target.
    """

    root: Path
    flavors: Mapping[str, Flavor]
    targets: Targets

    @property
    def flavors_file(self) -> Path:
        """Where versions are written back."""
        return self.root / "flavors.yaml"

    def target(self, flag: str | None, environ: Mapping[str, str]) -> Target:
        """Returns the target that is meant; raises ConfigError where none or a wrong one is."""
        return choose_target(self.targets, flag=flag, environ=environ)

    def project(self, flavor: Flavor) -> Project:
        """Returns the parsed config.yaml of a flavor; raises ConfigError with all its problems."""
        directory = flavor.config.rpartition("/")[0]
        data = _read(self.root / flavor.config, f"flavor {flavor.name} names it")
        return parse_project(data, flavor.config, directory.rpartition("/")[2])

    def conda_env(self, flavor: Flavor) -> CondaEnv:
        """Returns a flavor's conda env; raises ConfigError where conda_envs.yaml lacks it."""
        envs = read_conda_envs(self.root, f"flavor {flavor.name} needs its conda env")
        return find_conda_env(envs, flavor.conda_env)

    def environment_digest(self, env: CondaEnv) -> Digest | None:
        """Returns the digest of an env's environment.yml, or None where the env names none."""
        if env.environment is None:
            return None
        return Digest.of(_read(self.root / env.environment, f"conda env {env.name} names it"))


def find_root(start: Path, otherwise: Path | None = None) -> Path:
    """Returns the nearest directory at or above ``start`` that holds flavors.yaml.

    Args:
        start: Where to look first.
        otherwise: A directory to take where the search finds none and it holds the file.

    Raises:
        ConfigError: There is none.
    """
    candidates = [start, *start.parents, *([otherwise] if otherwise else [])]
    for directory in candidates:
        if (directory / "flavors.yaml").is_file():
            return directory
    raise ConfigError(
        "There is no flavors.yaml.",
        where=start,
        wanted="a directory that holds flavors.yaml, or one below it",
        next_step="cd to the repository's root and run the command again",
    )


def read_workspace(root: Path, environ: Mapping[str, str] | None = None) -> Workspace:
    """Returns the checkout at ``root``.

    Args:
        root: Holds flavors.yaml and, unless ``ADROIT_CONFIG`` names another, adroit.toml.
        environ: The environment; the process's own by default.

    Raises:
        ConfigError: A file is missing or has problems; all problems of the file are listed.
    """
    environ = os.environ if environ is None else environ
    return Workspace(root, read_flavors(root), read_targets(root, environ))


def read_flavors(root: Path) -> Mapping[str, Flavor]:
    """Returns the flavors of the checkout at ``root``; raises as ``read_workspace``."""
    return parse_flavors(_read(root / "flavors.yaml", "it says what is to be served"))


def read_targets(root: Path, environ: Mapping[str, str]) -> Targets:
    """Returns the targets of the checkout at ``root``; raises as ``read_workspace``."""
    config = root / environ.get("ADROIT_CONFIG", "adroit.toml")
    data = _read(config, "it names the targets")
    return parse_targets(data, str(config), str(config.resolve().parent))


def read_conda_envs(root: Path, why: str) -> Mapping[str, CondaEnv]:
    """Returns the conda envs of the checkout at ``root``; raises as ``read_workspace``."""
    return parse_conda_envs(_read(root / "conda_envs.yaml", why))


def _read(path: Path, why: str) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(MAX_BYTES + 1)  # one more than any parser takes, so that it refuses
    except OSError as error:
        raise ConfigError(
            f"{path.name} cannot be read ({error.strerror}).",
            where=path,
            wanted=f"a readable file: {why}",
        ) from error
