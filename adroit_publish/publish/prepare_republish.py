"""The first step of a republish: what differs from each version, and whether it can be made again.

Each flavor becomes a ``RepublishJob``, or as in ``prepare`` a ``Release`` or a ``Failure``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from adroit_publish.bundle.version_names import PublishedVersion
from adroit_publish.checkout import Checkout
from adroit_publish.config.flavors import Flavor, find_flavor, publish_command
from adroit_publish.config.names import name_problem
from adroit_publish.config.project import Project
from adroit_publish.custody.rolled_back import RolledBack, refuse_rolled_back
from adroit_publish.decide import (
    EnvMoved,
    Judged,
    NotImported,
    NoVersion,
    OfAnotherTarget,
    Publish,
    Republish,
    RollingOver,
    UpToDate,
)
from adroit_publish.errors import ConfigError, PublishError, RefusedError
from adroit_publish.places import ensure_images
from adroit_publish.publish.env import carried_env
from adroit_publish.publish.prepare import admit, check_files, gone_past, look, up_to_date
from adroit_publish.publish.release import (
    EnvReference,
    Failure,
    Release,
    RepublishJob,
    RepublishOptions,
)
from adroit_publish.publish.republish import bundle_to_be
from adroit_publish.publish.source import check_source_secrets
from adroit_publish.publish.survey import Standing, Survey, accept_line

Prepared = RepublishJob | Release | Failure
THREADS = 8


class NothingImportsIt(RefusedError):
    """What changed is imported by nothing, so that a republish would change no answer."""


def prepare_republish(
    checkout: Checkout, names: Sequence[str], options: RepublishOptions
) -> tuple[Prepared, ...]:
    """Returns what has to be done for each of the flavors; raises as ``prepare``."""
    flavors = [find_flavor(checkout.flavors, name) for name in dict.fromkeys(names)]
    _check_options(options, flavors)
    return _prepare_all(*admit(checkout, options), flavors, options)


def check_republish(
    checkout: Checkout, names: Sequence[str], options: RepublishOptions
) -> tuple[Failure, ...]:
    """Returns which flavors cannot be republished, as far as the checkout's files tell.

    Raises ConfigError as ``prepare_republish``.
    """
    flavors = [find_flavor(checkout.flavors, name) for name in dict.fromkeys(names)]
    _check_options(options, flavors)
    target = checkout.target(options.target)

    def check_version(flavor: Flavor) -> None:
        if not isinstance(flavor.version, PublishedVersion):
            raise _not_published(flavor, target.name)

    return check_files(checkout, flavors, options, check_version)


def prepare_stale(
    checkout: Checkout, options: RepublishOptions
) -> tuple[tuple[Prepared, ...], tuple[str, ...]]:
    """Returns what has to be done for every flavor that is published and may be touched.

    Returns:
        What changed or failed; and a line for every flavor that was left out, with the reason,
        and for everything of an unchanged one that was damaged and is right again.

    Raises:
        PublishError: As ``admit``.
    """
    survey, verify = admit(checkout, options)
    flavors, left_out = [], []
    for flavor in checkout.flavors.values():
        if flavor.hold is not None:
            left_out.append(f"{flavor.name} is held: {flavor.hold}")
        elif isinstance(flavor.version, PublishedVersion):
            flavors.append(flavor)
    prepared = _prepare_all(survey, verify, flavors, options)
    skipped = [item for item in prepared if _is_left_out(item)]
    left_out += [_line(item) for item in skipped if isinstance(item, Failure)]
    unchanged = [item for item in prepared if isinstance(item, Release)]
    left_out += [f"{item.flavor}: {line}" for item in unchanged for line in item.warnings]
    work = (item for item in prepared if not isinstance(item, Release) and item not in skipped)
    return tuple(work), tuple(left_out)


def flavor_of_version(
    checkout: Checkout, model_name: str, version: str, config: str, options: RepublishOptions
) -> Flavor:
    """Returns the flavor that the older spelling of a republish means.

    It is the one flavor that has the version; where none has it, a flavor of no name with this
    ``config``, whose new version is printed and written nowhere.

    Raises:
        ConfigError: Several flavors have it, or there is no such version.
    """
    wanted, holder = holder_of_version(checkout, model_name, version)
    if holder:
        return holder
    survey, _ = admit(checkout, options)
    opened = survey.versions.find(model_name, version)
    if opened is None:
        raise ConfigError(
            f"There is no version {version} of {model_name} in this store.",
            where=survey.store.location,
            next_step=f"python -m adroit_publish versions {model_name}",
        )
    return Flavor("", config, opened.bundle.conda_env_name, wanted, None, None, 0)


def holder_of_version(
    checkout: Checkout, model_name: str, version: str
) -> tuple[PublishedVersion, Flavor | None]:
    """Returns a version, and the flavor that has it; raises ConfigError where several have it."""
    try:
        wanted = PublishedVersion(version)
    except ValueError as error:
        raise ConfigError(
            "--version names no published version.",
            got=version,
            wanted="v<8 hex digits>-<12 hex digits>",
            next_step=f"python -m adroit_publish versions {model_name}",
        ) from error
    holders = [f for f in checkout.flavors.values() if f.version == version]
    if len(holders) > 1:
        raise ConfigError(
            f"Several flavors have the version {version}.",
            where="flavors.yaml",
            got=", ".join(flavor.name for flavor in holders),
            next_step=f"python republish.py --flavor {holders[0].name}",
        )
    return wanted, holders[0] if holders else None


def prepare_one(checkout: Checkout, flavor: Flavor, options: RepublishOptions) -> Prepared:
    """Returns what has to be done for one flavor, which need not be in flavors.yaml."""
    _check_options(options, [flavor])
    return _prepare_all(*admit(checkout, options), [flavor], options)[0]


def _prepare_all(
    survey: Survey, verify: str, flavors: Sequence[Flavor], options: RepublishOptions
) -> tuple[Prepared, ...]:
    def one(flavor: Flavor) -> Prepared:
        return _prepare_one(survey, flavor, verify, options)

    with ThreadPoolExecutor(THREADS, "prepare") as pool:
        return tuple(pool.map(one, flavors))


def _check_options(options: RepublishOptions, flavors: Sequence[Flavor]) -> None:
    if not flavors:
        raise ConfigError(
            "No flavor is named.", next_step="add --flavor NAME, or --stale for all that changed"
        )
    if options.new_flavor is None:
        return
    if len(flavors) != 1:
        raise ConfigError(
            "--new-flavor goes with one flavor.",
            got=", ".join(flavor.name for flavor in flavors),
            next_step="name one flavor",
        )
    if problem := name_problem(options.new_flavor):
        raise ConfigError("--new-flavor is no flavor's name.", got=f"it {problem}")


def _prepare_one(
    survey: Survey, flavor: Flavor, verify: str, options: RepublishOptions
) -> Prepared:
    try:
        standing = look(survey, flavor, options)
        match standing.decision:
            case NoVersion() | Publish():
                raise _not_published(flavor, survey.target.name)
            case UpToDate() | EnvMoved() | Republish() | NotImported() as decision:
                return _job(survey, standing, decision, verify, options)
            case _:
                raise AssertionError(standing.decision)
    except PublishError as error:
        return Failure(flavor.name, error)


def _not_published(flavor: Flavor, target: str) -> ConfigError:
    return ConfigError(
        f"Flavor {flavor.name} is not published yet.",
        where=f"flavors.yaml:{flavor.line}",
        got=flavor.version or "no version",
        wanted="a published version",
        next_step=f"{publish_command(flavor)} --target={target}",
    )


def _job(
    survey: Survey, standing: Standing, decision: Judged, verify: str, options: RepublishOptions
) -> RepublishJob | Release:
    flavor, opened = standing.flavor, standing.opened
    assert opened is not None
    changes = decision.changes
    reasons = changes.lines()
    if options.take_env or changes.env:
        env, moved_to = survey.env(flavor), None
        if changes.env is None and env.digest != opened.version.bundle.conda_env_digest:
            reasons.append(f"changed the env {env.env.name} to {env.digest}")
    else:
        env = carried_env(survey.checkout, flavor, survey.target, opened.version)
        moved_to = decision.env_now
    runtime = changes.runtime_line()
    if not (runtime and options.runtime):
        if not reasons and options.new_flavor:
            raise _same_again(standing, options.new_flavor, runtime)
        if not reasons:
            return up_to_date(survey, standing)
        if isinstance(decision, NotImported) and reasons == changes.lines():
            raise _nothing_imports_it(standing, decision)
    goes_on = options.despite_rollover or options.into_another_flavor
    if not goes_on and (rolling := survey.rollover(flavor)):
        raise rolling  # an env or a runtime is taken over: that is another version too
    check_source_secrets(flavor, opened.project, opened.source)
    _refuse_held(survey, standing, env, options)
    ensure_images(survey.target, opened.project.model_name)
    return RepublishJob(
        root=str(survey.checkout.root),
        flavor=flavor,
        project=opened.project,
        env=env,
        target=survey.target,
        commit=opened.source.commit,
        verify=verify,
        options=gone_past(survey, flavor, options),
        live=_live(survey, opened.project),
        published=opened.version.published,
        changes=(*reasons, *filter(None, [runtime])),
        moved_to=moved_to,
        live_in_place=not options.into_another_flavor and survey.is_live(flavor),
    )


def _refuse_held(
    survey: Survey, standing: Standing, env: EnvReference, options: RepublishOptions
) -> None:
    opened = standing.opened
    assert opened is not None
    held = {} if options.despite_hold else survey.rolled_back(opened.project.model_name)
    if held:
        bundle = bundle_to_be(opened.version, opened.source, opened.project, env)
        refuse_rolled_back(options.new_flavor or standing.flavor.name, bundle.version, held)


def _same_again(standing: Standing, new_flavor: str, runtime: str | None) -> RefusedError:
    flavor = standing.flavor
    also = f"; or take the runtime over by --runtime: {runtime}" if runtime else ""
    return RefusedError(
        f"Nothing has changed since {flavor.version}: {new_flavor} would be {flavor.name} again.",
        where=f"flavors.yaml:{flavor.line}",
        wanted="other source, serve section or conda env, committed",
        next_step=f"commit the change that {new_flavor} is to have, then run this again{also}",
    )


def _nothing_imports_it(standing: Standing, decision: NotImported) -> NothingImportsIt:
    flavor = standing.flavor
    return NothingImportsIt(
        f"Nothing imports what changed since {flavor.version}; a republish would change no answer.",
        where=f"flavors.yaml:{flavor.line}",
        got="\n".join(decision.changes.lines()),
        wanted="a change of a file that the handler or the model imports",
        next_step=accept_line(decision),
    )


def _live(survey: Survey, project: Project) -> Mapping[str, float] | None:
    """Returns the live version's values, where a gate compares with them."""
    if not any({"max_drop", "max_rise"} & gate.bounds.keys() for gate in project.measured_gates):
        return None
    return survey.earlier(project.model_name).live


def _is_left_out(item: Prepared) -> bool:
    left_out = (OfAnotherTarget, NothingImportsIt, RolledBack, RollingOver)
    return isinstance(item, Failure) and isinstance(item.error, left_out)


def _line(item: Failure) -> str:
    how = f" next: {item.error.next_step}" if isinstance(item.error, RolledBack) else ""
    return f"{item.flavor}: {item.error.what}{how}"
