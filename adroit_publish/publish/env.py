"""The conda env reference: from a name in conda_envs.yaml to the digest that a bundle pins.

Where the target has images, the env is its image, resolved to the platform's manifest; elsewhere it
is the digest of its environment.yml.
"""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from adroit_publish.bundle.carried import carried_base, platform_of, serving_python
from adroit_publish.bundle.digest import Digest
from adroit_publish.bundle.imports import BundleFinding
from adroit_publish.bundle.manifest import BaseImage
from adroit_publish.checkout import Checkout
from adroit_publish.config.environment_yml import parse_environment
from adroit_publish.config.flavors import Flavor
from adroit_publish.config.targets import Target
from adroit_publish.errors import ConfigError, PublishError, RefusedError
from adroit_publish.gates.env_contract import RUNTIME_NEEDS, ObservedEnv, listed_env
from adroit_publish.places import images_of, open_images
from adroit_publish.publish.release import EnvReference, Job
from adroit_publish.publish.stages import Stage
from adroit_publish.publish.upload import SENDING_THREADS
from adroit_publish.registry.base_image import resolve_base
from adroit_publish.registry.image_packages import installed_packages
from adroit_publish.registry.image_reference import parse_reference, registry_host
from adroit_publish.registry.repository import ImageRepository
from adroit_publish.version import Version


def resolve_env(checkout: Checkout, flavor: Flavor, target: Target) -> EnvReference:
    """Returns the env of a flavor, pinned.

    Raises:
        ConfigError: There is no such env, or none with an image where the target needs one.
        RefusedError: The image is gone, or not there for its platform.
        StoreError: The registry could not be reached.
    """
    env = checkout.conda_env(flavor)
    if target.images is None:
        listing = checkout.environment(env)
        return EnvReference(env, None, checkout.environment_digest(env), listing=listing)
    if env.image is None:
        raise ConfigError(
            f"Conda env {env.name} has no image, and target {target.name} publishes images.",
            where="conda_envs.yaml",
            wanted="image: REPOSITORY:TAG in the target's registry, or a full reference",
        )
    reference = parse_reference(env.image, registry_host(target.images))
    base = resolve_base(open_images(target, reference.repository), reference, env.platform)
    return EnvReference(env, base, base.digest)


def carried_env(
    checkout: Checkout, flavor: Flavor, target: Target, version: Version
) -> EnvReference:
    """Returns the env that a version pins, whatever its name means now; raises as ``Version``."""
    config, bundle = version.image_config, version.bundle
    repository = images_of(target, version.model_name)
    reference = f"{repository}@{version.published.manifest.digest}"  # it holds the env's layers too
    base = carried_base(version.manifest, config, bundle, reference)
    env = replace(
        checkout.conda_env(flavor), python=serving_python(config), platform=platform_of(config)
    )
    digest = Digest(bundle.conda_env_digest) if bundle.conda_env_digest else None
    listing = checkout.environment(env) if base is None else None
    if listing is not None and Digest.of(listing) != digest:
        listing = None  # the file is another one by now
    return EnvReference(env, base, digest, carried=True, listing=listing)


def take_env(env: EnvReference, target: Target, images: ImageRepository, stage: Stage) -> None:
    """Makes sure that an env's layers are in a model's repository: mounted, or else copied.

    Those of an env that is carried over are there, or else in the repository of the env's image.

    Raises:
        RefusedError: They are gone, or may not be read.
        StoreError: A registry failed.
    """
    base = env.base
    assert base is not None  # or there is nothing to take
    reference = parse_reference(base.reference)
    if env.carried and env.env.image and target.images:
        reference = parse_reference(env.env.image, registry_host(target.images))
    source = open_images(target, reference.repository)
    copied = stage.progress(sum(layer.size_bytes for layer in base.layers), images.location)
    try:
        with ThreadPoolExecutor(SENDING_THREADS, "env") as pool:
            sent = list(pool.map(lambda one: images.take_blob(one, source, copied), base.layers))
    except PublishError as error:
        if env.carried and not getattr(error, "transient", False):
            raise _env_gone(env, images, error) from error
        raise
    stage.note = f"{sum(sent)} of {len(base.layers)} layers copied"


def _env_gone(env: EnvReference, images: ImageRepository, error: PublishError) -> RefusedError:
    return RefusedError(
        f"The image of conda env {env.env.name} that the version was published with is gone.",
        where=f"{images.location}, {error.where}",
        got=error.what,
        wanted=f"the layers of {env.digest}",
        next_step="push that image again, or add --env to take over what its name stands for now",
    )


def env_of_listing(env: EnvReference) -> ObservedEnv | None:
    """Returns what an env's environment.yml lists and what this brings, as far as is known here.

    None where there is no such file, or where it cannot be the whole env.
    """
    if env.listing is None:
        return None
    file = str(env.env.environment)
    return listed_env(parse_environment(env.listing, file), _required_by, file)


def unlisted(env: EnvReference) -> BundleFinding:
    """Returns what is to be known where nothing that can be read here says what an env holds."""
    name, file = env.env.name, env.env.environment
    if env.base is not None:
        what = "the layers of its image cannot be read here: nothing was held against it"
    elif env.listing is not None:
        needs = ", ".join(want.name for want in RUNTIME_NEEDS if want.name != "python")
        what = f"{file} does not list what serves a model ({needs}): this machine's Python stood in"
    else:
        why = f"{file} is not what it was" if file else "it has no environment.yml"
        what = f"{why}: this machine's Python stood in for it"
    return BundleFinding("env:unlisted", f"env {name}: {what}")


def _required_by(name: str) -> list[str] | None:
    """Returns what a distribution requires, as it is installed here; None where it is not."""
    try:
        requirements = map(Requirement, metadata.requires(name) or ())
    except metadata.PackageNotFoundError:
        return None
    return [
        str(canonicalize_name(one.name))
        for one in requirements
        if one.marker is None or one.marker.evaluate({"extra": ""})
    ]


def env_of_image(job: Job, base: BaseImage) -> ObservedEnv | None:
    """Returns what the layers of an env's image hold; None where they cannot be read here."""
    cached = Path(job.root) / ".adroit" / "cache" / "envs" / f"{base.digest.hex}.json"
    try:
        known = json.loads(cached.read_text())
    except (OSError, ValueError):
        source = open_images(job.target, parse_reference(base.reference).repository)
        installed = installed_packages(source, base, job.env.env.python)
        if installed is None:
            return None
        known = {"python": installed.python, "packages": dict(installed.versions)}
        with suppress(OSError):  # it is a cache
            cached.parent.mkdir(parents=True, exist_ok=True)
            scratch = cached.with_suffix(f".{os.getpid()}.part")
            scratch.write_text(json.dumps(known))
            scratch.replace(cached)
    return ObservedEnv(
        known["python"],
        known["packages"],
        platform=job.env.env.platform,
        looked_at="the layers of the env's image",
    )
