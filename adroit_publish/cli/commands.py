"""``python -m adroit_publish``: look at what is published, check it, get it, serve it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import click

from adroit_publish.bundle.deployment import KINDS
from adroit_publish.cli.progress import bar
from adroit_publish.cli.render import bytes_text, print_json, print_table, print_yaml
from adroit_publish.config.targets import Target
from adroit_publish.errors import EXIT_INTERRUPTED, PublishError, VerificationError
from adroit_publish.pipeline import inspect as inspection
from adroit_publish.pipeline import predict as asking
from adroit_publish.pipeline import pull as pulling
from adroit_publish.pipeline import serve as service
from adroit_publish.pipeline.build_env import build_env as build_env_image
from adroit_publish.pipeline.deployment import manifests_of
from adroit_publish.pipeline.places import open_places, open_store
from adroit_publish.pipeline.workspace import Workspace, find_root, read_workspace
from adroit_publish.stores.bundle_store import BundleStore

SERVED = "the served one"


@dataclass(frozen=True)
class Context:
    """What every command needs.

    Attributes:
        workspace: The checkout.
        target: The target that is looked at.
        store: Its bundle store.
        as_json: Print JSON for machines.
    """

    workspace: Workspace
    target: Target
    store: BundleStore
    as_json: bool


def main() -> NoReturn:
    """Runs the command line; ends with the exit codes of ``adroit_publish.errors``."""
    as_json = "--json" in sys.argv
    try:
        # Not cli.main(): it has an exit code of its own for a reader that has gone.
        with cli.make_context("python -m adroit_publish", sys.argv[1:]) as context:
            code = cli.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as stop:
        code = stop.exit_code
    except PublishError as error:
        if as_json:
            print_json(error.as_dict())
        else:
            print(error, file=sys.stderr)
        code = error.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever reads has seen enough; Python must not complain when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code if isinstance(code, int) else 0)


def _command(function: Callable[..., Any]) -> click.Command:
    """Makes a command of a function whose first argument is the ``Context``."""

    def run(*, target: str | None, as_json: bool, **arguments: Any) -> None:
        workspace = read_workspace(find_root(Path.cwd()))
        chosen = workspace.target(target, os.environ)
        function(Context(workspace, chosen, open_store(chosen), as_json), **arguments)

    run.__doc__ = function.__doc__
    run.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined]
    run = click.option("--json", "as_json", is_flag=True, help="print JSON for machines")(run)
    run = click.option("--target", help="the target of adroit.toml to look at")(run)
    return cli.command(function.__name__.strip("_").replace("_", "-"))(run)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Look at published models, check every byte of them, get them, serve them."""


@_command
@click.argument("model")
def versions(context: Context, model: str) -> None:
    """List the published versions of MODEL, oldest first."""
    rows = inspection.list_versions(context.workspace, context.store, model)
    if context.as_json:
        print_json([asdict(row) for row in rows])
        return
    if not rows:
        known = ", ".join(context.store.models()) or "none"
        print(f"No version of {model} in {context.store.location}. Models there: {known}.")
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


@_command
@click.argument("version")
def show(context: Context, version: str) -> None:
    """Show what VERSION holds, what it was made from, and how its publish went."""
    published = service.find_published(context.workspace, context.store, version)
    facts = inspection.show(context.store, published)
    if context.as_json:
        print_json(facts)
        return
    bundle = facts["bundle"]
    record: dict[str, Any] = next(reversed(facts["records"]), {})
    verification = record.get("verification") or {}
    handler = bundle["serve"].get("handler") or {}
    rows = [
        ("model", facts["model_name"]),
        ("version", facts["version"]),
        ("manifest", facts["manifest"]["digest"]),
        ("bundle id", facts["bundle_id"]),
        ("store", facts["store"]),
        ("run", bundle["run_id"]),
        ("conda env", f"{bundle['conda_env']['name']} {bundle['conda_env']['digest'] or ''}"),
        ("handler", handler.get("class_path")),
        ("python", bundle["python_version"]),
        ("published", f"{record.get('created_utc')} by {record.get('who')}"),
        ("commit", f"{record.get('commit')}{' (dirty)' if record.get('dirty') else ''}"),
        ("verified", f"{verification.get('how')}, predicted: {verification.get('predicted')}"),
    ]
    print_table(["what", "value"], rows)
    print()
    print_table(
        ["layer", "size", "digest"],
        [[layer["kind"], bytes_text(layer["size"]), layer["digest"]] for layer in facts["layers"]],
    )
    print()
    print_table(
        ["file", "size"],
        [
            [f"{kind}/{entry['path']}", bytes_text(entry["size"])]
            for kind, entries in bundle["files"].items()
            for entry in entries
        ],
    )


