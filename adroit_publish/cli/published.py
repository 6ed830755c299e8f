"""Commands that look at what is published, check it, get it and bring it elsewhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import click

from adroit_publish.bundle.layer import layer_kind
from adroit_publish.checkout import find_root, open_checkout
from adroit_publish.cli.options import Context, at_target, json_option
from adroit_publish.cli.progress import bar
from adroit_publish.cli.render import bytes_text, made_by, print_json, print_table
from adroit_publish.config.gates import kept_result
from adroit_publish.config.sitevars import Pointer
from adroit_publish.custody.check import verify as verify_version
from adroit_publish.custody.repair import Repair, publish_again, repair, repair_command
from adroit_publish.custody.report import Damage
from adroit_publish.errors import UPGRADE, PublishError, VerificationError
from adroit_publish.places import env_repository, open_places
from adroit_publish.registry.repository import ImageRepository
from adroit_publish.rollovers.sitevars import sitevars_of
from adroit_publish.stores.bundle_store import Published
from adroit_publish.stores.records import last_publish, output_change
from adroit_publish.version import Version
from adroit_publish.versions import inspect as inspection
from adroit_publish.versions import promote as promotion
from adroit_publish.versions import pull as pulling
from adroit_publish.versions import serve as service


@click.command()
@at_target
@click.argument("model")
def versions(context: Context, model: str) -> None:
    """List the published versions of MODEL, oldest first."""
    inspection.check_model(context.store, model)
    rows = inspection.list_versions(context.checkout, context.store, model)
    damaged = [row for row in rows if row.damage]
    if context.as_json:
        print_json([row.as_dict() for row in rows])
        if damaged:
            raise click.exceptions.Exit(VerificationError.exit_code)
        return
    print_table(
        ["version", "created (UTC)", "by", "run", "size", "flavors"],
        [
            [
                row.version,
                row.created_utc,
                row.who,
                row.run_id,
                None if row.size_bytes is None else bytes_text(row.size_bytes),
                ", ".join(row.flavors),
            ]
            for row in rows
        ],
    )
    if damaged:
        raise VerificationError(
            f"{len(damaged)} of the versions of {model} cannot be read as a whole.",
            where=context.store.location,
            got="\n".join(f"{row.version}: {row.damage}" for row in damaged),
            next_step=f"python -m adroit_publish verify {damaged[0].version} "
            f"--target {context.target.name}",
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
    for dataset in record.datasets if record else ():
        yield "dataset", str(dataset)
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
        yield "experiment", record.lineage.experiment if record.lineage else None
        for line in record.went_past:
            yield "despite", line
        for line in record.accepted_lineage:
            yield "accepted", line
        for result in record.gates:
            yield f"gate {result.get('gate')}", kept_result(result)
    if change := output_change(version.records):
        yield "outputs", change
    for entry in version.records:
        if promoted := entry.promoted:
            yield "promoted", f"from {promoted.source} to {promoted.destination}"
            if proof := entry.verification:
                to = f"to promote it to {promoted.destination}"
                yield "verified", f"{proof.how}, predicted: {proof.predicted}, {to}"


def _with_page(name: str | None, page: str | None) -> str | None:
    return f"{name}  {page}" if page else name


@click.command()
@at_target
@click.argument("version")
@click.option("--shallow", is_flag=True, help="ask each place for the objects, and read none")
@click.option("--repair", "heal", is_flag=True, help="heal one place from the other")
def verify(context: Context, version: str, shallow: bool, heal: bool) -> None:
    """Read every byte of VERSION in every place, and recompute every digest.

    That is the store and the registry: the tag, the manifest, the config and every layer of the
    image, its base included.
    """
    published = service.find_published(context.checkout.flavors, context.store, version)
    places = open_places(context.target, published.model_name)
    with bar(f"verify {version}", 0) as progress:
        look = partial(verify_version, places.store, published, places.images, shallow=shallow)
        report, done = look(progress=progress), Repair()
        if heal and report.damages:
            done = repair(places, published, report.damages, _envs(context, published))
            report = look(progress=progress)
    if context.as_json:
        print_json(report.as_dict() | {"healed": done.healed})
    for line in done.healed if not context.as_json else ():
        print(f"healed: {line}")
    for line in report.strays if not context.as_json else ():
        print(f"not ours, and left alone: {line}")
    if report.problems:
        raise VerificationError(
            f"{len(report.problems)} of the objects of {version} are missing or wrong.",
            where=", ".join(report.places),
            got="\n".join(done.left or report.problems),
            next_step=_way_to_heal(context, published, report.damages, tried=heal),
        )
    if not context.as_json:
        size = bytes_text(report.size_bytes)
        seen = "every object is there" if shallow else f"{size}: every digest is right"
        print(f"{version}: {report.objects} objects in {' and '.join(report.places)}, {seen}.")


def _envs(context: Context, published: Published) -> list[ImageRepository]:
    """Returns the repository of the env that a version lies on, where it can be told."""
    try:
        name = Version(context.store, published).bundle.conda_env_name
    except PublishError:
        return []  # the env is named in a document that is damaged itself
    env = env_repository(context.target, promotion.known_env(context.checkout, name))
    return [env] if env else []


def _way_to_heal(
    context: Context, published: Published, damages: Sequence[Damage] = (), *, tried: bool = False
) -> str:
    if any(damage.next_step == UPGRADE for damage in damages):
        return UPGRADE
    if context.target.images and not tried:
        return repair_command(published.version, context.target.name)
    named = (f.name for f in context.checkout.flavors.values() if f.version == published.version)
    version = Version(context.store, published)
    again = publish_again(version, context.target.name, next(named, None))
    if entries := sorted({damage.entry for damage in damages if damage.entry}):
        return f"delete {', '.join(entries)} (what it names cannot be read), then\n{again}"
    return again


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
    for line in done.findings:
        print(line, file=sys.stderr)
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
@click.option("--check", is_flag=True, help="ask every place for every object of every version")
def status(context: Context, check: bool) -> None:
    """Show every flavor: its version, its state, its age, and what share of requests it gets."""
    pointers: dict[str, list[Pointer]] = {}
    if context.target.sitevar_addresses:
        try:
            for sitevars in sitevars_of(context.target, context.store).values():
                for model, pointer in sitevars.pointers().items():
                    pointers.setdefault(model, []).append(pointer)
        except PublishError as error:
            print(f"What is live cannot be told: {error.what}", file=sys.stderr)
    rows = inspection.status(context.checkout, context.target, context.store, pointers)
    if check:
        rows = inspection.with_custody(rows, context.checkout, context.target)
    if context.as_json:
        print_json([asdict(row) for row in rows])
    else:
        _print_status(rows)
    if damaged := [row for row in rows if row.state == "damaged"]:
        if context.as_json:
            raise click.exceptions.Exit(VerificationError.exit_code)
        raise VerificationError(
            "Versions are damaged.",
            got=", ".join(f"{row.version} of {row.flavor}" for row in damaged),
            next_step=_way_to_heal(context, context.store.get(str(damaged[0].version))),
        )


def _print_status(rows: Sequence[inspection.FlavorRow]) -> None:
    print_table(
        ["flavor", "version", "state", "live", "age", "detail"],
        [
            [
                row.flavor,
                row.version,
                row.state,
                None if row.live_percent is None else f"{row.live_percent:g} %",
                None if row.age_days is None else f"{row.age_days:.1f} d",
                _status_detail(row),
            ]
            for row in rows
        ],
    )


def _status_detail(row: inspection.FlavorRow) -> str:
    if row.live_version in (None, row.version):
        return row.detail
    other = f"live as {row.live_version}, which flavors.yaml no longer says"
    return "; ".join(filter(None, [other, row.detail]))
