"""The proof that a version loads and predicts, before it gets its name at another target.

What this machine saw of exactly this manifest counts; a record alone does not, for whoever can
write to a store can write one. Otherwise the version is run at the destination: its image from
there, or in a sandbox here what the destination's store holds. Either way its files, pulled from
there, pass the gate over their imports and are compared with the commit they were published from.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from adroit_publish.artifacts.pull import LocalFile
from adroit_publish.bundle.carried import serving_python
from adroit_publish.bundle.imports import BundleFinding, Imports
from adroit_publish.bundle.record import Verification
from adroit_publish.checkout import Checkout
from adroit_publish.config.project import Project
from adroit_publish.config.targets import Target
from adroit_publish.errors import ConfigError, SourceError
from adroit_publish.gates.closure import Served, check_closure
from adroit_publish.gates.container import predict_in_image
from adroit_publish.gates.left_out import check_left_out
from adroit_publish.gates.pickles.check import check_pickles, modules_of
from adroit_publish.gates.prediction import predict_in_sandbox
from adroit_publish.gates.secrets.check import check_secrets
from adroit_publish.git.history import blobs_of, file_at
from adroit_publish.places import Places, docker_login, docker_reference
from adroit_publish.publish.seen_here import note_seen, proven
from adroit_publish.stores.records import last_publish, records
from adroit_publish.version import Version
from adroit_publish.versions.pull import unpack


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
        VerificationError: It does not load or predict, imports what it does not hold, or holds a
            logged copy of what the checkout had.
        RefusedError: There is no engine, or no sandbox, to run it in; or it holds what looks like a
            secret, or a pickle that imports what it must not.
        StoreError: The version could not be had.
    """
    published, digest, root = version.published, version.published.manifest.digest, checkout.root
    known = (*version.records, *records(there.store, published))  # signed ones, if so demanded
    if seen := proven(known, root, digest, kind, destination):
        return Proof(seen, made_now=False)
    if kind == "none":
        return Proof(Verification(), made_now=True)
    project = _project_here(checkout, version.model_name)
    model_env = project.env if project else {}
    with tempfile.TemporaryDirectory(prefix="adroit-promote-") as scratch:
        bundle = Path(scratch, "bundle")
        unpack(there.store, published, bundle)
        imports, findings = _check_imports(checkout, version, bundle)
        if kind == "image":
            assert there.images is not None  # `choose_verification` saw to it
            seen = predict_in_image(
                docker_reference(there.images, digest),
                python=serving_python(version.image_config),
                auth=docker_login(destination, there.images),
                model_env=model_env,
            )
        else:
            seen = predict_in_sandbox(
                bundle, allow_plain=destination.on_this_machine, model_env=model_env
            )
    verification = replace(
        seen,
        imports=imports,
        findings=(*findings, *seen.findings),
        model_env=tuple(sorted(model_env)),
    )
    note_seen(root, digest, verification)
    return Proof(verification, made_now=True)


def _project(checkout: Checkout, model_name: str) -> Project | None:
    """Returns the model's config.yaml, which says what a verification needs and accepts."""
    for flavor in checkout.flavors.values():
        if PurePosixPath(flavor.config).parent.name == model_name:  # as config.yaml has to say
            return checkout.project(flavor)
    return None


def _project_here(checkout: Checkout, model_name: str) -> Project | None:
    """Returns the model's config.yaml as it is checked out; None where it is gone by now."""
    configs = (flavor.config for flavor in checkout.flavors.values())
    gone = [path for path in configs if not (checkout.root / path).exists()]
    if any(PurePosixPath(path).parent.name == model_name for path in gone):
        return None
    return _project(checkout, model_name)


@dataclass(frozen=True)
class _Published:
    """What a version is held to: of its commit the files, and config.yaml with what it accepted."""

    committed: Mapping[str, str] | None
    config: Project | None
    findings: tuple[BundleFinding, ...] = ()


def _published(checkout: Checkout, version: Version) -> _Published:
    """Returns what was published, as far as this clone has the commit; a finding says how far."""
    record = last_publish(version.records)
    commit = (record.commit if record else None) or ""
    here = _project_here(checkout, version.model_name)
    try:
        committed = blobs_of(checkout.root, commit) if commit else None
    except SourceError:
        committed = None
    if committed is None:
        what = (
            f"the commit {commit or None} is not in this clone: no module was compared with it, "
            "and the config.yaml that is checked out says what is accepted; git fetch "
            "--unshallow, or promote from a clone that has it"
        )
        return _Published(None, here, (BundleFinding("commit:unknown", what),))
    try:
        then = _project(
            Checkout(checkout.root, {}, lambda root, path: file_at(root, commit, path)),
            version.model_name,
        )
    except (ConfigError, SourceError):
        then = None
    if then is None:
        what = (
            f"the commit {commit[:12]} has no config.yaml of {version.model_name}: the one that is "
            f"checked out says what is accepted; commit it, and publish {version.model_name} again"
        )
        return _Published(committed, here, (BundleFinding("config:unknown", what),))
    return _Published(committed, then)


def _check_imports(
    checkout: Checkout, version: Version, bundle: Path
) -> tuple[Imports, tuple[BundleFinding, ...]]:
    """Returns what a pulled version imports, and what should be known of that.

    It is held to the commit that it was published from, not to what is checked out: a promotion
    sends a version. Where this clone lacks that commit, or the commit its config.yaml, a finding
    says so.
    """
    published = _published(checkout, version)
    config = published.config
    accept = config.accept if config else ()
    files = {
        path.relative_to(bundle).as_posix(): LocalFile(str(path), path.stat().st_size)
        for path in bundle.rglob("*")
        if path.is_file()
    }
    class_path = str((version.bundle.serve.get("handler") or {}).get("class_path", ""))
    served = Served(files, version.model_name, class_path, accept)
    imports, findings = check_closure(served, None)
    packed = {path: file for path, file in files.items() if "/" in path}  # not bundle.json
    secrets = check_secrets(packed, config.allow_secrets if config else ())
    own = modules_of([*served.below("source"), *served.below("model/code")])
    pickled, waived = check_pickles(files, own, config.allow_pickle_globals if config else ())
    imports = replace(imports, pickled=pickled)
    findings = (*published.findings, *findings, *waived, *secrets)
    if published.committed is None:
        return imports, findings
    left_out = check_left_out(imports, files, published.committed, version.model_name, accept)
    return imports, (*findings, *left_out)
