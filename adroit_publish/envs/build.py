"""Bake a conda env into the image that bundles refer to: ``make build_env ENV=name``.

    recipe   micromamba where the environment's channels answer; otherwise its pip part, in a venv
             of a given base image's python3
    build    by the Docker engine, in stages: what pip is told of its index stays out of the image
    label    with the packages that are really there, asked of the finished image
    push     under the tag of conda_envs.yaml, in the target's registry
    read     the tag's digest back from the registry, which is what a publish will pin

The build is not reproducible and need not be: a bundle pins what came of it, by digest.

Source: Docker Engine API, ``ImageBuild``; micromamba-docker, "Quick start".
"""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from adroit_publish.bundle.digest import Digest
from adroit_publish.checkout import Checkout
from adroit_publish.config.conda_envs import CondaEnv, find_conda_env
from adroit_publish.config.environment_yml import Environment, parse_environment
from adroit_publish.config.targets import Target
from adroit_publish.edge.text import printable
from adroit_publish.envs.recipe import PIP_ARGUMENTS, Recipe, conda_recipe, pip_recipe
from adroit_publish.errors import ConfigError, RefusedError, StoreError, VerificationError
from adroit_publish.gates import docker_engine
from adroit_publish.places import (
    docker_login,
    docker_name,
    docker_reference,
    ensure_repository,
    open_images,
)
from adroit_publish.registry.image_reference import (
    ImageReference,
    Tag,
    parse_reference,
    registry_host,
)

if TYPE_CHECKING:
    from docker import DockerClient

PACKAGES_LABEL = "adroit.packages"
HOW_LABEL = "adroit.built_with"
ENVIRONMENT_LABEL = "adroit.environment"

_PROBE_TIMEOUT_S = 10
_LOG_LINES = 15
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_CHANNELS = {"defaults": "https://repo.anaconda.com/pkgs/main"}
_LIST = (
    "import json, platform; from importlib.metadata import distributions as d; "
    "print(json.dumps({'python': platform.python_version(), "
    "**{each.metadata['Name']: each.version for each in d()}}))"
)


@dataclass(frozen=True)
class BuiltEnv:
    """An env's image in the registry; ``packages`` has the version of ``python`` too."""

    name: str
    image: str
    digest: str
    how: str
    packages: Mapping[str, str] = field(repr=False)


def build_env(
    checkout: Checkout,
    target: Target,
    name: str,
    *,
    base: str | None = None,
    heard: Callable[[str], None] = lambda line: None,
) -> BuiltEnv:
    """Builds a conda env's image and pushes it to the target's registry.

    Args:
        base: An image with the environment's Python as python3, for where no channel answers: a
            reference as in conda_envs.yaml.
        heard: Told each line of the build's log.

    Raises:
        ConfigError: There is no such env, or it lacks its image or environment.yml.
        RefusedError: There is no engine, or neither channel nor base, or conda packages that pip
            cannot install; or a registry denies access.
        StoreError: The build or the push failed.
        VerificationError: The registry has something else than what was pushed.
    """
    env, data, environment = _read(checkout, name)
    reference = _reference(env, target)
    micromamba = all(map(_answers, environment.channels)) and bool(environment.channels)
    next_step = "building an image needs one"
    with docker_engine.connected("an env's image cannot be built", next_step) as client:
        pinned = None if micromamba else _pulled_base(client, target, environment, name, base)
        recipe = pip_recipe(env, environment, pinned) if pinned else conda_recipe(env, data)
        heard(f"env {name}: built with {recipe.how}")
        built = _build(client, recipe, env, heard)
        packages = _packages(client, built, env.python)
        labels = {
            PACKAGES_LABEL: json.dumps(packages, sort_keys=True),
            HOW_LABEL: recipe.how,
            ENVIRONMENT_LABEL: str(Digest.of(data)),
        }
        labelled = Recipe(recipe.how, f"FROM {built}\n", {})
        image_id = _build(client, labelled, env, heard, labels)
        digest = _push(client, target, reference, image_id)
    return BuiltEnv(name, str(reference), digest, recipe.how, packages)


def _read(checkout: Checkout, name: str) -> tuple[CondaEnv, bytes, Environment]:
    env = find_conda_env(checkout.conda_envs, name)
    data = checkout.environment(env)
    if env.environment is None or data is None:
        raise ConfigError(
            f"Conda env {name} has no environment.yml to be built from.",
            where="conda_envs.yaml",
            wanted="environment: conda_envs/NAME/environment.yml",
        )
    return env, data, parse_environment(data, env.environment)


