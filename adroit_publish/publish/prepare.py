"""The first step of a publish: everything that can be refused is refused here, before any work.

Each flavor becomes a ``Job`` (to be published), a ``Release`` without ``news`` (nothing to do) or a
``Failure``. A mistake in flavors.yaml, in the targets or in the command line is everybody's
and raises; what is wrong with one flavor does not stop the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from adroit_publish.bundle.version_names import RunId
from adroit_publish.checkout import Checkout
from adroit_publish.config.flavors import Flavor, find_flavor
from adroit_publish.config.gates import judge_gates, read_acceptances
from adroit_publish.custody.admission import admit_gates, admit_lineage
from adroit_publish.custody.repair import heal_or_refuse
from adroit_publish.custody.signature import check_signing_key
from adroit_publish.decide import (
    Cannot,
    InOtherTarget,
    InRollover,
    NoVersion,
    OnHold,
    Publish,
    Republish,
)
from adroit_publish.errors import ConfigError, PublishError, RefusedError
from adroit_publish.mlflow.model import resolve_model
from adroit_publish.places import ensure_images, open_places, open_store, prove_access
from adroit_publish.publish.release import Failure, Options, PublishJob, PublishOptions, Release
from adroit_publish.publish.source import check_source_secrets
from adroit_publish.publish.survey import Standing, Survey
from adroit_publish.publish.verification import choose_verification, verification_kind

Prepared = PublishJob | Release | Failure


def pending(checkout: Checkout) -> tuple[str, ...]:
    """Returns the flavors that wait to be published: a run id for a version, and no hold."""
    flavors = checkout.flavors.values()
    return tuple(f.name for f in flavors if isinstance(f.version, RunId) and f.hold is None)


AnyOptions = TypeVar("AnyOptions", bound=Options)


def held(checkout: Checkout) -> dict[str, str]:
    """Returns why flavors are held, by name: ``--pending`` and ``--stale`` leave these alone."""
    return {f.name: f.hold for f in checkout.flavors.values() if f.hold is not None}


def admit(checkout: Checkout, options: Options) -> tuple[Survey, str]:
    """Returns the survey of the target that is meant, which can be published to; and how to verify.

    Raises:
        ConfigError: There is no such target, or no such way of verification.
        RefusedError: The credentials are not the target's, its store cannot be used, no Docker
            engine answers where the image is to be verified, or the target would not accept what it
            signs itself.
        StoreError: The target's store could not be reached.
    """
    target = checkout.target(options.target)
    verify = choose_verification(options.verify, target)
    prove_access(target)
    check_signing_key(target)
    survey = Survey(
        checkout,
        target,
        open_store(target),
        allow_dirty=options.allow_dirty,
        despite_rollover=options.despite_rollover or options.into_another_flavor,
    )
    return survey, verify


def prepare(
    checkout: Checkout, names: Sequence[str], options: PublishOptions
) -> tuple[Prepared, ...]:
    """Returns what has to be done for each of the flavors, once each, in the order given.

    Raises:
        ConfigError: An unknown flavor or target, or options that do not go together.
        RefusedError, StoreError: As ``admit``.
    """
    flavors = [find_flavor(checkout.flavors, name) for name in dict.fromkeys(names)]
    _check_options(options, flavors)
    survey, verify = admit(checkout, options)
    return tuple(_prepare_one(survey, flavor, verify, options) for flavor in flavors)


def check(checkout: Checkout, names: Sequence[str], options: PublishOptions) -> tuple[Failure, ...]:
    """Returns which flavors ``prepare`` would fail, as far as the checkout's files tell.

    Raises ConfigError as ``prepare``.
    """
    flavors = [find_flavor(checkout.flavors, name) for name in dict.fromkeys(names)]
    _check_options(options, flavors)

    def check_version(flavor: Flavor) -> None:
        if flavor.version is None and options.run_id is None:
            raise _no_version(flavor)

    return check_files(checkout, flavors, options, check_version)


def check_files(
    checkout: Checkout,
    flavors: Sequence[Flavor],
    options: Options,
    check_version: Callable[[Flavor], None],
) -> tuple[Failure, ...]:
    """Returns which flavors cannot be worked on, whatever the target and the run are like.

    Raises:
        ConfigError: There is no such target, or no such way of verification.
    """
    verification_kind(options.verify, checkout.target(options.target))
    read_acceptances(options.accept_gates)

    def failure(flavor: Flavor) -> Failure | None:
        try:
            if flavor.hold is not None and not options.despite_hold:
                raise _held(flavor, flavor.hold)
            check_version(flavor)
            checkout.project(flavor)
            checkout.environment(checkout.conda_env(flavor))
        except PublishError as error:
            return Failure(flavor.name, error)
        return None

    return tuple(filter(None, map(failure, flavors)))


def _check_options(options: PublishOptions, flavors: Sequence[Flavor]) -> None:
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


def _prepare_one(survey: Survey, flavor: Flavor, verify: str, options: PublishOptions) -> Prepared:
    try:
        run_id = options.run_id and RunId(options.run_id)
        wanted = replace(flavor, version=run_id) if run_id else flavor
        standing = look(survey, wanted, options)
        match standing.decision:
            case NoVersion():
                raise _no_version(flavor)
            case Publish(run_id):
                return _job(survey, flavor, verify, run_id, options)
            case Republish(changes):
                raise RefusedError(
                    f"Flavor {flavor.name} is published, and its source has changed since.",
                    where=f"{flavor.version} in {survey.store.location}",
                    got="\n".join(changes.lines()),
                    next_step=f"python republish.py --flavor {flavor.name} "
                    f"--target {survey.target.name}",
                )
            case _:
                return up_to_date(survey, standing)
    except PublishError as error:
        return Failure(flavor.name, error)


def look(survey: Survey, flavor: Flavor, options: Options) -> Standing:
    """Returns what has to be done about a flavor, where that may be done.

    Raises:
        RefusedError: It is held, and the user does not say to go on.
        PublishError: It cannot be judged, or its version is of another target.
    """
    standing = survey.look(replace(flavor, hold=None) if options.despite_hold else flavor)
    match standing.decision:
        case OnHold(why):
            raise _held(flavor, why)
        case InRollover(rolling):
            raise rolling
        case InOtherTarget(error) | Cannot(error):
            raise error
    return standing


def _no_version(flavor: Flavor) -> ConfigError:
    project = flavor.config.rpartition("/")[0]
    return ConfigError(
        f"Flavor {flavor.name} has no version.",
        where=f"flavors.yaml:{flavor.line}",
        wanted="an MLflow run id, 32 hex digits",
        next_step=f"python {project}/flow.py run, which prints the command;\n"
        "or give a run that is there: by --mlflow-run-id, or as the flavor's version",
    )


def _held(flavor: Flavor, why: str) -> RefusedError:
    return RefusedError(
        f"Flavor {flavor.name} is held.",
        where=f"flavors.yaml:{flavor.line}",
        got=why,
        next_step=(
            f"python -m adroit_publish unhold {flavor.name} once the reason is gone, "
            "or add --despite-hold for this once"
        ),
    )


def _job(
    survey: Survey, flavor: Flavor, verify: str, run_id: RunId, options: PublishOptions
) -> PublishJob:
    target, project = survey.target, survey.checkout.project(flavor)
    acceptances = read_acceptances(options.accept_gates)
    env, source = survey.env(flavor), survey.source(flavor)
    check_source_secrets(flavor, project, source)
    model = resolve_model(
        target.tracking_uri, run_id, flavor.artifact, source_profile=target.source_profile
    )
    earlier, where = survey.earlier(project.model_name), f"run {run_id}"
    accept = options.accept_new_lineage
    admit_lineage(model.lineage, earlier.lineages, where=where, accept=accept)
    gates = judge_gates(project.run_gates, model.metrics, earlier.live, acceptances)
    admit_gates(gates, where=where)
    ensure_images(target, project.model_name)
    return PublishJob(
        root=str(survey.checkout.root),
        flavor=flavor,
        project=project,
        env=env,
        target=target,
        commit=source.commit,
        verify=verify,
        options=gone_past(survey, flavor, options),
        live=earlier.live,
        model=model,
        lineages=earlier.lineages,
        moved_from=survey.env_before(flavor),
    )


def gone_past(survey: Survey, flavor: Flavor, options: AnyOptions) -> AnyOptions:
    """Returns the options with the live rollover that they go past, for the record."""
    rolling = survey.rollover(flavor) if options.despite_rollover else None
    return replace(options, went_past=(f"{rolling.where}: {rolling.got}",)) if rolling else options


def up_to_date(survey: Survey, standing: Standing) -> Release:
    """Returns the release of a flavor for which nothing has to be done but, maybe, to heal it.

    Raises:
        VerificationError: The version is not whole, and cannot be healed from here.
    """
    assert standing.opened is not None
    version = standing.opened.version
    places = open_places(survey.target, version.model_name)
    healed = heal_or_refuse(places, version, survey.target.name)
    return Release(
        flavor=standing.flavor.name,
        model_name=version.model_name,
        run_id=version.bundle.run_id,
        run_url=None,
        version=version.name,
        manifest_digest=str(version.published.manifest.digest),
        bundle_id=str(version.bundle.bundle_id),
        target=survey.target.name,
        places=tuple(place.location for place in places.all),
        warnings=healed,
    )
