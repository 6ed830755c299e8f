"""From a target's words to the places they name, and the proof that they may be used."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from adroit_publish.attestations.demand import demand_of
from adroit_publish.attestations.envelope import ENVELOPE_MEDIA_TYPE
from adroit_publish.aws import session as aws
from adroit_publish.bundle.content import Content, Inline
from adroit_publish.bundle.digest import Descriptor, Digest
from adroit_publish.bundle.manifest import RECORD_MEDIA_TYPE, Bundle
from adroit_publish.config.conda_envs import CondaEnv
from adroit_publish.config.targets import Target
from adroit_publish.errors import RefusedError
from adroit_publish.registry import referrers as registry_referrers
from adroit_publish.registry.client import Registry
from adroit_publish.registry.docker_config import Credentials, DockerCredentials
from adroit_publish.registry.ecr import Ecr, parse_ecr_host
from adroit_publish.registry.image_reference import Repository, Tag, parse_reference, registry_host
from adroit_publish.registry.repository import ImageRepository
from adroit_publish.stores.bundle_store import BundleStore
from adroit_publish.stores.contract import Objects, Progress
from adroit_publish.stores.directory import DirectoryObjects
from adroit_publish.stores.s3.objects import S3Objects


class Place(Protocol):
    """Where blobs can be put: a bundle store or a registry."""

    location: str

    def put_blob(self, descriptor: Descriptor, content: Content, progress: Progress = ...) -> bool:
        """Makes sure that the blob is there; tells whether it had to be sent."""
        ...


@dataclass(frozen=True)
class Places:
    """Where the bundles of one model go.

    Attributes:
        images: The repository of the runnable images, or None where the target has none.
    """

    store: BundleStore
    images: ImageRepository | None

    @property
    def all(self) -> tuple[Place, ...]:
        """Both of them, or the one that is there."""
        return (self.store, self.images) if self.images else (self.store,)

    def put_documents(self, bundle: Bundle) -> None:
        """Stores the config and the manifest everywhere, by digest, still without a name."""
        self.store.put_documents(bundle)
        if self.images:
            self.images.put_blob(bundle.config, Inline(bundle.config_bytes))
            self.images.put_manifest(bundle.manifest, bundle.manifest_bytes)

    def attach(
        self,
        model_name: str,
        version: str,
        manifest: Descriptor,
        record: bytes,
        envelopes: Iterable[bytes] = (),
    ) -> None:
        """Attaches a record to a version everywhere, after the statements that vouch for it."""
        vouched = [(ENVELOPE_MEDIA_TYPE, envelope) for envelope in envelopes]
        for media_type, document in (*vouched, (RECORD_MEDIA_TYPE, record)):
            self.store.attach(model_name, version, manifest, media_type, document)
            if self.images:
                registry_referrers.attach(self.images, manifest, media_type, document)

    def commit(self, model_name: str, bundle: Bundle) -> None:
        """Gives the manifest its version's name: the registry's tag first, ``index.json`` last.

        Raises:
            RefusedError: The version names another manifest in one of the places.
        """
        if self.images:
            self.images.tag(Tag(bundle.version), bundle.manifest, bundle.manifest_bytes)
        self.store.commit(model_name, bundle.version, bundle.manifest)


STORES: dict[str, Callable[[Target], Objects]] = {
    "file": lambda target: DirectoryObjects(Path(target.bundles.removeprefix("file:"))),
    "s3": lambda target: S3Objects(target.bundles, account=target.account, profile=target.profile),
}
"""By the scheme of ``bundles``, what holds them; ``config.addresses.STORAGE`` has its form."""


def open_store(target: Target) -> BundleStore:
    """Returns the bundle store of ``target``; nothing is read or made yet."""
    objects = STORES[target.bundles.partition(":")[0]](target)
    return BundleStore(objects, demand_of(target), target.signing_key, target.name)


def open_places(target: Target, model_name: str) -> Places:
    """Returns the places of one model; nothing is read or made yet."""
    repository = images_of(target, model_name)
    return Places(open_store(target), open_images(target, repository) if repository else None)


def images_of(target: Target, model_name: str) -> Repository | None:
    """Returns the repository of a model's images, or None where the target has no images."""
    if target.images is None:
        return None
    host, _, prefix = target.images.partition("/")
    return Repository(host, "/".join(part for part in (prefix, model_name.lower()) if part))


