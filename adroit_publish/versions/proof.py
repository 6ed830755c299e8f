"""The proof that a version loads and predicts, before it gets its name at another target.

What this machine saw of exactly this manifest counts; a record alone does not, for whoever can
write to a store can write one. Otherwise the version is run at the destination: its image from
there, or in a sandbox here what the destination's store holds.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from adroit_publish.bundle.carried import serving_python
from adroit_publish.bundle.record import Verification
from adroit_publish.checkout import Checkout
from adroit_publish.config.targets import Target
from adroit_publish.gates.container import predict_in_image
from adroit_publish.gates.prediction import predict_in_sandbox
from adroit_publish.places import Places, docker_login, docker_reference
from adroit_publish.publish.seen_here import note_seen, proven
from adroit_publish.stores.records import records
from adroit_publish.version import Version
from adroit_publish.versions.pull import pull


@dataclass(frozen=True)
class Proof:
    """What is known of a version that is to be promoted, and whether it was looked at just now."""

    verification: Verification
    made_now: bool


def prove(
    checkout: Checkout, version: Version, there: Places, destination: Target, kind: str
) -> Proof:
    """Returns a proof of a version whose bytes the destination holds, made now if need be.

    Raises:
        ConfigError: The model's config.yaml is not what it has to be.
        VerificationError: It does not load or predict.
        RefusedError: There is no engine, or no sandbox, to run it in.
        StoreError: The version could not be had.
    """
    published, digest, root = version.published, version.published.manifest.digest, checkout.root
    known = (*version.records, *records(there.store, published))
    if seen := proven(known, root, digest, kind, destination):
        return Proof(seen, made_now=False)
    if kind == "none":
        return Proof(Verification(), made_now=True)
    model_env = _model_env(checkout, version.model_name)
    if kind == "image":
        assert there.images is not None  # `choose_verification` saw to it
        verification = predict_in_image(
            docker_reference(there.images, digest),
            python=serving_python(version.image_config),
            auth=docker_login(destination, there.images),
            model_env=model_env,
        )
    else:
        with tempfile.TemporaryDirectory(prefix="adroit-promote-") as scratch:
            bundle = Path(scratch, "bundle")
            pull(there.store, published, bundle)
            verification = predict_in_sandbox(
                bundle, allow_plain=destination.on_this_machine, model_env=model_env
            )
    verification = replace(verification, model_env=tuple(sorted(model_env)))
    note_seen(root, digest, verification)
    return Proof(verification, made_now=True)


def _model_env(checkout: Checkout, model_name: str) -> Mapping[str, str]:
    """Returns the environment variables that the model's config.yaml sets for a verification."""
    for flavor in checkout.flavors.values():
        if PurePosixPath(flavor.config).parent.name == model_name:  # as config.yaml has to say
            return checkout.project(flavor).env
    return {}