def _reference(env: CondaEnv, target: Target) -> ImageReference:
    """Returns where the image goes: a tag in the target's registry."""
    if env.image is None or target.images is None:
        lacking = "the env has no image" if env.image is None else "the target has no images"
        raise ConfigError(
            f"There is nowhere to push env {env.name} to: {lacking}.",
            where=f"conda_envs.yaml, target {target.name} of adroit.toml",
            next_step="name an image for the env, and a target with images (--target)",
        )
    host = registry_host(target.images)
    reference = parse_reference(env.image, host)
    if reference.repository.host != host or not isinstance(reference.name, Tag):
        raise ConfigError(
            f"Env {env.name} cannot be pushed under its name.",
            where="conda_envs.yaml",
            got=env.image,
            wanted=f"REPOSITORY:TAG in the target's registry {host}",
        )
    return reference


def _answers(channel: str) -> bool:
    import requests

    url = _CHANNELS.get(channel, channel)
    url = url if "://" in url else f"https://conda.anaconda.org/{url}"
    try:
        answer = requests.head(
            f"{url.rstrip('/')}/noarch/repodata.json",
            timeout=_PROBE_TIMEOUT_S,
            allow_redirects=True,
        )
    except requests.RequestException:  # no such host, no answer, no URL
        return False
    return answer.ok


def _pulled_base(
    client: DockerClient, target: Target, environment: Environment, name: str, base: str | None
) -> str:
    """Returns the base image as the engine has it, by digest."""
    if base is None:
        raise RefusedError(
            f"The conda channels of env {name} cannot be reached, and no base image is given.",
            got=f"no answer from {', '.join(environment.channels) or 'any channel: none is named'}",
            next_step=f"make build_env ENV={name} BASE=HOST/REPOSITORY:TAG, an image with "
            f"Python {environment.python or '3'}: the pip part is installed there",
        )
    if environment.conda:
        raise RefusedError(
            f"The conda channels of env {name} cannot be reached; pip cannot install all of it.",
            got=f"conda packages: {', '.join(environment.conda)}",
            next_step="build where the channels can be reached",
        )
    assert target.images is not None
    reference = parse_reference(base, registry_host(target.images))
    images = open_images(target, reference.repository)
    digest = images.resolve(reference.name).descriptor.digest
    pinned = docker_reference(images, digest)
    docker_engine.pull(client, pinned, docker_login(target, images) or {})
    return pinned


def _build(
    client: DockerClient,
    recipe: Recipe,
    env: CondaEnv,
    heard: Callable[[str], None],
    labels: Mapping[str, str] | None = None,
) -> str:
    """Returns the id of the built image."""
    what, where = "The env's image could not be built", f"env {env.name}, {recipe.how}"
    log: list[str] = []
    image_id = ""
    with docker_engine.failures(what, where):
        stream = client.api.build(
            fileobj=_context(recipe),
            custom_context=True,
            rm=True,
            forcerm=True,
            platform=env.platform,
            network_mode="host",  # an index on loopback is as good as any
            buildargs={key: os.environ[key] for key in PIP_ARGUMENTS if key in os.environ},
            labels=dict(labels or {}),
            decode=True,
        )
        try:
            for event in docker_engine.events(stream, what, where):
                for line in _COLOUR.sub("", str(event.get("stream", ""))).splitlines():
                    log.append(printable(line))
                    heard(log[-1])
                image_id = event.get("aux", {}).get("ID") or image_id
        except StoreError as error:
            error.got = "\n".join([*log[-_LOG_LINES:], str(error.got)])
            error.next_step = f"correct {env.environment} or the base image, then the same again"
            raise
    return image_id


def _context(recipe: Recipe) -> io.BytesIO:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, data in {**recipe.files, "Dockerfile": recipe.dockerfile.encode()}.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o644
            tar.addfile(member, io.BytesIO(data))
    stream.seek(0)
    return stream


def _packages(client: DockerClient, image_id: str, python: str) -> dict[str, str]:
    output = client.containers.run(
        image_id, entrypoint=[python, "-I", "-c", _LIST], network_mode="none", remove=True
    )
    return {str(name): str(version) for name, version in json.loads(output).items()}


def _push(client: DockerClient, target: Target, reference: ImageReference, image_id: str) -> str:
    ensure_repository(target, reference.repository)
    images = open_images(target, reference.repository)
    name, tag = docker_name(images), Tag(reference.name)
    what = "The env's image could not be pushed"
    pushed = ""
    client.images.get(image_id).tag(name, tag)
    with docker_engine.failures(what, str(reference)):
        stream = client.api.push(
            name, tag, stream=True, decode=True, auth_config=docker_login(target, images) or {}
        )
        for event in docker_engine.events(stream, what, str(reference)):
            pushed = event.get("aux", {}).get("Digest") or pushed
    digest = images.resolve(tag).descriptor.digest
    if digest != pushed:
        raise VerificationError(
            "The registry's tag does not name the image that was pushed.",
            where=reference,
            got=digest,
            wanted=pushed,
            next_step="somebody else may have pushed the same tag: run the same command again",
        )
    return str(digest)