def env_repository(target: Target, env: CondaEnv | None) -> ImageRepository | None:
    """Returns where the target's own registry keeps a conda env; None where nothing says."""
    if target.images is None or env is None or env.image is None:
        return None
    host = registry_host(target.images)
    repository = parse_reference(env.image, host).repository
    return open_images(target, repository) if repository.host == host else None


def open_images(target: Target, repository: Repository) -> ImageRepository:
    """Returns a repository with the credentials that are for its registry and no others.

    Args:
        target: Its own registry is reached at ``images_endpoint``, if it has one.
    """
    own = target.images is not None and repository.host == registry_host(target.images)
    endpoint = target.images_endpoint if own else None
    credentials = credentials_of(target, repository.host)
    return ImageRepository(Registry(repository.host, credentials, endpoint), repository.name)


def credentials_of(target: Target, host: str) -> Credentials:
    """Returns what knows the login of a registry: ECR's API, or the Docker config."""
    return _ecr(target, host) or DockerCredentials(os.environ)


def docker_name(images: ImageRepository) -> str:
    """Returns what a Docker engine here calls a repository: where it is reached."""
    return f"{images.registry.endpoint.authority}/{images.repository.name}"


def docker_reference(images: ImageRepository, digest: Digest) -> str:
    """Returns an image as a Docker engine on this machine can pull it, by digest."""
    return f"{docker_name(images)}@{digest}"


def docker_login(target: Target, images: ImageRepository) -> dict[str, str] | None:
    """Returns the login for a repository's registry in Docker's words; None to be anonymous."""
    login = credentials_of(target, images.repository.host).get(images.repository.host)
    if login is None:
        return None
    if not login.username:
        return {"identitytoken": login.secret}
    return {"username": login.username, "password": login.secret}


def prove_access(target: Target) -> None:
    """Proves that the credentials are the target's, before anything is written anywhere.

    Raises:
        RefusedError: They are another account's, or the bucket is not there or another's.
        StoreError: AWS could not be reached.
    """
    if target.account is not None:
        prove_account(target, target.account)
    open_store(target).objects.check()


def ensure_images(target: Target, model_name: str) -> None:
    """Makes sure that the model's repository is there, where a push does not make it itself.

    Raises:
        RefusedError: It is not there and may not be created.
        StoreError: ECR could not be reached.
    """
    if repository := images_of(target, model_name):
        ensure_repository(target, repository)


def ensure_repository(target: Target, repository: Repository) -> None:
    """Makes sure that a repository is there; raises as ``ensure_images`` does."""
    if ecr := _ecr(target, repository.host):
        ecr.ensure_repository(repository.name)


def prove_account(target: Target, account: str) -> None:
    """Proves that the credentials, and the target's images, are of that account.

    Raises:
        RefusedError: They are another's.
        StoreError: AWS could not be reached.
    """
    got = aws.caller_account(aws.session(target.profile))
    if got != account:
        raise RefusedError(
            "The AWS credentials are of another account than the target's.",
            where=f"target {target.name}",
            got=got,
            wanted=account,
            next_step=f"export AWS_PROFILE={target.profiles[0] if target.profiles else 'PROFILE'}",
        )
    images = parse_ecr_host(registry_host(target.images)) if target.images else None
    if images and images.account != account:
        raise RefusedError(
            "The target's images are in another account than the target's.",
            where=f"target {target.name}, images",
            got=images.account,
            wanted=account,
            next_step="mend `account` or `images` in adroit.toml",
        )


def _ecr(target: Target, host: str) -> Ecr | None:
    """Returns ECR's API for a registry that is ECR, or that the target says is."""
    own_host = parse_ecr_host(host)
    if own_host:
        return Ecr(aws.session(target.profile), own_host.account, own_host.region)
    own = target.images is not None and host == registry_host(target.images)
    if own and target.images_auth == "ecr":
        return Ecr(aws.session(target.profile), target.account)
    return None
