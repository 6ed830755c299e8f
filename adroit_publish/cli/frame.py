"""The frame of ``python -m adroit_publish``: what every command is given, and how each one ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import click

from adroit_publish.checkout import Workspace, find_root, read_workspace
from adroit_publish.cli.render import print_json
from adroit_publish.config.targets import Target
from adroit_publish.errors import EXIT_INTERRUPTED, PublishError
from adroit_publish.places import open_store
from adroit_publish.stores.bundle_store import BundleStore


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


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Look at published models, check every byte of them, get them, serve them."""


def command_of(group: click.Group) -> Callable[[Callable[..., Any]], click.Command]:
    """Returns the decorator that makes a command of ``group``, as ``command`` does of the top."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        def run(*, target: str | None, as_json: bool, **arguments: Any) -> None:
            workspace = read_workspace(find_root(Path.cwd()))
            chosen = workspace.target(target, os.environ)
            function(Context(workspace, chosen, open_store(chosen), as_json), **arguments)

        run.__doc__ = function.__doc__
        run.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined]
        run = click.option("--json", "as_json", is_flag=True, help="print JSON for machines")(run)
        run = click.option("--target", help="the target of adroit.toml to look at")(run)
        return group.command(function.__name__.strip("_").replace("_", "-"))(run)

    return decorate


def command(function: Callable[..., Any]) -> click.Command:
    """Makes a command of a function whose first argument is the ``Context``."""
    return command_of(cli)(function)
