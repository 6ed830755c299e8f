"""Promoting a version: the same digest, from one target's store and registry to another's.

    read      manifest, config, bundle.json and referrers at the source, verified
    check     whose credentials these are; that every layer of the env can be had by digest
    layers    those that the destination lacks, several at once, streamed and verified on the way
    verify    this machine saw exactly this version load and predict, or sees it at the destination
    commit    referrers and a record of the promotion, the tag, ``index.json``

Nothing is visible at the destination before the last stage, and nothing at the source changes.
Whatever interrupts a promotion, the same again copies what is missing. The source is read as the
AWS profile that means its target, the destination is written as the environment's.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from adroit_publish.attestations.envelope import attest
from adroit_publish.bundle.content import Inline
from adroit_publish.bundle.document import canonical_json
from adroit_publish.bundle.record import SCHEMA, Promoted
from adroit_publish.checkout import CONDA_ENVS, Checkout
from adroit_publish.config.conda_envs import CondaEnv
from adroit_publish.config.targets import Target
from adroit_publish.custody.repair import heal_or_refuse
from adroit_publish.custody.signature import admit_signed
from adroit_publish.edge.user import user_name
from adroit_publish.errors import ConfigError, RefusedError
from adroit_publish.places import (
    Places,
    ensure_images,
    env_repository,
    open_places,
    open_store,
    prove_access,
)
from adroit_publish.publish.verification import choose_verification
from adroit_publish.registry.image_reference import Tag
from adroit_publish.stores.bundle_store import BundleStore
from adroit_publish.stores.contract import Progress, unheard
from adroit_publish.stores.records import records
from adroit_publish.version import Version
from adroit_publish.versions.copying import (
    Carrier,
    CopiedLayer,
    Referrer,
    copy_layers,
    copy_referrers,
    read_referrers,
)
from adroit_publish.versions.proof import Proof, prove
from adroit_publish.versions.serve import find_published


@dataclass(frozen=True)
class Promotion:
    """What came of a promotion.

    Attributes:
        places: Where it is now: the store, and the repository of its image.
        layers: What became of each layer, bottom up.
        news: False where the destination had published it before.
        verified: How it was seen to load and predict; ``none`` where that was waived.
        findings: What should be known of it and did not stop it, a line each.
    """

    model_name: str
    version: str
    manifest_digest: str
    source: str
    destination: str
    places: tuple[str, ...]
    layers: tuple[CopiedLayer, ...]
    news: bool
    verified: str
    findings: tuple[str, ...]

    def sent_bytes(self, place: str) -> int:
        """Returns how many bytes of layers were sent to ``place``."""
        return sum(layer.size_bytes for layer in self.layers if layer.sent.get(place))

    def as_dict(self) -> dict[str, Any]:
        """Returns it as JSON values."""
        return asdict(self)


def promote(
    checkout: Checkout,
    name: str,
    source: Target,
    destination: Target,
    environ: Mapping[str, str],
    progress: Progress = unheard,
    *,
    verify: str | None = None,
) -> Promotion:
    """Copies a version from one target to another; the same again copies what is missing.

    Args:
        checkout: The checkout; its conda_envs.yaml tells where the destination keeps the env.
        name: The version, or a flavor that has it.
        environ: The environment; says which AWS profile it speaks for.
        progress: Told of bytes that are there, copied just now or before.
        verify: ``image``, ``process`` or ``none``; None for the destination's own.

    Raises:
        ConfigError: The source has no such version, both targets are one, or the destination has
            no such way of verification.
        RefusedError: The version is not signed as the destination demands; the credentials are not
            the destination's; a layer of the env cannot be had there by digest; an image is wanted
            of a version without a base, or the other way.
        StoreError: A place failed; the same again goes on.
        VerificationError: Something at the source is damaged, or the version does not load or
            predict; nothing became visible.
    """
    _check_two(checkout, source, destination)
    source = _as_demanded(_as_itself(source, environ), destination)
    version, here, referrers = _read(checkout, name, source)
    published = version.published
    admit_signed(here.store, published, name if name in checkout.flavors else None)
    there = open_places(destination, version.model_name)
    _check_kind(version, destination, _flavor_of(checkout, name, version))
    kind = choose_verification(verify, destination)
    prove_access(destination)
    env = env_repository(destination, known_env(checkout, version.bundle.conda_env_name))
    carrier = Carrier(here, there, tuple(filter(None, (env, here.images))))
    _check_base(carrier, version, destination)
    ensure_images(destination, version.model_name)
    layers = copy_layers(carrier, version.manifest, progress)
    _put_documents(version, there)
    proof = prove(checkout, version, there, destination, kind)
    copy_referrers(referrers, published, there)
    _attach_record(version, source, destination, here, there, proof)
    if there.images and (again := there.store.find(version.model_name, version.name)):
        # Nothing was sent in the place of what the registry says that it has.
        heal_or_refuse(there, Version(there.store, again), destination.name, reread_images=True)
    news = _commit(version, there)
    return Promotion(
        version.model_name,
        version.name,
        str(published.manifest.digest),
        source.name,
        destination.name,
        tuple(place.location for place in there.all),
        layers,
        news,
        proof.verification.how,
        tuple(finding.what for finding in proof.verification.findings),
    )


def _read(
    checkout: Checkout, name: str, source: Target
) -> tuple[Version, Places, tuple[Referrer, ...]]:
    """Reads every document of a version, verified, before anything is copied."""
    published = find_published(checkout.flavors, open_store(source), name)
    here = open_places(source, published.model_name)
    version = Version(here.store, published)
    _ = version.config_bytes, version.bundle
    return version, here, read_referrers(here, published)


def _put_documents(version: Version, there: Places) -> None:
    """Stores config and manifest, by digest, the version still without a name."""
    published, config = version.published, Inline(version.config_bytes)
    there.store.put_blob(version.manifest.config, config)
    there.store.put_blob(published.manifest, Inline(version.manifest_bytes))
    if there.images:
        there.images.put_blob(version.manifest.config, config)
        there.images.put_manifest(published.manifest, version.manifest_bytes)


def _commit(version: Version, there: Places) -> bool:
    """Gives the version its name: the registry's tag first, ``index.json`` last."""
    published = version.published
    if there.images:
        there.images.tag(Tag(published.version), published.manifest, version.manifest_bytes)
    return there.store.commit(published.model_name, published.version, published.manifest)


