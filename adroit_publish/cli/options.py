"""What commands share: ``--target`` and ``--json``, and the context that these two mean.

The options that say how a rollover goes are here as well; so says ``rollout:`` of config.yaml.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import click

from adroit_publish.checkout import Checkout, find_root, open_checkout
from adroit_publish.cli.render import print_json
from adroit_publish.config.rollout import Rollout, read_check, read_duration, read_steps
from adroit_publish.config.targets import Target
from adroit_publish.errors import ConfigError, PublishError
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

    def flavor_named(self, name: str) -> str | None:
        """Returns a name that is a flavor's; None for a version's."""
        return name if name in self.checkout.flavors else None


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


_USUAL = Rollout()


def _option(name: str, field: str, text: str, usual: object = None, **more: Any) -> Any:
    shown = f"{text}; {usual} unless config.yaml says otherwise" if usual else text
    return click.option(name, field, help=shown, **more)


OPTIONS = (
    _option("--steps", "steps", "percents, such as 1,10,50,100", "100", metavar="PERCENTS"),
    _option(
        "--min-requests", "min_requests", "of the new version, at each step", _USUAL.min_requests,
        type=click.IntRange(0),
    ),
    _option("--bake", "bake_s", "how long a step lasts at least: 45s, 30m", "10m", metavar="TIME"),
    _option(
        "--quiet", "quiet_s", "time without a request that counts as drained: 45s, 30m, 1h", "1h",
        metavar="TIME",
    ),
    _option(
        "--margin", "margin", "how much larger the new one's share of errors may be", _USUAL.margin,
        type=click.FloatRange(0, 1),
    ),
    _option(
        "--latency-margin", "latency_margin", "how much longer its p50 and p99 may be, as a part",
        _USUAL.latency_margin, type=click.FloatRange(0),
    ),
    _option(
        "--approve-at", "approve_at", "a share that waits for a person; repeat for several",
        multiple=True, type=click.FloatRange(0, 100, min_open=True), metavar="PERCENT",
    ),
    _option(
        "--check", "checks", "a check of your own, in PromQL; $old and $new are the bundle ids",
        multiple=True, metavar="'NAME: QUERY <= NUMBER'",
    ),
)  # fmt: skip


def how_it_goes(command: Command) -> Command:
    """Adds the options to a command, which takes them by the names of ``Rollout``."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def where_it_is(command: Command) -> Command:
    """Adds where both versions answer and where traffic is counted, all of that as ``traffic``."""

    @click.option("--url", "urls", multiple=True, help="a server of the new version; repeat it")
    @click.option("--old-url", "old_urls", multiple=True, help="one of the old: the way back")
    @click.option("--replicas", type=click.IntRange(1), help="expected behind each URL")
    @click.option("--prometheus", multiple=True, metavar="URL", help="where traffic is counted")
    @click.option("--metrics", multiple=True, metavar="URL", help="or: every server of both")
    @click.option("--traffic", multiple=True, metavar="SCHEME:URL", help="or: any other source")
    @click.option(
        "--by-region/--everywhere",
        default=None,
        help="take each step in one region after the other, or in all at once (as usual)",
    )
    @wraps(command)
    def run(
        *arguments: Any,
        prometheus: tuple[str, ...],
        metrics: tuple[str, ...],
        traffic: tuple[str, ...],
        **options: Any,
    ) -> None:
        traffic += tuple(f"prometheus:{url}" for url in prometheus)
        traffic += tuple(f"metrics:{url}" for url in metrics)
        command(*arguments, traffic=traffic, **options)

    return run


def given(told: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what was given of the options, by the names of ``Rollout``.

    Raises:
        ConfigError: One is not what it has to be.
    """
    values = {name: value for name, value in told.items() if value not in (None, ())}
    readers: dict[str, tuple[str, Callable[[Any], Any]]] = {
        "steps": ("--steps", _steps),
        "bake_s": ("--bake", read_duration),
        "quiet_s": ("--quiet", read_duration),
        "checks": ("--check", _checks),
    }
    for name in values.keys() & readers.keys():
        option, read = readers[name]
        try:
            values[name] = read(values[name])
        except ValueError as reason:
            got = ", ".join(values[name]) if name == "checks" else values[name]
            raise ConfigError(
                f"{option} is not what it has to be.", got=got, wanted=reason
            ) from None
    return values


def _steps(text: str) -> tuple[float, ...]:
    try:
        percents = [float(part) for part in text.split(",")]
    except ValueError:
        percents = []
    return read_steps(percents)


def _checks(texts: tuple[str, ...]) -> tuple[str, ...]:
    for text in texts:
        read_check(text)
    return texts
