"""What the later steps of the two flows do, and say: the work, the write-back, the summary."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from adroit_publish.bundle.record import accepted_change
from adroit_publish.cli.flow.location import Location
from adroit_publish.cli.flow.start import Prepared, together
from adroit_publish.cli.progress import step_listener
from adroit_publish.cli.render import bytes_text, markdown_cell
from adroit_publish.config.targets import Target
from adroit_publish.errors import PublishError
from adroit_publish.evidence.webhook import post
from adroit_publish.places import open_store
from adroit_publish.publish.publish import publish
from adroit_publish.publish.release import Failure, PublishJob, Release, RepublishJob
from adroit_publish.publish.republish import republish
from adroit_publish.rollover.state import Rollover
from adroit_publish.stores.rollovers import Rollovers
from adroit_publish.writeback.releases import commit_releases, try_releases

Outcome = Release | Failure


@dataclass(frozen=True)
class FlowRelease(Release):
    """A release, with what the flow's write-back and card say of the time it was made.

    Attributes:
        before: The flavor's version in flavors.yaml, which the write-back expects to find.
        rollover: The model's live rollover; None where there was none.
    """

    before: str | None = None
    rollover: Rollover | None = None


def work_on(item: Prepared | None, location: Location, attempts_left: int) -> Outcome | None:
    """The ``publish`` step: one flavor, all the way; anything but a job passes through.

    Args:
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


def _work_in(job: PublishJob | RepublishJob) -> FlowRelease:
    if isinstance(job, RepublishJob):
        release = republish(job, step_listener(), run_facts())
    else:
        release = publish(job, step_listener(), run_facts())
    rollover = _live_rollover(job.target, release.model_name)
    return FlowRelease(**vars(release), before=job.flavor.version, rollover=rollover)


def _live_rollover(target: Target, model_name: str) -> Rollover | None:
    try:
        last = Rollovers(open_store(target).objects).last(model_name)
    except PublishError:
        return None  # a publish does not depend on what can be told beside it
    return last.rollover if last and last.rollover.live else None


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


def write_back(location: Location, branches: Sequence[Outcome | None]) -> tuple[Outcome, ...]:
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
        before = {
            item.copied_from or item.flavor: item.before
            for item in releases
            if isinstance(item, FlowRelease)
        }
        changed, refused = try_releases(root / "flavors.yaml", releases, before)
        by_name = {release.flavor: release.version for release in releases}
        for flavor in changed:
            print(f"flavors.yaml: {flavor}: {by_name[flavor]}", flush=True)
        landed = [release for release in releases if release.flavor not in refused]
        if landed and (location.commit or location.push):
            _commit(root, landed, push=location.push)
    return tuple(
        Failure(item.flavor, refused[item.flavor]) if item.flavor in refused else item
        for item in outcomes
    )


def _commit(root: Path, landed: Sequence[Release], *, push: bool) -> None:
    done = commit_releases(root, landed, push=push)
    if done.commit:
        how = "pushed to" if done.pushed else "committed on"
        print(f"flavors.yaml: {how} {done.branch or 'HEAD'}: {done.commit[:12]}", flush=True)
    if done.note:
        print(done.note, flush=True)


def work_again(
    location: Location,
    outcomes: Sequence[Outcome],
    plan: Callable[[str], Sequence[Prepared | None]],
) -> tuple[Outcome, ...]:
    """What ``resume`` is for: what failed is planned anew, worked on and written back."""
    failed = [item.flavor for item in outcomes if isinstance(item, Failure)]
    if not failed:
        return tuple(outcomes)
    try:
        prepared = plan(",".join(failed))
    except PublishError as error:
        prepared = [Failure(flavor, error) for flavor in failed]
    again = write_back(location, [work_on(item, location, 0) for item in prepared])
    return (*(item for item in outcomes if isinstance(item, Release)), *again)


def summarize(outcomes: Sequence[Outcome]) -> PublishError | None:
    """Says what came of every flavor; returns one error for all that failed, if any did."""
    for item in outcomes:
        if isinstance(item, Failure):
            print(f"FAILED     {item.flavor}: {item.error.what}")
        elif not item.news:
            print(f"unchanged  {item.flavor}: {item.version}: nothing to do")
            for warning in item.warnings:
                print(f"  {warning}")
        elif item.republished_from:
            _print_proof(item)
        else:
            print(f"published  {item.flavor}: {item.version}  {item.manifest_digest}")
    if news := [line for line in map(_news, outcomes) if line]:
        post("\n".join(news))
    if path := os.environ.get("GITHUB_STEP_SUMMARY"):
        with suppress(OSError), Path(path).open("a", encoding="utf-8") as summary:
            summary.write(_markdown(outcomes))
    failures = [item for item in outcomes if isinstance(item, Failure)]
    return together(failures) if failures else None


def _markdown(outcomes: Sequence[Outcome]) -> str:
    """Returns a table for a GitHub job's summary."""
    rows = [["flavor", "outcome", "version", "target"], ["---"] * 4]
    for item in outcomes:
        if isinstance(item, Failure):
            rows.append([item.flavor, f"**failed**: {item.error.what}", "", ""])
        else:
            how = "republished" if item.republished_from else "published"
            rows.append([item.flavor, how if item.news else "unchanged", item.version, item.target])
    lines = (" | ".join(markdown_cell(cell) for cell in row) for row in rows)
    return "\n".join(["### Published flavors\n", *(f"| {line} |" for line in lines), "\n"])


def _news(item: Outcome) -> str | None:
    """Returns what a webhook is told of a flavor; None where nothing was done."""
    if isinstance(item, Failure):
        return f"{item.flavor}: not published: {item.error.what}"
    if not item.news:
        return None
    how = f"republished from {item.republished_from}" if item.republished_from else "published"
    return f"{item.flavor}: {how} as {item.version} to {item.target}"


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
    if change := accepted_change(release.verification.get("replay")):
        print(f"  outputs    {change}")
    for place in release.places:
        sent, reused = release.sent_bytes(place), release.reused_bytes(place)
        print(f"  {place}: {sent:,} bytes sent, {reused:,} bytes re-used")
    for warning in release.warnings:
        print(f"  warning    {warning}")
