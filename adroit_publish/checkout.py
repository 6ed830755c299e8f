"""The checkout a command works in: each of its files is read, and parsed, at most once."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from adroit_publish.bundle.digest import Digest
from adroit_publish.config.conda_envs import CondaEnv, find_conda_env, parse_conda_envs
from adroit_publish.config.flavors import Flavor, parse_flavors
from adroit_publish.config.project import Project, parse_project
from adroit_publish.config.targets import Target, Targets, choose_target, parse_targets
from adroit_publish.config.yaml.tree import MAX_BYTES
from adroit_publish.edge.once import Once
from adroit_publish.errors import ConfigError, SourceError
from adroit_publish.git.blobs import committed_bytes
from adroit_publish.git.working_tree import unchanged_bytes

FLAVORS = "flavors.yaml"
CONDA_ENVS = "conda_envs.yaml"

ReadFile = Callable[[Path, str], bytes]
"""Returns the bytes of a file: the checkout's root, the path below it. Raises OSError."""


def read_file(root: Path, path: str) -> bytes:
    """Returns a file's bytes as the working tree has them.

    Raises:
        OSError: It cannot be read.
        SourceError: It is a symlink, lies behind one, or is a device or a pipe.
    """
    for step in [*Path(path).parents[-2::-1], Path(path)]:
        mode = (root / step).lstat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            kind = "symlink" if stat.S_ISLNK(mode) else "special file"
            raise SourceError(
                f"{step} is a {kind}: nothing is read through it.",
                where=root / path,
                wanted="a regular file, which the commit can hold",
                next_step=f"put what it stands for in the place of {step}, and commit that",
            )
    return _read(root, path)


def _read(root: Path, path: str) -> bytes:
    with (root / path).open("rb") as stream:
        return stream.read(MAX_BYTES + 1)  # one more than any parser takes, so that it refuses


def read_as_committed(root: Path, path: str) -> bytes:
    """Returns a file's bytes as the commit has them, unless the working tree's say something else.

    So line endings that were converted when the file was checked out do not matter, and what is
    not committed yet can be looked at; who publishes it is told by ``git.source.snapshot``.
    flavors.yaml is the working tree's: it is where versions are written back.
    """
    committed = None if path == FLAVORS else unchanged_bytes(root, path)
    return read_file(root, path) if committed is None else committed