def _check_two(checkout: Checkout, source: Target, destination: Target) -> None:
    if source.name == destination.name:
        others = sorted(checkout.targets.by_name.keys() - {source.name})
        raise ConfigError(
            "A version is promoted from one target to another.",
            got=f"--from {source.name} --to {destination.name}",
            wanted=f"--to one of: {', '.join(others) or '(there is no other target)'}",
        )


def _as_demanded(source: Target, destination: Target) -> Target:
    """Returns the source with what the destination demands: what it demands itself decides not."""
    return replace(
        source,
        require_signature=destination.require_signature,
        signature_max_age_s=destination.signature_max_age_s,
    )


def _as_itself(source: Target, environ: Mapping[str, str]) -> Target:
    """Returns the source as seen by the profile that means it, unless the environment's does."""
    if not source.profiles or environ.get("AWS_PROFILE") in source.profiles:
        return source
    return replace(source, profile=source.profiles[0])


def _flavor_of(checkout: Checkout, name: str, version: Version) -> str:
    """Returns the flavor that was named, or that has the version; else what stands for one."""
    flavors = checkout.flavors
    having = (flavor.name for flavor in flavors.values() if flavor.version == version.name)
    return name if name in flavors else next(having, "FLAVOR")


def _check_kind(version: Version, destination: Target, flavor: str) -> None:
    """Refuses what would be an image without a base, or an image without a registry."""
    base = version.manifest.base_layers
    if bool(base) == (destination.images is not None):
        return
    if base:
        what = "The version lies on its conda env's image, and the destination has no images."
        got, wanted = f"{len(base)} layers of the env", "a target with `images`"
        next_step = "promote it to a target with `images`; its files alone: adroit_publish pull"
    else:
        what = "The version has no base, so it cannot be an image that runs."
        got, wanted = "a bundle from a target without images", "one that lies on its env's image"
        next_step = (
            f"publish its run there: python publish_mlflow_model_flow.py run --flavor={flavor} "
            f"--mlflow-run-id={version.bundle.run_id} --target={destination.name}"
        )
    where = f"{version.name}, target {destination.name}"
    raise RefusedError(what, where=where, got=got, wanted=wanted, next_step=next_step)


def known_env(checkout: Checkout, env_name: str) -> CondaEnv | None:
    """Returns a conda env of the checkout; None where it has none of that name, or no envs."""
    if not (checkout.root / CONDA_ENVS).is_file():
        return None
    return checkout.conda_envs.get(env_name)


def _check_base(carrier: Carrier, version: Version, destination: Target) -> None:
    base, record = version.manifest.base_layers, version.bundle
    missing = [layer for layer in base if not carrier.can_have(layer)]
    if missing:
        looked = [repository.location for repository in carrier.repositories]
        raise RefusedError(
            "The conda env's base cannot be had by its digest.",
            where=f"conda env {record.conda_env_name}, {record.conda_env_digest}",
            got=f"{len(missing)} of {len(base)} layers are in none of: "
            f"{', '.join(looked) or '(no repository)'}",
            wanted="\n".join(str(layer.digest) for layer in missing),
            next_step=f"copy that image, by digest, to the registry of target {destination.name} "
            "(skopeo copy --preserve-digests), then the same command again",
        )


def _attach_record(
    version: Version,
    source: Target,
    destination: Target,
    here: Places,
    there: Places,
    proof: Proof,
) -> None:
    """Adds who promoted it and when, once for each source, and what was seen of it for that."""
    published, key = version.published, destination.signing_key
    promoted = Promoted(source.name, destination.name, tuple(p.location for p in here.all))
    before = [
        record
        for record in records(BundleStore(there.store.objects), published)  # signed or not
        if record.promoted == promoted
        and (not proof.made_now or record.verification == proof.verification)
    ]
    record = before[0].document if before else {
        "schema": SCHEMA,
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "who": user_name(),
        "host": platform.node(),
        "model_name": published.model_name,
        "version": published.version,
        "manifest_digest": str(published.manifest.digest),
        "target": destination.name,
        "promoted": promoted.as_dict(),
        **({"verification": proof.verification.as_dict()} if proof.made_now else {}),
    }  # fmt: skip
    data = canonical_json(record)
    vouched = attest(data, proof.verification, version.bundle, key) if key and not before else ()
    there.attach(published.model_name, published.version, published.manifest, data, vouched)
