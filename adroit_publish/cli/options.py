"""What commands share: ``--target`` and ``--json``, and the context that these two mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import click

from adroit_publish.checkout import Checkout, find_root, open_checkout
from adroit_publish.cli.render import print_json
from adroit_publish.config.targets import Target
from adroit_publish.errors import PublishError
from adroit_publish.places import open_store
from adroit_publish.stores.bundle_store import BundleStore
from adroit_publish.writeback.one_flavor import InGit

Command = Callable[..., None]


@dataclass(frozen=True)
class Context:
    """What every command needs."""

    checkout: Checkout
    target: Target
    store: BundleStore
    as_json: bool


def json_option(function: Command) -> Command:
    """Adds ``--json``, by which a command prints its result, or its error, for machines."""

    @click.option("--json", "as_json", is_flag=True, help="print JSON for machines")
    @wraps(function)
    def run(*, as_json: bool, **arguments: Any) -> None:
        try:
            function(as_json=as_json, **arguments)
        except PublishError as error:
            if not as_json:
                raise
            print_json(error.as_dict())
            raise click.exceptions.Exit(error.exit_code) from error

    return run


def target_option(function: Command) -> Command:
    """Adds ``--target``."""
    return click.option("--target", help="the target of adroit.toml to look at")(function)


def at_target(function: Command) -> Command:
    """Adds ``--target`` and ``--json``, and gives the command their ``Context`` first."""
    return _at(function, open_checkout)


def at_target_alone(function: Command) -> Command:
    """As ``at_target``, for what has to work whatever this clone's flavors.yaml says."""
    return _at(function, Checkout)


def _at(function: Command, open_files: Callable[[Path], Checkout]) -> Command:
    @target_option
    @json_option
    @wraps(function)
    def run(*, target: str | None, as_json: bool, **arguments: Any) -> None:
        checkout = open_files(find_root(Path.cwd()))
        chosen = checkout.target(target)
        function(Context(checkout, chosen, open_store(chosen), as_json), **arguments)

    return run


def in_git_options(function: Command) -> Command:
    """Adds ``--commit`` and ``--push`` of flavors.yaml, and gives the command their ``in_git``."""

    @click.option("--commit", is_flag=True, help="commit flavors.yaml")
    @click.option("--push", is_flag=True, help="commit flavors.yaml and push it")
    @wraps(function)
    def run(*arguments: Any, commit: bool, push: bool, **options: Any) -> None:
        function(*arguments, in_git=InGit(commit, push), **options)

    return run