class Checkout:
    """What the checkout's files say; any thread may ask.

    A file is read when it is first asked for, and is the same from then on, whatever becomes of it
    on the disk. Each attribute and method raises ConfigError where its file is missing or has
    problems (all problems of a file are listed), and SourceError as ``read_file``.

    Args:
        root: The repository's root: the directory of flavors.yaml.
        environ: The environment; the process's own by default. ``ADROIT_CONFIG`` of it names
            another adroit.toml.
    """

    def __init__(
        self, root: Path, environ: Mapping[str, str] | None = None, read: ReadFile = read_file
    ) -> None:
        self.root = root
        self.environ = os.environ if environ is None else environ
        self._read = read
        self._once = Once()

    @property
    def flavors_file(self) -> Path:
        """Where versions are written back."""
        return self.root / FLAVORS

    @property
    def flavors_bytes(self) -> bytes:
        """flavors.yaml as it is written."""
        return self.file(FLAVORS, "it says what is to be served")

    @property
    def flavors(self) -> Mapping[str, Flavor]:
        """Every flavor by name, in the file's order."""

        def parse() -> Mapping[str, Flavor]:
            try:
                return parse_flavors(self.flavors_bytes)
            except ConfigError:
                return parse_flavors(self.flavors_bytes, envs=self._env_names())

        return self._once(FLAVORS, parse)

    def _env_names(self) -> Sequence[str]:
        """Returns the conda envs, for a message; none where they cannot be told."""
        try:
            return sorted(self.conda_envs)
        except (ConfigError, SourceError):
            return ()

    def names_as_committed(self, flavor: Flavor) -> bool:
        """Whether flavors.yaml at HEAD names the same project and env, or has no such flavor."""

        def parse() -> Mapping[str, Flavor]:
            try:
                data = committed_bytes(self.root.absolute(), FLAVORS)
                return {} if data is None else parse_flavors(data)
            except (ConfigError, SourceError):
                return {}

        before = self._once("committed flavors", parse).get(flavor.name)
        wanted = (flavor.config, flavor.conda_env)
        return before is None or (before.config, before.conda_env) == wanted

    @property
    def conda_envs(self) -> Mapping[str, CondaEnv]:
        """Every conda env by name."""

        def parse() -> Mapping[str, CondaEnv]:
            return parse_conda_envs(self.file(CONDA_ENVS, "it says what the conda envs are"))

        return self._once(CONDA_ENVS, parse)

    @property
    def targets(self) -> Targets:
        """Every target."""

        def parse() -> Targets:
            named = self.environ.get("ADROIT_CONFIG")
            path = "adroit.toml" if named is None else named
            directory = str((self.root / path).resolve().parent)
            data = self.file(path, "it names the targets", read_file if named is None else _read)
            return parse_targets(data, str(self.root / path), directory)

        return self._once("targets", parse)

    def target(self, flag: str | None) -> Target:
        """Returns the target that is meant; raises ConfigError where none or a wrong one is."""
        return choose_target(self.targets, flag=flag, environ=self.environ)

    def project(self, flavor: Flavor) -> Project:
        """Returns the parsed config.yaml of a flavor."""

        def parse() -> Project:
            directory = flavor.config.rpartition("/")[0]
            data = self.file(flavor.config, f"flavor {flavor.name} names it")
            return parse_project(data, flavor.config, directory.rpartition("/")[2])

        return self._once(("project", flavor.config), parse)

    def conda_env(self, flavor: Flavor) -> CondaEnv:
        """Returns a flavor's conda env."""
        return find_conda_env(self.conda_envs, flavor.conda_env)

    def environment(self, env: CondaEnv) -> bytes | None:
        """Returns an env's environment.yml, or None where the env names none."""
        if env.environment is None:
            return None
        return self.file(env.environment, f"conda env {env.name} names it")

    def environment_digest(self, env: CondaEnv) -> Digest | None:
        """Returns the digest of an env's environment.yml, or None where the env names none."""
        data = self.environment(env)
        return None if data is None else Digest.of(data)

    def file(self, path: str, why: str, read: ReadFile | None = None) -> bytes:
        """Returns the bytes of one file of the checkout; ``why`` tells what it is for."""

        def read_once() -> bytes:
            try:
                return (read or self._read)(self.root, path)
            except OSError as error:
                raise ConfigError(
                    f"{Path(path).name} cannot be read ({error.strerror}).",
                    where=self.root / path,
                    wanted=f"a readable file: {why}",
                ) from error

        return self._once(("file", path), read_once)


def open_checkout(root: Path, environ: Mapping[str, str] | None = None) -> Checkout:
    """Returns the checkout at ``root``, whose flavors.yaml and adroit.toml are right.

    Raises:
        ConfigError: One of the two is missing or has problems.
    """
    checkout = Checkout(root, environ, read_as_committed)
    _ = checkout.flavors, checkout.targets
    return checkout


def find_root(start: Path, otherwise: Path | None = None) -> Path:
    """Returns the nearest directory at or above ``start`` that holds flavors.yaml.

    Args:
        otherwise: A directory to take where the search finds none and it holds the file.

    Raises:
        ConfigError: There is none.
    """
    candidates = [start, *start.parents, *([otherwise] if otherwise else [])]
    for directory in candidates:
        if (directory / FLAVORS).is_file():
            return directory
    raise ConfigError(
        "There is no flavors.yaml.",
        where=start,
        wanted="a directory that holds flavors.yaml, or one below it",
        next_step="cd to the repository's root and run the command again",
    )
