"""The first step of a republish: what differs from each version, and whether it can be made again.

Each flavor becomes a ``RepublishJob``, a ``Release`` with ``news=False`` (nothing changed) or a
``Failure``, as in ``prepare``.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from adroit_publish.bundle.version_names import PublishedVersion
from adroit_publish.checkout import Checkout
from adroit_publish.config.flavors import Flavor, find_flavor
from adroit_publish.config.names import name_problem
from adroit_publish.errors import ConfigError, PublishError
from adroit_publish.places import ensure_images
from adroit_publish.publish.env import carried_env, resolve_env
from adroit_publish.publish.prepare import Admitted, admit, refuse_held, up_to_date
from adroit_publish.publish.release import EnvReference, Failure, Options, Release, RepublishJob
from adroit_publish.publish.standing import OfAnotherTarget, Standing, standing_of

Prepared = RepublishJob | Release | Failure
THREADS = 8


def prepare_republish(
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
    return _prepare_all(checkout, flavors, admitted, options)


def prepare_stale(
    checkout: Checkout, options: Options
) -> tuple[tuple[Prepared, ...], tuple[str, ...]]:
    """Returns what has to be done for every flavor that is published and may be touched.

    Returns:
        What changed or failed; and a line for every flavor that was left out, with the reason.

    Raises:
        ConfigError: There is no such target.
        RefusedError, StoreError: As ``admit``.
    """
    admitted = admit(checkout, options)
    flavors, left_out = [], []
    for flavor in checkout.flavors.values():
        if flavor.hold is not None:
            left_out.append(f"{flavor.name} is held: {flavor.hold}")
        elif isinstance(flavor.version, PublishedVersion):
            flavors.append(flavor)
    found = _prepare_all(checkout, flavors, admitted, options)
    elsewhere = [item for item in found if _is_elsewhere(item)]
    left_out += [f"{item.flavor}: {item.error.what}" for item in elsewhere]  # type: ignore[union-attr]
    work = (item for item in found if not isinstance(item, Release) and item not in elsewhere)
    return tuple(work), tuple(left_out)


def flavor_of_version(
    checkout: Checkout, model_name: str, version: str, config: str, options: Options
) -> Flavor:
    """Returns the flavor that the older spelling of a republish means.

    Args:
        checkout: The checkout.
        model_name: The version's model.
        version: A published version.
        config: The config.yaml to take where no flavor has this version.
        options: What was asked.

    Returns:
        The one flavor that has the version; where none has it, a flavor of no name, whose new
        version is printed and written nowhere.

    Raises:
        ConfigError: Several flavors have it, or there is no such version.
    """
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
    if holders:
        return holders[0]
    store = admit(checkout, options).store
    published = store.find(model_name, version)
    if published is None:
        raise ConfigError(
            f"There is no version {version} of {model_name} in this store.",
            where=store.location,
            next_step=f"python -m adroit_publish versions {model_name}",
        )
    env = store.bundle_record(published).conda_env_name
    return Flavor("", config, env, wanted, None, None, 0)


def prepare_one(checkout: Checkout, flavor: Flavor, options: Options) -> Prepared:
    """Returns what has to be done for one flavor, which need not be in flavors.yaml."""
    _check_options(options, [flavor])
    return _prepare_all(checkout, [flavor], admit(checkout, options), options)[0]


def _prepare_all(
    checkout: Checkout, flavors: Sequence[Flavor], admitted: Admitted, options: Options
) -> tuple[Prepared, ...]:
    def one(flavor: Flavor) -> Prepared:
        return _prepare_one(checkout, flavor, admitted, options)

    with ThreadPoolExecutor(THREADS, "prepare") as pool:
        return tuple(pool.map(one, flavors))


def _check_options(options: Options, flavors: Sequence[Flavor]) -> None:
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
    checkout: Checkout, flavor: Flavor, admitted: Admitted, options: Options
) -> Prepared:
    try:
        refuse_held(flavor, options)
        if not isinstance(flavor.version, PublishedVersion):
            raise ConfigError(
                f"Flavor {flavor.name} is not published yet.",
                where=f"flavors.yaml:{flavor.line}",
                got=flavor.version or "no version",
                wanted="a published version",
                next_step=(
                    f"python publish_mlflow_model_flow.py run --flavor={flavor.name} "
                    f"--target={admitted.target.name}"
                ),
            )
        return _job(checkout, flavor, admitted, options)
    except PublishError as error:
        return Failure(flavor.name, error)


def _job(
    checkout: Checkout, flavor: Flavor, admitted: Admitted, options: Options
) -> RepublishJob | Release:
    target, store = admitted.target, admitted.store
    standing = standing_of(checkout, flavor, target, store, allow_dirty=options.allow_dirty)
    env, env_line, moved_to = _env(checkout, flavor, admitted, standing, options)
    reasons = [*standing.changes.lines(), *filter(None, [env_line])]
    runtime = standing.changes.runtime_line()
    if not reasons and not (runtime and options.runtime):
        return up_to_date(flavor, target, store, standing)
    ensure_images(target, standing.project.model_name)
    return RepublishJob(
        root=str(checkout.root),
        flavor=flavor,
        project=standing.project,
        env=env,
        target=target,
        commit=standing.source.commit,
        verify=admitted.verify,
        options=options,
        published=standing.published,
        changes=(*reasons, *filter(None, [runtime])),
        moved_to=moved_to,
    )


def _env(
    checkout: Checkout, flavor: Flavor, admitted: Admitted, standing: Standing, options: Options
) -> tuple[EnvReference, str | None, str | None]:
    """Returns the env to use, the line that says it moved, and what was not taken over."""
    target, store = admitted.target, admitted.store
    pinned = standing.record.conda_env_digest
    if options.take_env or standing.changes.env:
        env = resolve_env(checkout, flavor, target)
        moved = standing.changes.env is None and env.digest != pinned
        return env, f"changed the env {env.env.name} to {env.digest}" if moved else None, None
    moved_to = env_moved_to(checkout, flavor, admitted, standing)
    return carried_env(checkout, flavor, target, store, standing.published), None, moved_to


def env_moved_to(
    checkout: Checkout, flavor: Flavor, admitted: Admitted, standing: Standing
) -> str | None:
    """Returns what the env's name stands for now, where that is not what the version pins."""
    try:
        now = resolve_env(checkout, flavor, admitted.target).digest
    except PublishError:
        return None  # it is a hint; who takes the env over is told
    pinned = standing.record.conda_env_digest
    return None if now is None or pinned in (None, now) else str(now)


def _is_elsewhere(item: Prepared) -> bool:
    return isinstance(item, Failure) and isinstance(item.error, OfAnotherTarget)
