"""``rollover``: from the old version to the new one, a step at a time, by evidence.

``advance`` does the next step if its evidence is there, and otherwise says what is missing and
exits with 10: cron or CI can call it for days. How commands tell what they came to, and the exit
codes, is in ``rollover_told``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from adroit_publish.cli import checklist
from adroit_publish.cli.entry.help import Commands
from adroit_publish.cli.options import (
    Context,
    at_target,
    at_target_alone,
    given,
    how_it_goes,
    in_git_options,
    where_it_is,
)
from adroit_publish.cli.picture.page import page
from adroit_publish.cli.render import print_json
from adroit_publish.cli.rollover_amend import amend
from adroit_publish.cli.rollover_told import show, tell, tell_all
from adroit_publish.errors import ConfigError, PublishError
from adroit_publish.rollovers import verbs as rolling_over
from adroit_publish.rollovers.afterwards import after_rollback
from adroit_publish.rollovers.afterwards import finish as delete_old_flavor
from adroit_publish.rollovers.probes import probe_addresses
from adroit_publish.rollovers.start import Asked
from adroit_publish.rollovers.start import start as begin
from adroit_publish.rollovers.steps import Outcome
from adroit_publish.rollovers.unattended import advance_unattended, tell_news
from adroit_publish.rollovers.unattended import approve as approve_share
from adroit_publish.rollovers.verbs import Rolling, open_rolling
from adroit_publish.stores.rollovers import utc_text
from adroit_publish.writeback.one_flavor import InGit

STATES = ("deployed", "verified", "pointed", "draining", "drained")
POLL_S = 15.0


@click.group(cls=Commands)
def rollover() -> None:
    """Move a model's production traffic from one flavor to another, by evidence."""


@rollover.command()
@at_target
@click.option("--from", "old", metavar="FLAVOR", help="the flavor that is live")
@click.option("--to", "new", metavar="FLAVOR", help="the flavor that is to be")
@click.option("--model", help="find both: the live one, and the only other one")
@where_it_is
@how_it_goes
def start(
    context: Context,
    old: str | None,
    new: str | None,
    model: str | None,
    urls: tuple[str, ...],
    old_urls: tuple[str, ...],
    replicas: int | None,
    traffic: tuple[str, ...],
    **told: Any,
) -> None:
    """Begin a rollover; begun already, it is found again."""
    asked = Asked(urls, replicas, traffic, given(told), old_urls)
    rolling = _rolling(context)
    begun = begin(rolling, old, new, model, asked)
    standing = rolling_over.status(rolling, begun.rollover.model)
    show(context, replace(standing, probes=tuple(probe_addresses(begun.rollover))))


@rollover.command()
@at_target_alone
@click.argument("model", required=False)
@click.option("--watch", is_flag=True, help="show it again every few seconds, until Ctrl-C")
@click.option("--markdown", is_flag=True, help="the checklist alone, for a pull request or a chat")
@click.option(
    "--open-pr-body", "file", type=click.Path(path_type=Path), metavar="FILE",
    help="write the checklist to FILE",
)  # fmt: skip
@click.option(
    "--html", type=click.Path(path_type=Path), metavar="FILE",
    help="draw shares, requests, errors and latency over time into FILE",
)  # fmt: skip
def status(
    context: Context,
    model: str | None,
    watch: bool,
    markdown: bool,
    file: Path | None,
    html: Path | None,
) -> None:
    """Show how a rollover stands, by fresh readings; nothing is changed."""
    rolling = _rolling(context)
    while True:
        standing = rolling_over.status(rolling, model)
        if file:
            _write(file, checklist.markdown(standing))
        if html:
            _write(html, page(standing.rollover))
        if markdown:
            print(checklist.markdown(standing))
        else:
            show(context, standing)
        if not watch or not standing.rollover.live:
            return
        print(f"-- {utc_text(time.time())}; Ctrl-C ends this", flush=True)
        time.sleep(POLL_S)


