"""From a published version to the documents that run it."""

from __future__ import annotations

from typing import Any

from adroit_publish.bundle.deployment import ServedVersion, manifests
from adroit_publish.config.targets import Target
from adroit_publish.custody.signature import admit_signed
from adroit_publish.errors import RefusedError
from adroit_publish.places import images_of
from adroit_publish.stores.bundle_store import BundleStore, Published
from adroit_publish.version import Version


def manifests_of(
    target: Target,
    store: BundleStore,
    published: Published,
    kind: str,
    flavor: str | None = None,
) -> list[dict[str, Any]]:
    """Returns the documents that run a version of ``target``, in the order they are applied.

    Args:
        kind: One of ``bundle.deployment.KINDS``.
        flavor: What it is served as, where that is known.

    Raises:
        RefusedError: The target has no images, so there is nothing that a cluster could pull; or
            it demands a signature that the version has not.
        ConfigError: As ``bundle.deployment.manifests``.
        StoreError, VerificationError: As ``Version``.
    """
    repository = images_of(target, published.model_name)
    if repository is None:
        raise RefusedError(
            "The version has no image that could be deployed.",
            where=f"{published.version} in {store.location}",
            got=f"target {target.name}, which has no images",
            wanted="a target with `images` in adroit.toml",
            next_step=f"publish to such a target, or python -m adroit_publish serve "
            f"{published.version}",
        )
    admit_signed(store, published, flavor)
    record = Version(store, published).bundle
    served = ServedVersion(
        model_name=published.model_name,
        version=str(published.version),
        bundle_id=record.bundle_id,
        repository=f"{repository.host}/{repository.name}",
        manifest=published.manifest.digest,
        serve=record.serve,
        flavor=flavor,
    )
    return manifests(kind, served)
