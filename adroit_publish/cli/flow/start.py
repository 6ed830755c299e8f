"""What ``start`` of the two flows does: it plans each flavor, and refuses before any work."""

from __future__ import annotations

from collections.abc import Sequence

from adroit_publish.checkout import open_checkout
from adroit_publish.cli.flow.location import Location, check_commit_wish
from adroit_publish.decide import RollingOver
from adroit_publish.errors import ConfigError, PublishError
from adroit_publish.publish.prepare import check, held, pending, prepare
from adroit_publish.publish.prepare_republish import (
    check_republish,
    flavor_of_version,
    holder_of_version,
    prepare_one,
    prepare_republish,
    prepare_stale,
)
from adroit_publish.publish.release import (
    Failure,
    PublishJob,
    PublishOptions,
    Release,
    RepublishJob,
    RepublishOptions,
)
from adroit_publish.publish.survey import LIVE_NOTE

Prepared = PublishJob | RepublishJob | Release | Failure


def prepare_publish(
    location: Location, flavors: str | None, all_pending: bool, options: PublishOptions
) -> tuple[Prepared | None, ...]:
    """The ``start`` step of a publish: what has to be done for each flavor.

    Raises:
        PublishError: The request itself is refused, or every single flavor is.
    """
    _check_publish_words(flavors, all_pending)
    with location.open() as root:
        checkout = open_checkout(root)
        if all_pending:
            for name, why in held(checkout).items():
                print(f"{name} is held: {why}")
        names = pending(checkout) if all_pending else _names(flavors)
        if all_pending and not names:
            print("No flavor waits to be published.")
            return (None,)  # Metaflow fans out over one thing at least
        check_commit_wish(checkout, location, options, names)
        prepared: Sequence[Prepared] = prepare(checkout, names, options)
    if all_pending:
        for item in prepared:
            if _rolls_over(item):
                print(f"{item.error.what} {item.error.where}: {item.error.got}")  # type: ignore[union-attr]
        prepared = [item for item in prepared if not _rolls_over(item)]
        if not prepared:
            return (None,)
    return _told(prepared)


def _rolls_over(item: Prepared) -> bool:
    return isinstance(item, Failure) and isinstance(item.error, RollingOver)


def prepare_republishes(
    location: Location, flavors: str | None, all_stale: bool, options: RepublishOptions
) -> tuple[Prepared | None, ...]:
    """The ``start`` step of a republish: what changed under each flavor; raises the same."""
    _check_republish_words(flavors, all_stale, options)
    with location.open() as root:
        checkout = open_checkout(root)
        check_commit_wish(checkout, location, options, _names(flavors))
        if not all_stale:
            return _told(prepare_republish(checkout, _names(flavors), options))
        stale, left_out = prepare_stale(checkout, options)
    for line in left_out:
        print(line)
    if not stale:
        print("No flavor is stale.")
    return _told(stale) if stale else (None,)


def prepare_version(
    location: Location, model_name: str, version: str, config: str, options: RepublishOptions
) -> tuple[Prepared | None, ...]:
    """The ``start`` step of a republish in its older spelling, which names a version.

    Args:
        version: A published version: that of the one flavor that has it, or of none.
        config: The config.yaml to take where no flavor has it.
    """
    _check_version_words(model_name, version, config)
    with location.open() as root:
        checkout = open_checkout(root)
        flavor = flavor_of_version(checkout, model_name, version, config, options)
        names = [flavor.name] if flavor.name else []
        check_commit_wish(checkout, location, options, names)
        return _told([prepare_one(checkout, flavor, options)])


def check_publish(
    location: Location, flavors: str | None, all_pending: bool, options: PublishOptions
) -> None:
    """What ``prepare_publish`` refuses by the words and the checkout's files alone; raises it.

    So nobody waits for a Metaflow run to be told of a typo. What lies elsewhere, ``start`` sees.
    """
    _check_publish_words(flavors, all_pending)
    if location.repo is None:
        with location.open() as root:
            checkout = open_checkout(root)
            if names := pending(checkout) if all_pending else _names(flavors):
                _refuse_all(names, check(checkout, names, options))


