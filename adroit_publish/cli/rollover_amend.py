"""``rollover amend``: what a live rollover was told of its evidence, changed on record."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from adroit_publish.cli.options import Context, at_target_alone
from adroit_publish.cli.rollover_told import show
from adroit_publish.errors import ConfigError
from adroit_publish.rollovers.amend import amend as amend_rollover
from adroit_publish.rollovers.probes import probe_addresses
from adroit_publish.rollovers.verbs import open_rolling, status


@click.command()
@at_target_alone
@click.argument("model", required=False)
@click.option("--why", required=True, help="the reason; the rollover keeps it")
@click.option("--url", "urls", multiple=True, help="the servers of the new version, all of them")
@click.option("--old-url", "old_urls", multiple=True, help="those of the old one: the way back")
@click.option("--replicas", type=click.IntRange(1), help="how many are expected behind each URL")
@click.option("--prometheus", multiple=True, metavar="URL", help="where traffic is counted")
@click.option("--metrics", multiple=True, metavar="URL", help="or: each server of both versions")
@click.option("--traffic", multiple=True, metavar="SCHEME:URL", help="or: any other source")
@click.option("--quiet", "quiet_s", type=click.FloatRange(1), help="seconds that count as drained")
@click.option("--margin", type=click.FloatRange(0, 1), help="of the share of errors")
@click.option("--min-requests", type=click.IntRange(0), help="of the new version, at each step")
@click.option("--bake", "bake_s", type=click.FloatRange(0), help="seconds that a step lasts")
def amend(
    context: Context,
    model: str | None,
    why: str,
    prometheus: tuple[str, ...],
    metrics: tuple[str, ...],
    traffic: tuple[str, ...],
    **told: Any,
) -> None:
    """Change addresses, margins or samples of a live rollover, on record."""
    traffic += tuple(f"prometheus:{url}" for url in prometheus)
    traffic += tuple(f"metrics:{url}" for url in metrics)
    given = {**told, "traffic": traffic}
    changes = {name: value for name, value in given.items() if value not in (None, ())}
    if not changes:
        raise ConfigError("Nothing to change was named.", wanted="one option at least, and --why")
    rolling = open_rolling(context.checkout, context.target, context.store)
    rollover = amend_rollover(rolling, model, changes, why)
    standing = status(rolling, rollover.model)
    show(context, replace(standing, probes=tuple(probe_addresses(rollover))))
