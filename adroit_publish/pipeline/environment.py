"""The conda env reference: from a name in conda_envs.yaml to the digest that a bundle pins.

Where the target has images, the env is its image, resolved to the platform's manifest; elsewhere it
is the digest of its environment.yml.
"""

from __future__ import annotations

from adroit_publish.config.flavors import Flavor
from adroit_publish.config.targets import Target
from adroit_publish.errors import ConfigError, PublishError
from adroit_publish.pipeline.places import open_images
from adroit_publish.pipeline.release import EnvReference
from adroit_publish.pipeline.workspace import Workspace
from adroit_publish.stores.base_image import resolve_base
from adroit_publish.stores.bundle_store import BundleStore
from adroit_publish.stores.image_reference import parse_reference, registry_host


def resolve_env(workspace: Workspace, flavor: Flavor, target: Target) -> EnvReference:
    """Returns the env of a flavor, pinned.

    Raises:
        ConfigError: There is no such env, or none with an image where the target needs one.
        RefusedError: The image is gone, or not there for its platform.
        StoreError: The registry could not be reached.
    """
    env = workspace.conda_env(flavor)
    if target.images is None:
        return EnvReference(env, None, workspace.environment_digest(env))
    if env.image is None:
        raise ConfigError(
            f"Conda env {env.name} has no image, and target {target.name} publishes images.",
            where="conda_envs.yaml",
            wanted="image: REPOSITORY:TAG in the target's registry, or a full reference",
        )
    reference = parse_reference(env.image, registry_host(target.images))
    base = resolve_base(open_images(target, reference.repository), reference, env.platform)
    return EnvReference(env, base, base.digest)


def moved_env(
    workspace: Workspace, store: BundleStore, model_name: str, reference: EnvReference
) -> str | None:
    """Returns the digest that versions in flavors.yaml pin for this env, where it is another one.

    Only versions that flavors.yaml names are looked at: those that are served, or about to be.
    """
    for flavor in workspace.flavors.values():
        if flavor.version is None or flavor.conda_env != reference.env.name:
            continue
        try:
            published = store.find(model_name, flavor.version)
            if published is None:
                continue
            env = store.bundle_document(published)[1]["conda_env"]
        except PublishError:
            continue  # this is a hint; `verify` is where a damaged version is told
        if env["digest"] not in (None, reference.digest):
            return str(env["digest"])
    return None
