"""Commands that look at what is published, check it, get it and bring it elsewhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import click

from adroit_publish.checkout import find_root, open_checkout
from adroit_publish.cli.options import Context, at_target, json_option
from adroit_publish.cli.progress import bar
from adroit_publish.cli.render import bytes_text, print_json, print_table
from adroit_publish.config.sitevars import Pointer
from adroit_publish.custody.check import verify as verify_version
from adroit_publish.custody.repair import Repair, publish_again, repair, repair_command
from adroit_publish.custody.report import Damage
from adroit_publish.custody.signature import admit_signed
from adroit_publish.errors import UPGRADE, PublishError, RefusedError, VerificationError
from adroit_publish.places import env_repository, open_places
from adroit_publish.registry.repository import ImageRepository
from adroit_publish.rollovers.sitevars import sitevars_of
from adroit_publish.stores.bundle_store import Published
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
@click.option("--shallow", is_flag=True, help="ask each place for the objects, and read none")
@click.option("--repair", "heal", is_flag=True, help="heal one place from the other")
def verify(context: Context, version: str, shallow: bool, heal: bool) -> None:
    """Read every byte of VERSION in every place, and recompute every digest.

    That is the store and the registry: the tag, the manifest, the config and every layer of the
    image, its base included. Where the target demands signatures, it has to be signed as well.
    """
    published = service.find_published(context.checkout.flavors, context.store, version)
    places = open_places(context.target, published.model_name)
    with bar(f"verify {version}", 0) as progress:
        look = partial(verify_version, places.store, published, places.images, shallow=shallow)
        report, done = look(progress=progress), Repair()
        if heal and report.damages:
            done = repair(places, published, report.damages, _envs(context, published))
            report = look(progress=progress)
    signed = None
    if not report.problems:
        signed = admit_signed(context.store, published, context.flavor_named(version))
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
        if signed:
            print(f"{version}: signed by {signed.key}, {signed.statement.who}.")


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
    flavor, layers = context.flavor_named(version), context.store.manifest(published).own_layers
    with bar(f"pull {version}", sum(layer.size_bytes for layer in layers)) as progress:
        if oci:
            places = open_places(context.target, published.model_name)
            pulling.pull_oci(places, published, directory, progress, flavor=flavor)
        else:
            pulling.pull(context.store, published, directory, progress, flavor=flavor)
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
    if refused := [row for row in rows if row.state == "refused"]:
        if context.as_json:
            raise click.exceptions.Exit(RefusedError.exit_code)
        raise RefusedError(
            "Versions are not signed as their target demands.",
            where=f"target {context.target.name}",
            got="\n".join(f"{row.version} of {row.flavor}: {row.detail}" for row in refused),
            next_step=f"python -m adroit_publish show {refused[0].version} "
            f"--target {context.target.name}",
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
