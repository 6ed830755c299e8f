"""The command that brings a version from one target to another."""

from __future__ import annotations

import os
from pathlib import Path

import click

from adroit_publish.checkout import find_root, read_workspace
from adroit_publish.cli.frame import cli
from adroit_publish.cli.progress import bar
from adroit_publish.cli.render import bytes_text, print_json, print_table
from adroit_publish.versions import promote as promotion


@cli.command()
@click.argument("version", metavar="VERSION|FLAVOR")
@click.option("--from", "source", required=True, metavar="TARGET", help="where it is")
@click.option("--to", "destination", required=True, metavar="TARGET", help="where it shall be")
@click.option("--json", "as_json", is_flag=True, help="print JSON for machines")
def promote(version: str, source: str, destination: str, as_json: bool) -> None:
    """Copy VERSION, or what FLAVOR names, to another target: the same digest, what is missing.

    The source is read as the AWS profile of its target, the destination is written as the
    environment's. flavors.yaml stays as it is.
    """
    workspace = read_workspace(find_root(Path.cwd()))
    here, there = (workspace.target(name, os.environ) for name in (source, destination))
    with bar(f"promote {version}", 0) as progress:
        done = promotion.promote(workspace, version, here, there, os.environ, progress)
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