@rollover.command()
@at_target
@click.argument("model", required=False)
@click.option("--all", "every", is_flag=True, help="every live rollover, one step each")
@click.option("--until", type=click.Choice(STATES), help="go on until then, however long it takes")
@click.option(
    "--every", "every_s", type=click.FloatRange(0.1), default=POLL_S, show_default=True,
    help="with --until: seconds between two looks",
)  # fmt: skip
@click.option(
    "--rollback-on", type=click.Choice(["unhealthy"]),
    help="go back as soon as the new version is measured to be worse",
)  # fmt: skip
def advance(
    context: Context,
    model: str | None,
    every: bool,
    until: str | None,
    every_s: float,
    rollback_on: str | None,
) -> None:
    """Do the next step, if its evidence is there.

    Exit code 0: moved on, or ended; 10: waiting; 4: held, or refused; 6: unhealthy.
    """
    rolling = _rolling(context)
    if every:
        if model or until or rollback_on:
            raise ConfigError("--all goes without a model, --until and --rollback-on.")
        tell_all(context, _news_of_all(rolling))
        return
    wait = partial(_wait, every_s)
    outcome, back = advance_unattended(rolling, model, until, wait, rollback=bool(rollback_on))
    tell_news(rolling, outcome)
    if back:
        after = after_rollback(rolling, outcome.rollover, InGit())
        tell(context, outcome, after, unhealthy=True)
    tell(context, outcome)


def _news_of_all(rolling: Rolling) -> Iterator[Outcome | PublishError]:
    for outcome in rolling_over.move_all(rolling):
        if isinstance(outcome, Outcome):
            tell_news(rolling, outcome)
        yield outcome


def _wait(every_s: float, outcome: Outcome) -> None:
    lacks = "; ".join(lack.found for lack in outcome.lacks)
    print(f"{utc_text(time.time())}  {outcome.rollover.state}: {lacks}", file=sys.stderr)
    time.sleep(every_s)


@rollover.command()
@at_target_alone
@in_git_options
@click.argument("model", required=False)
@click.option("--why", required=True, help="the reason; the history and the hold keep it")
@click.option("--force", is_flag=True, help="to servers that are known not to answer; recorded")
def rollback(context: Context, model: str | None, why: str, force: bool, in_git: InGit) -> None:
    """Point back at the old flavor, then hold the new one and say what could not be checked.

    Refuses only where it is known that no server of the old version answers.
    """
    rolling = _rolling(context)
    outcome = rolling_over.move(rolling, model, "rollback", why, force=force)
    after: Iterable[str] = ()
    tell_news(rolling, outcome)
    if outcome.moved:
        after = after_rollback(rolling, outcome.rollover, in_git)
    tell(context, outcome, after)


@rollover.command()
@at_target
@in_git_options
@click.argument("model", required=False)
def finish(context: Context, model: str | None, in_git: InGit) -> None:
    """Delete the old flavor from flavors.yaml, once its traffic has drained."""
    rolling = _rolling(context)
    outcome, edited = delete_old_flavor(rolling, model, in_git)
    tell_news(rolling, outcome)
    tell(context, outcome, filter(None, [edited.line()] if edited else []))


@rollover.command()
@at_target_alone
@click.argument("model", required=False)
@click.option("--why", required=True, help="what you looked at; kept with your name")
def approve(context: Context, model: str | None, why: str) -> None:
    """Let a rollover go on to the share that waits for a person (start --approve-at)."""
    rollover, approval = approve_share(_rolling(context), model, why)
    if context.as_json:
        print_json(vars(approval))
    else:
        print(f"{approval.share:g} % is approved by {approval.who}")
        print(f"next: python -m adroit_publish rollover advance {rollover.model}")


@rollover.command()
@at_target
@click.argument("model", required=False)
@click.option("--why", required=True, help="the reason; the history keeps it")
def abandon(context: Context, model: str | None, why: str) -> None:
    """End a rollover, from any state, and leave things as they are."""
    rolling = _rolling(context)
    outcome = rolling_over.move(rolling, model, "abandon", why)
    tell_news(rolling, outcome)
    tell(context, outcome)


rollover.add_command(amend)


def _rolling(context: Context) -> Rolling:
    return open_rolling(context.checkout, context.target, context.store)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            "The file cannot be written.", where=path, got=error.strerror, wanted="a file"
        ) from error
