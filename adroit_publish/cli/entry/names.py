"""What an argument stands for, by what it is called: the names it takes, and a shell completes.

A model's argument takes a flavor's name too. Completion asks nothing but this disk: the checkout's
files, and a store that is a directory; it never fails, it only knows less.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from adroit_publish.bundle.version_names import PublishedVersion
from adroit_publish.checkout import Checkout, find_root
from adroit_publish.errors import PublishError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

PROGRAM = "adroit-publish"
VARIABLE = "_ADROIT_PUBLISH_COMPLETE"


class ModelName(click.ParamType):  # type: ignore[type-arg]  # click before 8.5 has none
    """The name of a model, or of a flavor of one."""

    name = "text"

    def convert(
        self, value: str, param: click.Parameter | None, context: click.Context | None
    ) -> str:
        """Returns the model's name; what is neither is told by who looks for it."""
        with suppress(PublishError):
            checkout = Checkout(find_root(Path.cwd()))
            flavors = checkout.flavors
            if value in flavors and not any(f.config == _config(value) for f in flavors.values()):
                return checkout.project(flavors[value]).model_name
        return value


def _config(model: str) -> str:
    return f"projects/{model}/config.yaml"


def know_names(group: click.Group) -> None:
    """Teaches the arguments and options of all commands what their names stand for."""
    for command in group.commands.values():
        if isinstance(command, click.Group):
            know_names(command)
        for parameter in command.params:
            if parameter.name == "model":
                parameter.type = ModelName()
            if names := NAMES.get(str(parameter.name)):
                if group.name == "rollover" and parameter.name == "model":
                    names = _running
                parameter.shell_complete = partial(_matching, names)  # type: ignore[method-assign]


def _matching(
    names: Callable[[Checkout], Iterable[str]], _context: click.Context, incomplete: str
) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    found: list[str] = []
    with suppress(PublishError):
        found = list(names(Checkout(find_root(Path.cwd()))))
    return [CompletionItem(name) for name in dict.fromkeys(found) if name.startswith(incomplete)]


def _flavors(checkout: Checkout) -> Iterable[str]:
    return checkout.flavors


def _versions(checkout: Checkout) -> Iterator[str]:
    yield from checkout.flavors
    versions = (str(flavor.version) for flavor in checkout.flavors.values())
    yield from filter(PublishedVersion.matches, versions)
    with suppress(PublishError):
        for bundles in _directories(checkout):
            yield from (
                path.name for path in bundles.glob("*/v*") if PublishedVersion.matches(path.name)
            )


def _models(checkout: Checkout) -> Iterator[str]:
    for flavor in checkout.flavors.values():
        with suppress(PublishError):
            yield checkout.project(flavor).model_name


def _running(checkout: Checkout) -> Iterator[str]:
    from adroit_publish.places import open_store
    from adroit_publish.stores.rollovers import Rollovers

    for target in checkout.targets.by_name.values():
        if target.on_this_machine:
            yield from (
                kept.rollover.model for kept in Rollovers(open_store(target).objects).live()
            )


def _directories(checkout: Checkout) -> Iterator[Path]:
    for target in checkout.targets.by_name.values():
        if target.on_this_machine:
            yield Path(target.bundles.removeprefix("file:"))


def _targets(checkout: Checkout) -> Iterable[str]:
    return checkout.targets.by_name


def _envs(checkout: Checkout) -> Iterable[str]:
    return checkout.conda_envs


NAMES: dict[str, Callable[[Checkout], Iterable[str]]] = {
    **dict.fromkeys(("version", "a", "b", "example"), _versions),
    **dict.fromkeys(("flavor", "old", "new", "flavors"), _flavors),
    **dict.fromkeys(("target", "source", "destination"), _targets),
    **dict.fromkeys(("model",), _models),
    **dict.fromkeys(("env",), _envs),
}


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh"]))
def completion(shell: str) -> None:
    """Print what makes a shell complete commands, flavors, models, versions and targets."""
    _complete(click.get_current_context().find_root().command, f"{shell}_source")


def complete(group: click.Command) -> bool:
    """Answers a shell that asks for completions, or returns False where none does."""
    if instruction := os.environ.get(VARIABLE):
        _complete(group, instruction)
        return True
    return False


def _complete(group: click.Command, instruction: str) -> None:
    from click.shell_completion import shell_complete

    shell_complete(group, {}, PROGRAM, VARIABLE, instruction)