@_command
@click.argument("version")
def verify(context: Context, version: str) -> None:
    """Read every byte of VERSION and recompute every digest."""
    published = service.find_published(context.workspace, context.store, version)
    with bar(f"verify {version}", 0) as progress:
        report = inspection.verify(context.store, published, progress)
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


@_command
@click.argument("version")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--oci", is_flag=True, help="write an OCI layout, for skopeo, umoci and others")
def pull(context: Context, version: str, directory: Path, oci: bool) -> None:
    """Get VERSION into DIRECTORY, verified to the last byte."""
    published = service.find_published(context.workspace, context.store, version)
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


@_command
@click.argument("version")
@click.option("--kind", type=click.Choice(KINDS), required=True, help="what is to run it")
def manifest(context: Context, version: str, kind: str) -> None:
    """Print what runs VERSION, its image named by digest: for kubectl, KServe or SageMaker."""
    published = service.find_published(context.workspace, context.store, version)
    documents = manifests_of(context.target, context.store, published, kind)
    if kind == "sagemaker" and not context.as_json:
        print_json(documents[0])  # what the AWS command line reads
    elif context.as_json:
        print_json(documents)
    else:
        print_yaml(documents)


@_command
@click.argument("version", metavar="VERSION|FLAVOR")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True)
def serve(context: Context, version: str, port: int) -> None:
    """Serve VERSION, or what FLAVOR names, on this machine until Ctrl-C."""
    published = service.find_published(context.workspace, context.store, version)
    layers = context.store.manifest(published).own_layers
    size_bytes = sum(layer.size_bytes for layer in layers)
    with ExitStack() as bars:
        progress = bars.enter_context(bar(f"pull {published.version}", size_bytes))
        service.serve(
            context.workspace, context.store, published, port, progress, pulled=bars.close
        )


@_command
@click.argument("url")
@click.option(
    "--example",
    is_flag=False,
    flag_value=SERVED,
    metavar="[VERSION]",
    help="send the input example of the version that is served, or of VERSION",
)
def predict(context: Context, url: str, example: str | None) -> None:
    """Ask the server at URL, for example http://127.0.0.1:8080, for a prediction.

    The request is the model's input example, or without --example standard input: JSON in one of
    MLflow's forms, such as {"dataframe_split": ...}.
    """
    if example is None:
        body = sys.stdin.buffer.read()
    else:
        served = example == SERVED
        store = context.store
        published = asking.served_version(store, url) if served else store.get(example)
        body = asking.example_request(store, published)
    prediction = asking.predict(url, body)
    print_json(asdict(prediction) if context.as_json else prediction.answer)


@_command
def status(context: Context) -> None:
    """Show every flavor: its version, its state, its age."""
    rows = inspection.status(context.workspace, context.store)
    if context.as_json:
        print_json([asdict(row) for row in rows])
        return
    print_table(
        ["flavor", "version", "state", "age", "detail"],
        [
            [
                row.flavor,
                row.version,
                row.state,
                None if row.age_days is None else f"{row.age_days:.1f} d",
                row.detail,
            ]
            for row in rows
        ],
    )


@_command
@click.argument("env")
@click.option("--base", help="an image with the env's Python, for where no conda channel answers")
def build_env(context: Context, env: str, base: str | None) -> None:
    """Build the image of ENV of conda_envs.yaml and push it to the target's registry."""
    heard = partial(print, file=sys.stderr)
    built = build_env_image(context.workspace, context.target, env, base=base, heard=heard)
    if context.as_json:
        print_json(asdict(built))
        return
    rows = [("image", built.image), ("digest", built.digest), ("built with", built.how)]
    print_table(["what", "value"], [*rows, ("packages", len(built.packages))])
