"""``rollover amend``: what a live rollover was told of its evidence, changed on record."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from adroit_publish.cli.options import Context, at_target_alone, given, how_it_goes, where_it_is
from adroit_publish.cli.rollover_told import show
from adroit_publish.errors import ConfigError
from adroit_publish.rollover.spelled import differences
from adroit_publish.rollovers.amend import amend as amend_rollover
from adroit_publish.rollovers.probes import probe_addresses
from adroit_publish.rollovers.verbs import open_rolling, status


@click.command()
@at_target_alone
@click.argument("model", required=False)
@click.option("--why", required=True, help="the reason; the rollover keeps it")
@where_it_is
@how_it_goes
def amend(context: Context, model: str | None, why: str, **told: Any) -> None:
    """Change addresses, steps, margins or samples of a live rollover, on record.

    What is given takes the place of what the rollover has: give all of several.
    """
    changes = given(told)
    if not changes:
        raise ConfigError("Nothing to change was named.", wanted="one option at least, and --why")
    rolling = open_rolling(context.checkout, context.target, context.store)
    before, rollover = amend_rollover(rolling, model, changes, why)
    if not context.as_json:
        for was, now in differences(before, rollover):
            print(f"changed: {was} -> {now}")
    standing = status(rolling, rollover.model)
    show(context, replace(standing, probes=tuple(probe_addresses(rollover))))
