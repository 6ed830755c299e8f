"""Commands of a modeler who begins: a new project, and the rehearsal of one."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from adroit_publish.checkout import find_root, open_checkout
from adroit_publish.cli.options import json_option
from adroit_publish.cli.progress import Lines
from adroit_publish.cli.render import print_json
from adroit_publish.publish.stages import Listener

KINDS = ("sklearn", "lightgbm", "torch", "pyfunc")


@click.command()
@click.argument("name")
@click.option(
    "--from", "kind", type=click.Choice(KINDS), default="sklearn", show_default=True,
    help="what the model is made with",
)  # fmt: skip
@click.option("--env", help="a conda env; by default the first that holds what the kind needs")
@json_option
def new(name: str, kind: str, env: str | None, as_json: bool) -> None:
    """Write the project NAME: config, model, flow, test and flavor, which train and publish."""
    from adroit_publish.projects.new import new_project

    project = new_project(open_checkout(find_root(Path.cwd())), name, kind, env)
    if as_json:
        print_json(asdict(project))
        return
    for file in project.files:
        print(f"{project.directory}/{file}")
    print(f"flavors.yaml: {name}, in the conda env {project.conda_env}")
    print(
        f"next: adroit-publish check {name}\n"
        f"      git add {project.directory} flavors.yaml && git commit -m 'Add {name}'\n"
        f"      python {project.directory}/flow.py run --publish"
    )


@click.command()
@click.argument("name", metavar="MODEL|FLAVOR")
@click.option("--rows", type=click.IntRange(1), default=100, show_default=True)
@json_option
def check(name: str, rows: int, as_json: bool) -> None:
    """Rehearse MODEL on a few rows: train, log, and all that a publish would refuse afterwards.

    Nothing of it stays. What only the target knows, such as permissions, `plan` and `doctor` show.
    """
    from adroit_publish.projects.check import check_project

    checkout = open_checkout(find_root(Path.cwd()))
    checked = check_project(checkout, name, rows, Listener() if as_json else Lines())
    if as_json:
        print_json(asdict(checked))
        return
    for line in checked.warnings:
        print(f"warning: {line}")
    print(f"{checked.flavor}: trained on {rows} rows, loads and predicts. Nothing of it was kept.")
