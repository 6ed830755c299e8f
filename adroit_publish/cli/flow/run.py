"""What the steps of the publish and the republish flow do, and say, besides Metaflow."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from adroit_publish.cli.flow.checkout import Commit, FlowCheckout, check_commit_wish, opened
from adroit_publish.cli.flow.program import tell
from adroit_publish.cli.progress import step_listener
from adroit_publish.cli.render import bytes_text
from adroit_publish.errors import ConfigError, PublishError
from adroit_publish.publish.prepare import held, pending, prepare
from adroit_publish.publish.prepare_republish import (
    flavor_of_version,
    prepare_one,
    prepare_republish,
    prepare_stale,
)
from adroit_publish.publish.publish import publish
from adroit_publish.publish.release import (
    Failure,
    PublishJob,
    PublishOptions,
    Release,
    RepublishJob,
    RepublishOptions,
)
from adroit_publish.publish.republish import republish
from adroit_publish.writeback.releases import commit_releases, try_releases

Prepared = PublishJob | RepublishJob | Release | Failure
Outcome = Release | Failure


def prepare_publish(
    location: FlowCheckout,
    flavors: str | None,
    all_pending: bool,
    options: PublishOptions,
    commit: Commit,
) -> tuple[Prepared | None, ...]:
    """The ``start`` step of a publish: what has to be done for each flavor.

    Args:
        location: Where the files are.
        flavors: Names with commas between them, or None.
        all_pending: Take every flavor whose version is a run id.
        options: What was asked.
        commit: What is to become of flavors.yaml.

    Raises:
        PublishError: The request itself is refused, or every single flavor is.
    """
    if all_pending == bool(flavors):
        raise ConfigError(
            "Say which flavors are to be published.",
            got="both --flavor and --pending" if flavors else "neither --flavor nor --pending",
            wanted="--flavor=NAME[,NAME...] or --pending",
        )
    with opened(location) as checkout:
        if all_pending:
            for name, why in held(checkout).items():
                print(f"{name} is held: {why}")
        names = pending(checkout) if all_pending else _names(flavors)
        if all_pending and not names:
            print("No flavor waits to be published.")
            return (None,)  # Metaflow fans out over one thing at least
        check_commit_wish(checkout, location, options, commit, names)
        return _told(prepare(checkout, names, options))


def prepare_republishes(
    location: FlowCheckout,
    flavors: str | None,
    all_stale: bool,
    options: RepublishOptions,
    commit: Commit,
) -> tuple[Prepared | None, ...]:
    """The ``start`` step of a republish: what changed under each flavor.

    Args, Raises: As for ``prepare_publish``; ``all_stale`` takes every flavor that changed.
    """
    if all_stale == bool(flavors):
        raise ConfigError(
            "Say which flavors are to be republished.",
            got="both --flavor and --stale" if flavors else "neither --flavor nor --stale",
            wanted="--flavor NAME[,NAME...], --stale, or --model_name with --version and "
            "--config_path",
        )
    if all_stale and options.new_flavor is not None:
        raise ConfigError("--new-flavor goes with one flavor.", got="--stale")
    with opened(location) as checkout:
        check_commit_wish(checkout, location, options, commit, _names(flavors))
        if not all_stale:
            return _told(prepare_republish(checkout, _names(flavors), options))
        found, left_out = prepare_stale(checkout, options)
    for line in left_out:
        print(line)
    if not found:
        print("No flavor is stale.")
    return _told(found) if found else (None,)


def prepare_version(
    location: FlowCheckout,
    model_name: str,
    version: str,
    config: str,
    options: RepublishOptions,
    commit: Commit,
) -> tuple[Prepared | None, ...]:
    """The ``start`` step of a republish in its older spelling, which names a version.

    Args:
        location: Where the files are.
        model_name: The version's model.
        version: A published version: that of the one flavor that has it, or of none.
        config: The config.yaml to take where no flavor has it.
        options: What was asked.
        commit: What is to become of flavors.yaml.

    Raises:
        PublishError: The request is refused.
    """
    if not (model_name and version and config):
        raise ConfigError(
            "The older spelling needs all three.",
            wanted="--model_name M --version V --config_path P",
            next_step="or name a flavor: python republish.py --flavor NAME",
        )
    with opened(location) as checkout:
        flavor = flavor_of_version(checkout, model_name, version, config, options)
        names = [flavor.name] if flavor.name else []
        check_commit_wish(checkout, location, options, commit, names)
        return _told([prepare_one(checkout, flavor, options)])


def work_on(item: Prepared | None, location: FlowCheckout, attempts_left: int) -> Outcome | None:
    """The ``publish`` step: one flavor, all the way.

    Args:
        item: What ``start`` found; anything but a job passes through.
        location: Where the files are.
        attempts_left: How often Metaflow would run this step again; a transient failure is raised
            for it to do so, any other is an outcome.
    """
    if not isinstance(item, PublishJob | RepublishJob):
        return item
    try:
        if location.repo is None:
            return _work_in(item)
        with location.open(item.commit) as root:
            return _work_in(replace(item, root=str(root)))
    except PublishError as error:
        if attempts_left and getattr(error, "transient", False):
            raise
        print(f"{item.flavor.name}: {error}", flush=True)
        return Failure(item.flavor.name, error)
    except Exception as error:  # noqa: BLE001  a bug in one flavor must not lose the others
        traceback.print_exc()
        got = f"{type(error).__name__}: {error}"
        return Failure(item.flavor.name, PublishError("This is a bug in the publisher.", got=got))


def _work_in(job: PublishJob | RepublishJob) -> Release:
    if isinstance(job, RepublishJob):
        return republish(job, step_listener(), run_facts())
    return publish(job, step_listener(), run_facts())


def run_facts() -> dict[str, str]:
    """Returns what the record says of the Metaflow run that this is a task of.

    ``metaflow`` is the task, ``page`` its run's page where METAFLOW_UI_URL or Metaflow's
    configuration has a UI.
    """
    from metaflow import current
    from metaflow.metaflow_config import UI_URL

    run = f"{current.flow_name}/{current.run_id}"
    page = {"page": f"{UI_URL.rstrip('/')}/{run}"} if UI_URL else {}
    return {"metaflow": str(current.pathspec), **page}


def write_back(
    location: FlowCheckout, branches: Sequence[Outcome | None], commit: Commit
) -> tuple[Outcome, ...]:
    """The ``record`` step: all new versions into flavors.yaml, in one edit; and into git.

    Returns:
        The outcomes; a release that flavors.yaml refused has become a failure.

    Raises:
        PublishError: The commit or its push did not work; the versions are published, and
            flavors.yaml of the working tree names them.
    """
    outcomes = [item for item in branches if item is not None]
    releases = [item for item in outcomes if isinstance(item, Release) and item.flavor]
    if not releases:
        return tuple(outcomes)
    with location.open() as root:
        changed, refused = try_releases(root / "flavors.yaml", releases)
        by_name = {release.flavor: release.version for release in releases}
        for flavor in changed:
            print(f"flavors.yaml: {flavor}: {by_name[flavor]}", flush=True)
        landed = [release for release in releases if release.flavor not in refused]
        if commit.wanted and landed:
            _commit(root, landed, commit)
    return tuple(
        Failure(item.flavor, refused[item.flavor]) if item.flavor in refused else item
        for item in outcomes
    )


def _commit(root: Path, landed: Sequence[Release], commit: Commit) -> None:
    done = commit_releases(root, landed, push=commit.push)
    if done.commit:
        said = "pushed to" if done.pushed else "committed on"
        print(f"flavors.yaml: {said} {done.branch or 'HEAD'}: {done.commit[:12]}", flush=True)
    if done.note:
        print(done.note, flush=True)


def summarize(outcomes: Sequence[Outcome]) -> None:
    """The ``end`` step: says what came of every flavor and leaves the outcome for the exit code."""
    for item in outcomes:
        if isinstance(item, Failure):
            print(f"FAILED     {item.flavor}: {item.error.what}")
        elif not item.news:
            print(f"unchanged  {item.flavor}: {item.version}: nothing to do")
        elif item.republished_from:
            _print_proof(item)
        else:
            print(f"published  {item.flavor}: {item.version}  {item.manifest_digest}")
    failures = [item for item in outcomes if isinstance(item, Failure)]
    if failures and not tell(_together(failures)):
        sys.exit(1)  # nobody on this machine waits for the outcome: the run itself has to fail


def _print_proof(release: Release) -> None:
    """Says what a republish kept and what it changed, each with its digests or its bytes."""
    name = release.flavor or "no flavor has it"
    print(f"republished  {name}: {release.republished_from} -> {release.version}")
    print(f"  manifest   {release.manifest_digest}")
    carried = [layer for layer in release.layers if layer.carried]
    size = bytes_text(sum(layer.size_bytes for layer in carried))
    print(f"  model      {len(carried)} layers, {size}: the same digests, taken over")
    for layer in carried:
        print(f"             {layer.digest}  {layer.size_bytes:,} bytes")
    for line in release.changes:
        print(f"  {line.partition(' ')[0]:<10} {line.partition(' ')[2]}")
    for place in release.places:
        sent, reused = release.sent_bytes(place), release.reused_bytes(place)
        print(f"  {place}: {sent:,} bytes sent, {reused:,} bytes re-used")
    for warning in release.warnings:
        print(f"  warning    {warning}")


def _names(flavors: str | None) -> list[str]:
    return [name.strip() for name in str(flavors or "").split(",") if name.strip()]


def _told(prepared: Sequence[Prepared]) -> tuple[Prepared, ...]:
    """Says what was found for each flavor; raises where nothing can be done for any of them."""
    failures = [item for item in prepared if isinstance(item, Failure)]
    if failures and len(failures) == len(prepared):
        raise _together(failures)
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


def _together(failures: Sequence[Failure]) -> PublishError:
    """Returns one error for all; its exit code is the first failure's."""
    if len(failures) == 1:
        return failures[0].error
    error = PublishError(
        f"{len(failures)} flavors were not published:\n"
        + "\n".join(f"{failure.flavor}: {failure.error}" for failure in failures)
    )
    error.exit_code = failures[0].error.exit_code
    return error
