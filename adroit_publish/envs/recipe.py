"""How a conda env becomes an image: the Dockerfile and what goes with it. Pure text.

    micromamba   creates the whole environment; needs its channels, and the image of micromamba
    pip          installs its pip part in a venv of a base image's python3

Source: micromamba-docker, "Quick start"; Dockerfile reference, ``ARG``, multi-stage builds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from adroit_publish.config.conda_envs import CondaEnv
from adroit_publish.config.environment_yml import Environment

MICROMAMBA = "docker.io/mambaorg/micromamba:2.3.2"
PIP_ARGUMENTS = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST")
"""What of the builder's environment pip may be told."""


@dataclass(frozen=True)
class Recipe:
    """How an env's image is made; ``how`` is for people and the label."""

    how: str
    dockerfile: str
    files: Mapping[str, bytes]


def conda_recipe(env: CondaEnv, environment_yml: bytes) -> Recipe:
    """Returns the recipe that has micromamba create the whole environment."""
    prefix = _prefix(env)
    dockerfile = (
        f"FROM {MICROMAMBA}\n"
        "USER root\n"
        "COPY environment.yml /tmp/environment.yml\n"
        f"RUN micromamba create --yes --prefix {prefix} --file /tmp/environment.yml"
        " && micromamba clean --all --yes\n"
        "ENTRYPOINT []\n"
    )
    return Recipe("micromamba", dockerfile, {"environment.yml": environment_yml})


def pip_recipe(env: CondaEnv, environment: Environment, base: str) -> Recipe:
    """Returns the recipe that installs the environment's pip part in a venv of the base's python3.

    Two stages: build arguments, such as an index with a password, stay in the first one's history.
    """
    prefix, python = _prefix(env), json.dumps(env.python)
    right = f"import sys; sys.exit('%d.%d' % sys.version_info[:2] != {environment.python!r})"
    checked = json.dumps(["python3", "-c", right]) if environment.python else '["python3", "-V"]'
    install = f'[{python}, "-m", "pip", "install", "--no-cache-dir", "-r", "/tmp/requirements.txt"]'
    dockerfile = (
        f"FROM {base} AS build\n"
        + "".join(f"ARG {name}\n" for name in PIP_ARGUMENTS)
        + f"RUN {checked}\n"
        f'RUN ["python3", "-m", "venv", {json.dumps(prefix)}]\n'
        "COPY requirements.txt /tmp/requirements.txt\n"
        f"RUN {install}\n"
        f"FROM {base}\n"
        f"COPY --from=build {prefix} {prefix}\n"
    )
    requirements = "".join(f"{line}\n" for line in environment.pip).encode()
    return Recipe(f"pip on {base}", dockerfile, {"requirements.txt": requirements})


def _prefix(env: CondaEnv) -> str:
    """Returns the environment's directory: two above its interpreter."""
    return str(PurePosixPath(env.python).parent.parent)
