"""How a flavor that is published stands: what its version holds against what the checkout says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from adroit_publish.bundle.content import Concatenation, Readable
from adroit_publish.bundle.digest import sha256_of
from adroit_publish.bundle.document import BundleRecord
from adroit_publish.bundle.layer import ROOT
from adroit_publish.bundle.version_names import PublishedVersion
from adroit_publish.checkout import Checkout
from adroit_publish.config.flavors import Flavor
from adroit_publish.config.project import Project
from adroit_publish.config.targets import Target
from adroit_publish.decide import Changes, Files, changes_since
from adroit_publish.errors import ConfigError, PublishError, RefusedError
from adroit_publish.git.source import Snapshot
from adroit_publish.places import open_store
from adroit_publish.publish.source import project_source, runtime_recipe
from adroit_publish.stores.bundle_store import BundleStore, Published


class OfAnotherTarget(RefusedError):
    """The flavor's version is not in this target's store."""


@dataclass(frozen=True)
class Standing:
    """A published flavor.

    Attributes:
        project: Its parsed config.yaml.
        published: Its version, in the target's store.
        record: The version's ``bundle.json``.
        source: What would be packed now.
        changes: How that, the serve section and the env's name differ from the version.
    """

    project: Project
    published: Published
    record: BundleRecord
    source: Snapshot
    changes: Changes


def standing_of(
    checkout: Checkout, flavor: Flavor, target: Target, store: BundleStore, *, allow_dirty: bool
) -> Standing:
    """Returns how a flavor stands whose version is a published one.

    Raises:
        ConfigError: Its config.yaml is not what it has to be, or names another model than the
            version's; or there is no such conda env.
        OfAnotherTarget: Its version is not in this store; the message says where it is known.
        SourceError: Its source cannot be packed.
        StoreError: The store failed.
        VerificationError: The version is damaged, or of a schema that this program does not know.
    """
    assert isinstance(flavor.version, PublishedVersion)
    project = checkout.project(flavor)
    checkout.conda_env(flavor)  # which has to be there
    published = store.find(project.model_name, flavor.version)
    if published is None:
        raise _not_here(checkout, flavor, project.model_name, flavor.version, target, store)
    record = store.bundle_record(published)
    source = project_source(checkout.root, flavor, project, allow_dirty=allow_dirty)
    changes = changes_since(
        _digests((file.path, file.content, file.executable) for file in source.files),
        _runtime(),
        project.serve,
        flavor.conda_env,
        record,
    )
    return Standing(project, published, record, source, changes)


def _runtime() -> Files:
    prefix = f"{ROOT}/runtime/"
    files = runtime_recipe().files
    return _digests((f.path.removeprefix(prefix), f.content, f.executable) for f in files)


def _digests(files: Iterable[tuple[str, Readable, bool]]) -> Files:
    return {
        path: (str(sha256_of(Concatenation((content,)))), executable)
        for path, content, executable in files
    }


def _not_here(
    checkout: Checkout,
    flavor: Flavor,
    model_name: str,
    version: PublishedVersion,
    target: Target,
    store: BundleStore,
) -> PublishError:
    where = f"flavors.yaml:{flavor.line}"
    for other_model in store.models():
        if other_model != model_name and store.find(other_model, version):
            return ConfigError(
                f"Version {version} of flavor {flavor.name} is of another model.",
                where=where,
                got=f"a version of {other_model} in target {target.name}",
                wanted=f"a version of {model_name}, which {flavor.config} names",
                next_step="mend the flavor's `config` or its `version`",
            )
    for other in checkout.targets.by_name.values():
        if other.name == target.name:
            continue
        try:
            elsewhere = open_store(other)
            published = elsewhere.find(model_name, version)
            run_id = published and elsewhere.bundle_record(published).run_id
        except PublishError:
            continue  # a store that cannot be asked does not know
        if run_id:
            return OfAnotherTarget(
                f"Version {version} of flavor {flavor.name} is of another target.",
                where=where,
                got=f"target {other.name} ({elsewhere.location}), from run {run_id}",
                wanted=f"a version in target {target.name}",
                next_step=(
                    f"python -m adroit_publish promote {version} --from {other.name} "
                    f"--to {target.name}, or publish its run: "
                    f"python publish_mlflow_model_flow.py run --flavor={flavor.name} "
                    f"--target={target.name} --mlflow-run-id={run_id}"
                ),
            )
    return OfAnotherTarget(
        f"Version {version} of flavor {flavor.name} is in no store that could be asked.",
        where=where,
        wanted=f"a version in target {target.name} ({target.bundles}), or a run id",
        next_step=(
            f"add --target for the target it was published to, or publish its run "
            f"(its id starts with {version.run_id_start}) with --mlflow-run-id"
        ),
    )