def check_republishes(
    location: Location, flavors: str | None, all_stale: bool, options: RepublishOptions
) -> None:
    """What ``prepare_republishes`` refuses by words and files alone; raises it."""
    _check_republish_words(flavors, all_stale, options)
    if location.repo is None:
        with location.open() as root:
            checkout = open_checkout(root)
            checkout.target(options.target)
            if names := _names(flavors):
                _refuse_all(names, check_republish(checkout, names, options))


def check_version(location: Location, model_name: str, version: str, config: str) -> None:
    """What ``prepare_version`` refuses by words and files alone; raises it."""
    _check_version_words(model_name, version, config)
    if location.repo is None:
        with location.open() as root:
            holder_of_version(open_checkout(root), model_name, version)


def _check_publish_words(flavors: str | None, all_pending: bool) -> None:
    if all_pending == bool(flavors):
        raise ConfigError(
            "Say which flavors are to be published.",
            got="both --flavor and --pending" if flavors else "neither --flavor nor --pending",
            wanted="--flavor=NAME[,NAME...] or --pending",
        )


def _check_republish_words(flavors: str | None, all_stale: bool, options: RepublishOptions) -> None:
    if all_stale == bool(flavors):
        raise ConfigError(
            "Say which flavors are to be republished.",
            got="both --flavor and --stale" if flavors else "neither --flavor nor --stale",
            wanted="--flavor NAME[,NAME...], --stale, or --model_name with --version and "
            "--config_path",
        )
    if all_stale and options.new_flavor is not None:
        raise ConfigError("--new-flavor goes with one flavor.", got="--stale")


def _check_version_words(model_name: str, version: str, config: str) -> None:
    if not (model_name and version and config):
        raise ConfigError(
            "The older spelling needs all three.",
            wanted="--model_name M --version V --config_path P",
            next_step="or name a flavor: python republish.py --flavor NAME",
        )


def _refuse_all(names: Sequence[str], failures: Sequence[Failure]) -> None:
    """Raises where every flavor fails; one that does not is worked on, whatever the others are."""
    if len(failures) == len(set(names)):
        raise together(failures)


def _names(flavors: str | None) -> list[str]:
    return [name.strip() for name in str(flavors or "").split(",") if name.strip()]


def _told(prepared: Sequence[Prepared]) -> tuple[Prepared, ...]:
    """Says what was found for each flavor; raises where nothing can be done for any of them."""
    failures = [item for item in prepared if isinstance(item, Failure)]
    if failures and len(failures) == len(prepared):
        raise together(failures)
    for item in prepared:
        print(_prepared_line(item), flush=True)
    return tuple(prepared)


def _prepared_line(item: Prepared) -> str:
    if isinstance(item, RepublishJob):
        name = item.flavor.name or item.published.version
        lines = [f"{name}: will republish {item.published.version}: {'; '.join(item.changes)}"]
        if item.moved_to:
            lines.append(
                f"{name}: its env stands for {item.moved_to} now; add --env to take that over"
            )
        if item.live_in_place:
            lines.append(f"{name}: {LIVE_NOTE}")
        return "\n".join(lines)
    if isinstance(item, PublishJob):
        model = item.model
        places = " and ".join(filter(None, (item.target.bundles, item.target.images)))
        env = f"{item.env.env.name} {item.env.digest or '(not pinned)'}"
        moved = f"\n{item.flavor.name}: the env was {item.moved_from}" if item.moved_from else ""
        return (
            f"{item.flavor.name}: will publish {model.name} of run {model.run_id} to "
            f"{item.target.name} ({places}), conda env {env}{moved}"
        )
    if isinstance(item, Failure):
        return f"{item.flavor}: {item.error}"
    return f"{item.flavor}: {item.version} is up to date"


def together(failures: Sequence[Failure]) -> PublishError:
    """Returns one error for all; its exit code is the first failure's."""
    if len(failures) == 1:
        return failures[0].error
    error = PublishError(
        f"{len(failures)} flavors were not published:\n"
        + "\n".join(f"{failure.flavor}: {failure.error}" for failure in failures)
    )
    error.exit_code = failures[0].error.exit_code
    return error
