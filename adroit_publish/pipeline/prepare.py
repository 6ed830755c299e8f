"""The first step of a publish: everything that can be refused is refused here, before any work.

Each flavor becomes a ``Job`` (to be published), a ``Release`` with ``news=False`` (nothing to do)
or a ``Failure``. A mistake in flavors.yaml, in the targets or in the command line is everybody's
and raises; what is wrong with one flavor does not stop the others.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from adroit_publish.bundle.content import Concatenation
from adroit_publish.bundle.digest import sha256_of
from adroit_publish.config.flavors import Flavor, find_flavor, is_run_id
from adroit_publish.config.targets import Target
from adroit_publish.errors import ConfigError, PublishError, RefusedError
from adroit_publish.pipeline.environment import moved_env, resolve_env
from adroit_publish.pipeline.places import ensure_images, open_store, prove_access
from adroit_publish.pipeline.release import Failure, Job, Options, Release
from adroit_publish.pipeline.source import project_source
from adroit_publish.pipeline.verification import choose_verification
from adroit_publish.pipeline.workspace import Workspace
from adroit_publish.plan import source_changes
from adroit_publish.sources.mlflow_model import resolve_model
from adroit_publish.stores.bundle_store import BundleStore

Prepared = Job | Release | Failure


def pending(workspace: Workspace) -> tuple[str, ...]:
    """Returns the flavors that wait to be published: those whose version is a run id."""
    flavors = workspace.flavors.values()
    return tuple(flavor.name for flavor in flavors if is_run_id(flavor.version))


def prepare(
    workspace: Workspace,
    names: Sequence[str],
    options: Options,
    environ: Mapping[str, str] | None = None,
) -> tuple[Prepared, ...]:
    """Returns what has to be done for each of the flavors, in the order given.

    Args:
        workspace: The checkout.
        names: Flavors, each once.
        options: What was asked.
        environ: The environment; the process's own by default.

    Raises:
        ConfigError: An unknown flavor or target, or options that do not go together.
        RefusedError: The credentials are not the target's, its store cannot be used, or no Docker
            engine answers where the image is to be verified.
        StoreError: The target's store could not be reached.
    """
    flavors = [find_flavor(workspace.flavors, name) for name in dict.fromkeys(names)]
    _check_options(options, flavors)
    target = workspace.target(options.target, os.environ if environ is None else environ)
    verify = choose_verification(options.verify, target)
    prove_access(target)
    store = open_store(target)
    return tuple(
        _prepare_one(workspace, flavor, target, store, verify, options) for flavor in flavors
    )


def _check_options(options: Options, flavors: Sequence[Flavor]) -> None:
    if not flavors:
        raise ConfigError(
            "No flavor is named.", next_step="add --flavor=NAME, or --pending for all that wait"
        )
    if options.run_id is not None and len(flavors) != 1:
        raise ConfigError(
            "--mlflow-run-id goes with one flavor.",
            got=", ".join(flavor.name for flavor in flavors),
            next_step="name one flavor, or write each run id into flavors.yaml",
        )
    if options.run_id is not None and not is_run_id(options.run_id):
        raise ConfigError(
            "--mlflow-run-id is no MLflow run id.",
            got=options.run_id,
            wanted="32 lower-case hex digits",
        )


def _prepare_one(
    workspace: Workspace,
    flavor: Flavor,
    target: Target,
    store: BundleStore,
    verify: str,
    options: Options,
) -> Prepared:
    try:
        if flavor.hold is not None:
            raise RefusedError(
                f"Flavor {flavor.name} is held.",
                where=f"flavors.yaml:{flavor.line}",
                got=flavor.hold,
                next_step="remove its `hold` line once the reason is gone",
            )
        run_id = options.run_id or flavor.version
        if run_id is None:
            raise ConfigError(
                f"Flavor {flavor.name} has no version.",
                where=f"flavors.yaml:{flavor.line}",
                wanted="an MLflow run id, 32 hex digits",
                next_step="write the run id as its version, or add --mlflow-run-id=RUN_ID",
            )
        if is_run_id(run_id):
            return _job(workspace, flavor, target, store, run_id, verify, options)
        return _nothing_to_do(workspace, flavor, run_id, target, store, options)
    except PublishError as error:
        return Failure(flavor.name, error)


def _job(
    workspace: Workspace,
    flavor: Flavor,
    target: Target,
    store: BundleStore,
    run_id: str,
    verify: str,
    options: Options,
) -> Job:
    project = workspace.project(flavor)
    env = resolve_env(workspace, flavor, target)
    source = project_source(workspace.root, flavor, project, allow_dirty=options.allow_dirty)
    model = resolve_model(
        target.tracking_uri, run_id, flavor.artifact, source_profile=target.source_profile
    )
    ensure_images(target, project.model_name)
    return Job(
        root=str(workspace.root),
        flavor=flavor,
        project=project,
        env=env,
        moved_from=moved_env(workspace, store, project.model_name, env),
        target=target,
        model=model,
        commit=source.commit,
        verify=verify,
        options=options,
    )


def _nothing_to_do(
    workspace: Workspace,
    flavor: Flavor,
    version: str,
    target: Target,
    store: BundleStore,
    options: Options,
) -> Release:
    project = workspace.project(flavor)
    conda_env = workspace.conda_env(flavor)
    published = store.find(project.model_name, version)
    if published is None:
        raise _unknown_version(workspace, flavor, project.model_name, version, target)
    bundle_id, document = store.bundle_document(published)
    source = project_source(workspace.root, flavor, project, allow_dirty=options.allow_dirty)
    wanted = {
        file.path: (str(sha256_of(Concatenation((file.content,)))), file.executable)
        for file in source.files
    }
    if changes := source_changes(wanted, project.serve, conda_env.name, document):
        raise RefusedError(
            f"Flavor {flavor.name} is published, and its source has changed since.",
            where=f"{version} in {store.location}",
            got="\n".join(changes.lines()),
            next_step=(
                f"python publish_mlflow_model_flow.py run --flavor={flavor.name} "
                f"--mlflow-run-id={document['run_id']} publishes its run with this source; "
                f"python republish.py --flavor {flavor.name} will do it without the run, "
                "in a later release"
            ),
        )
    return Release(
        flavor=flavor.name,
        expected=version,
        model_name=project.model_name,
        run_id=str(document["run_id"]),
        run_url=None,
        version=version,
        manifest_digest=str(published.manifest.digest),
        bundle_id=str(bundle_id),
        target=target.name,
        places=(store.location,),
        news=False,
    )


def _unknown_version(
    workspace: Workspace, flavor: Flavor, model_name: str, version: str, target: Target
) -> PublishError:
    for other in workspace.targets.by_name.values():
        if other.name == target.name:
            continue
        try:
            store = open_store(other)
            published = store.find(model_name, version)
            run_id = published and store.bundle_document(published)[1]["run_id"]
        except PublishError:
            continue  # a store that cannot be asked does not know
        if run_id:
            return RefusedError(
                f"Version {version} of flavor {flavor.name} is of another target.",
                where=f"flavors.yaml:{flavor.line}",
                got=f"target {other.name} ({store.location}), from run {run_id}",
                wanted=f"a version in target {target.name}",
                next_step=(
                    f"python publish_mlflow_model_flow.py run --flavor={flavor.name} "
                    f"--target={target.name} --mlflow-run-id={run_id}"
                ),
            )
    return RefusedError(
        f"Version {version} of flavor {flavor.name} is in no store that could be asked.",
        where=f"flavors.yaml:{flavor.line}",
        wanted=f"a version in target {target.name} ({target.bundles}), or a run id",
        next_step=(
            f"add --target for the target it was published to, or publish its run "
            f"(its id starts with {version[1:9]}) with --mlflow-run-id"
        ),
    )
