"""Commands that look at what is published, check it, get it and bring it elsewhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

import click

from adroit_publish.bundle.layer import layer_kind
from adroit_publish.checkout import find_root, open_checkout
from adroit_publish.cli.options import Context, at_target, json_option
from adroit_publish.cli.progress import bar
from adroit_publish.cli.render import bytes_text, made_by, print_json, print_table
from adroit_publish.config.sitevars import Pointer
from adroit_publish.errors import PublishError, VerificationError
from adroit_publish.places import open_places
from adroit_publish.rollovers.sitevars import sitevars_of
from adroit_publish.stores.records import last_publish, output_change
from adroit_publish.version import Version
from adroit_publish.versions import inspect as inspection
from adroit_publish.versions import promote as promotion
from adroit_publish.versions import pull as pulling
from adroit_publish.versions import serve as service
from adroit_publish.versions.verify import verify as verify_version


@click.command()
@at_target
@click.argument("model")
def versions(context: Context, model: str) -> None:
    """List the published versions of MODEL, oldest first."""
    inspection.check_model(context.store, model)
    rows = inspection.list_versions(context.checkout, context.store, model)
    if context.as_json:
        print_json([asdict(row) for row in rows])
        return
    print_table(
        ["version", "created (UTC)", "by", "run", "size", "flavors"],
        [
            [
                row.version,
                row.created_utc,
                row.who,
                row.run_id,
                bytes_text(row.size_bytes),
                ", ".join(row.flavors),
            ]
            for row in rows
        ],
    )


@click.command()
@at_target
@click.argument("version")
def show(context: Context, version: str) -> None:
    """Show what VERSION holds, what it was made from, and how its publish went."""
    published = service.find_published(context.checkout.flavors, context.store, version)
    opened = Version(context.store, published)
    if context.as_json:
        print_json(inspection.show(opened))
        return
    print_table(["what", "value"], list(_facts(opened)))
    print()
    print_table(
        ["layer", "size", "digest"],
        [
            [layer_kind(layer), bytes_text(layer.size_bytes), layer.digest]
            for layer in opened.manifest.layers
        ],
    )
    print()
    print_table(
        ["file", "size"],
        [
            [f"{kind}/{entry.path}", bytes_text(entry.size_bytes)]
            for kind, entries in opened.bundle.files.items()
            for entry in entries
        ],
    )


def _facts(version: Version) -> Iterator[tuple[str, str | None]]:
    bundle, record = version.bundle, last_publish(version.records)
    yield "model", version.model_name
    yield "version", version.name
    yield "manifest", version.published.manifest.digest
    yield "bundle id", bundle.bundle_id
    yield "store", version.store.location
    yield "run", _with_page(bundle.run_id, record.run_url if record else None)
    for what, name, page in made_by(record.trained_by if record else {}):
        yield what, _with_page(name, page)
    yield "conda env", f"{bundle.conda_env_name} {bundle.conda_env_digest or ''}"
    yield "handler", (bundle.serve.get("handler") or {}).get("class_path")
    yield "python", bundle.python_version
    if record and record.verification:
        seen = record.verification
        yield "published", f"{record.created_utc} by {record.who}"
        yield "publish run", _with_page(record.origin.get("metaflow"), record.origin.get("page"))
        commit = f"{record.commit}{' (dirty)' if record.dirty else ''}"
        yield "commit", _with_page(commit, record.commit_url)
        yield "verified", f"{seen.how}, predicted: {seen.predicted}"
    if change := output_change(version.records):
        yield "outputs", change
    for promoted in (record.promoted for record in version.records if record.promoted):
        yield "promoted", f"from {promoted.source} to {promoted.destination}"


def _with_page(name: str | None, page: str | None) -> str | None:
    return f"{name}  {page}" if page else name


@click.command()
@at_target
@click.argument("version")
def verify(context: Context, version: str) -> None:
    """Read every byte of VERSION and recompute every digest."""
    published = service.find_published(context.checkout.flavors, context.store, version)
    with bar(f"verify {version}", 0) as progress:
        report = verify_version(context.store, published, progress)
    if context.as_json:
        print_json(asdict(report))
    if report.problems:
        raise VerificationError(
            f"{len(report.problems)} of the objects of {version} are missing or wrong.",
            where=context.store.location,
            got="\n".join(report.problems),
            next_step="publish the same run again: it sends what is wrong once more, or refuses",
        )
    if not context.as_json:
        size = bytes_text(report.size_bytes)
        print(f"{version}: {report.objects} objects, {size}: every digest is right.")


@click.command()
@at_target
@click.argument("version")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--oci", is_flag=True, help="write an OCI layout, for skopeo, umoci and others")
def pull(context: Context, version: str, directory: Path, oci: bool) -> None:
    """Get VERSION into DIRECTORY, verified to the last byte."""
    published = service.find_published(context.checkout.flavors, context.store, version)
    layers = context.store.manifest(published).own_layers
    with bar(f"pull {version}", sum(layer.size_bytes for layer in layers)) as progress:
        if oci:
            places = open_places(context.target, published.model_name)
            pulling.pull_oci(places, published, directory, progress)
        else:
            pulling.pull(context.store, published, directory, progress)
    if context.as_json:
        print_json({"version": version, "directory": str(directory.absolute())})
    else:
        print(f"{version} is in {directory}")


@click.command()
@click.argument("version", metavar="VERSION|FLAVOR")
@click.option("--from", "source", required=True, metavar="TARGET", help="where it is")
@click.option("--to", "destination", required=True, metavar="TARGET", help="where it shall be")
@click.option(
    "--verify",
    "kind",
    metavar="KIND",
    help="image (a container), process (a sandbox) or none; by default the destination's",
)
@json_option
def promote(version: str, source: str, destination: str, kind: str | None, as_json: bool) -> None:
    """Copy VERSION, or what FLAVOR names, to another target: the same digest, what is missing.

    It has to load and predict before it gets its name there, unless this machine saw that before.
    The source is read as the AWS profile of its target, the destination is written as the
    environment's. flavors.yaml stays as it is.
    """
    checkout = open_checkout(find_root(Path.cwd()))
    here, there = (checkout.target(name) for name in (source, destination))
    with bar(f"promote {version}", 0) as progress:
        done = promotion.promote(checkout, version, here, there, os.environ, progress, verify=kind)
    if done.verified == "none":
        print("not verified: nobody has seen this version load (--verify none)", file=sys.stderr)
    if as_json:
        print_json(done.as_dict())
        return
    print_table(
        ["layer", "size", "digest", "sent to"],
        [
            [
                layer.kind,
                bytes_text(layer.size_bytes),
                layer.digest,
                f"{sum(layer.sent.values())} of {len(layer.sent)}",
            ]
            for layer in done.layers
        ],
    )
    print()
    for place in done.places:
        print(f"{place}: {bytes_text(done.sent_bytes(place))} sent")
    state = "is in" if done.news else "was already in"
    print(f"{done.version} {state} target {done.destination}: {done.manifest_digest}")
    print(
        f"flavors.yaml is as it was; a flavor that serves it there says:\n  version: {done.version}"
    )


@click.command()
@at_target
def status(context: Context) -> None:
    """Show every flavor: its version, its state, its age, and what share of requests it gets."""
    pointers: Mapping[str, Pointer] = {}
    if context.target.sitevars is not None:
        try:
            pointers = sitevars_of(context.target, context.store).pointers()
        except PublishError as error:
            print(f"What is live cannot be told: {error.what}", file=sys.stderr)
    rows = inspection.status(context.checkout, context.target, context.store, pointers)
    if context.as_json:
        print_json([asdict(row) for row in rows])
        return
    print_table(
        ["flavor", "version", "state", "live", "age", "detail"],
        [
            [
                row.flavor,
                row.version,
                row.state,
                None if row.live_percent is None else f"{row.live_percent:g} %",
                None if row.age_days is None else f"{row.age_days:.1f} d",
                row.detail,
            ]
            for row in rows
        ],
    )
