"""conda_envs.yaml: the pre-baked environments, by name.

Each top-level key is an env, but for those that start with ``x-``. An env has an ``image``, an
``environment`` or both: without an image, it is referred to by the digest of its environment.yml.
Keys that this program does not know are kept for other tools; a near miss is an error.

Source: OCI distribution specification 1.1, the grammar of references.
"""

from __future__ import annotations

import re
from collections import abc
from dataclasses import dataclass

from adroit_publish.config.names import name_problem, nearest
from adroit_publish.config.yaml.text import Report, read_yaml
from adroit_publish.config.yaml.tree import Entry
from adroit_publish.config.yaml.values import Section, own_entries
from adroit_publish.errors import ConfigError

DEFAULT_PLATFORM = "linux/amd64"
DEFAULT_PYTHON = "/opt/conda/envs/adroit/bin/python"

_KNOWN = ("image", "platform", "python", "environment")
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_IMAGE = re.compile(
    r"(?:(?:[A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?/)?"
    rf"{_COMPONENT}(?:/{_COMPONENT})*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)
_PLATFORM = re.compile(r"[a-z0-9]+/[a-z0-9_]+(/[a-z0-9]+)?")


@dataclass(frozen=True)
class CondaEnv:
    """One pre-baked environment.

    Attributes:
        image: A repository and tag in the target's registry, or a full reference.
        platform: ``os/architecture``, where the tag is an image index.
        python: The interpreter that serves, an absolute path in the image.
        environment: Its environment.yml, relative to the repository's root.
    """

    name: str
    image: str | None
    platform: str
    python: str
    environment: str | None


def parse_conda_envs(data: bytes, file: str = "conda_envs.yaml") -> dict[str, CondaEnv]:
    """Returns the environments by name, in the order of the file.

    Raises:
        ConfigError: The file is not acceptable YAML (see ``yaml_text``), or an env is not what it
            has to be; all problems together, each with its line.
    """
    report = Report(file)
    entries = own_entries(read_yaml(data, file), "env names", report)
    envs = {name: _read_env(name, entry, report) for name, entry in entries.items()}
    report.check()
    return envs


def find_conda_env(
    envs: abc.Mapping[str, CondaEnv], name: str, file: str = "conda_envs.yaml"
) -> CondaEnv:
    """Returns the env of that name; raises ConfigError with the names most like it."""
    if name in envs:
        return envs[name]
    raise ConfigError(
        f"There is no conda env {name!r}.",
        where=file,
        wanted=f"one of: {nearest(name, envs)}",
        next_step=f"name one of these as the flavor's conda_env, or add {name!r} to {file}",
    )


def _read_env(name: str, entry: Entry, report: Report) -> CondaEnv:
    line = entry.key.line
    problem = name_problem(name)
    if problem:
        report.add(line, f"the env name {name[:80]!r} {problem}")
    env = Section(entry.value, f"env {name!r}", line, report, _KNOWN)
    image, environment = env.text("image"), env.path("environment")
    platform = env.text("platform") or DEFAULT_PLATFORM
    python = env.text("python") or DEFAULT_PYTHON
    if image is not None and not _IMAGE.fullmatch(image):
        form = "[HOST[:PORT]/]REPOSITORY[:TAG][@sha256:...], without a scheme, in lower case"
        env.problem("image", f"'image' is not an image reference; it is {form}")
    if "image" not in env.entries and "environment" not in env.entries:
        env.problem("image", "needs an 'image', an 'environment' or both")
    if not _PLATFORM.fullmatch(platform):
        env.problem("platform", f"'platform' is {platform!r}; it is like {DEFAULT_PLATFORM}")
    if not python.startswith("/") or ".." in python.split("/"):
        env.problem("python", "'python' must be an absolute path in the image, without '..'")
    return CondaEnv(name, image, platform, python, environment)
