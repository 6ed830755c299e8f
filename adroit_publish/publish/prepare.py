"""The first step of a publish: everything that can be refused is refused here, before any work.

Each flavor becomes a ``Job`` (to be published), a ``Release`` with ``news=False`` (nothing to do)
or a ``Failure``. A mistake in flavors.yaml, in the targets or in the command line is everybody's
and raises; what is wrong with one flavor does not stop the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adroit_publish.bundle.version_names import RunId
from adroit_publish.checkout import Checkout
from adroit_publish.config.flavors import Flavor, find_flavor
from adroit_publish.config.targets import Target
from adroit_publish.errors import ConfigError, PublishError, RefusedError
from adroit_publish.mlflow.model import resolve_model
from adroit_publish.places import ensure_images, open_store, prove_access
from adroit_publish.publish.env import moved_env, resolve_env
from adroit_publish.publish.release import Failure, Options, PublishJob, Release
from adroit_publish.publish.source import project_source
from adroit_publish.publish.standing import Standing, standing_of
from adroit_publish.publish.verification import choose_verification
from adroit_publish.stores.bundle_store import BundleStore

Prepared = PublishJob | Release | Failure


def pending(checkout: Checkout) -> tuple[str, ...]:
    """Returns the flavors that wait to be published: a run id for a version, and no hold."""
    flavors = checkout.flavors.values()
    return tuple(f.name for f in flavors if isinstance(f.version, RunId) and f.hold is None)


def held(checkout: Checkout) -> dict[str, str]:
    """Returns why flavors are held, by name: ``--pending`` and ``--stale`` leave these alone."""
    return {f.name: f.hold for f in checkout.flavors.values() if f.hold is not None}


@dataclass(frozen=True)
class Admitted:
    """The target, once it is shown that it may be written to.

    Attributes:
        target: Where it goes.
        store: The target's bundle store.
        verify: How bundles are verified: ``image``, ``process`` or ``none``.
    """

    target: Target
    store: BundleStore
    verify: str


def admit(checkout: Checkout, options: Options) -> Admitted:
    """Returns the target that is meant, having proved that it can be published to.

    Raises:
        ConfigError: There is no such target, or no such way of verification.
        RefusedError: The credentials are not the target's, its store cannot be used, or no Docker
            engine answers where the image is to be verified.
        StoreError: The target's store could not be reached.
    """
    target = checkout.target(options.target)
    verify = choose_verification(options.verify, target)
    prove_access(target)
    return Admitted(target, open_store(target), verify)


def prepare(
    checkout: Checkout,
    names: Sequence[str],
    options: Options,
) -> tuple[Prepared, ...]:
    """Returns what has to be done for each of the flavors, in the order given.

    Args:
        checkout: The checkout.
        names: Flavors, each once.
        options: What was asked.

    Raises:
        ConfigError: An unknown flavor or target, or options that do not go together.
        RefusedError, StoreError: As ``admit``.
    """
    flavors = [find_flavor(checkout.flavors, name) for name in dict.fromkeys(names)]
    _check_options(options, flavors)
    admitted = admit(checkout, options)
    return tuple(_prepare_one(checkout, flavor, admitted, options) for flavor in flavors)


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
    try:
        _ = options.run_id and RunId(options.run_id)
    except ValueError as error:
        raise ConfigError(
            "--mlflow-run-id is no MLflow run id.",
            got=options.run_id,
            wanted="32 lower-case hex digits",
        ) from error


def _prepare_one(
    checkout: Checkout, flavor: Flavor, admitted: Admitted, options: Options
) -> Prepared:
    try:
        refuse_held(flavor, options)
        run_id = RunId(options.run_id) if options.run_id else flavor.version
        if run_id is None:
            raise ConfigError(
                f"Flavor {flavor.name} has no version.",
                where=f"flavors.yaml:{flavor.line}",
                wanted="an MLflow run id, 32 hex digits",
                next_step="write the run id as its version, or add --mlflow-run-id=RUN_ID",
            )
        if isinstance(run_id, RunId):
            return _job(checkout, flavor, admitted, run_id, options)
        return _nothing_to_do(checkout, flavor, admitted, options)
    except PublishError as error:
        return Failure(flavor.name, error)


def refuse_held(flavor: Flavor, options: Options) -> None:
    """Raises RefusedError for a flavor that is held, unless the user says to go on."""
    if flavor.hold is not None and not options.despite_hold:
        raise RefusedError(
            f"Flavor {flavor.name} is held.",
            where=f"flavors.yaml:{flavor.line}",
            got=flavor.hold,
            next_step=(
                f"python -m adroit_publish unhold {flavor.name} once the reason is gone, "
                "or add --despite-hold for this once"
            ),
        )


def _job(
    checkout: Checkout, flavor: Flavor, admitted: Admitted, run_id: RunId, options: Options
) -> PublishJob:
    target = admitted.target
    project = checkout.project(flavor)
    env = resolve_env(checkout, flavor, target)
    source = project_source(checkout.root, flavor, project, allow_dirty=options.allow_dirty)
    model = resolve_model(
        target.tracking_uri, run_id, flavor.artifact, source_profile=target.source_profile
    )
    ensure_images(target, project.model_name)
    return PublishJob(
        root=str(checkout.root),
        flavor=flavor,
        project=project,
        env=env,
        target=target,
        commit=source.commit,
        verify=admitted.verify,
        options=options,
        model=model,
        moved_from=moved_env(checkout, admitted.store, project.model_name, env),
    )


def _nothing_to_do(
    checkout: Checkout, flavor: Flavor, admitted: Admitted, options: Options
) -> Release:
    target, store = admitted.target, admitted.store
    standing = standing_of(checkout, flavor, target, store, allow_dirty=options.allow_dirty)
    if standing.changes.stale:
        raise RefusedError(
            f"Flavor {flavor.name} is published, and its source has changed since.",
            where=f"{flavor.version} in {store.location}",
            got="\n".join(standing.changes.lines()),
            next_step=f"python republish.py --flavor {flavor.name} --target {target.name}",
        )
    return up_to_date(flavor, target, store, standing)


def up_to_date(flavor: Flavor, target: Target, store: BundleStore, standing: Standing) -> Release:
    """Returns the release of a flavor for which nothing has to be done."""
    published = standing.published
    return Release(
        flavor=flavor.name,
        expected=published.version,
        model_name=published.model_name,
        run_id=standing.record.run_id,
        run_url=None,
        version=published.version,
        manifest_digest=str(published.manifest.digest),
        bundle_id=str(standing.record.bundle_id),
        target=target.name,
        places=(store.location,),
        news=False,
    )
