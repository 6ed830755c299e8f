"""``rollover``: from the old version to the new one, a step at a time, by evidence.

``advance`` does the next step if its evidence is there, and otherwise says what is missing and
exits with 10: cron or CI can call it for days.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from adroit_publish.cli import checklist
from adroit_publish.cli.options import Context, at_target
from adroit_publish.cli.render import print_json
from adroit_publish.errors import EXIT_SOMETHING_TO_DO, ConfigError
from adroit_publish.rollover.needs import Lack
from adroit_publish.rollovers import verbs as rolling_over
from adroit_publish.rollovers.start import Asked
from adroit_publish.rollovers.start import start as begin
from adroit_publish.rollovers.steps import Outcome
from adroit_publish.rollovers.verbs import Rolling, Status, open_rolling
from adroit_publish.stores.rollovers import utc_text

STATES = ("deployed", "verified", "pointed", "draining", "drained")
POLL_S = 15.0


@click.group()
def rollover() -> None:
    """Move a model's production traffic from one flavor to another, by evidence."""


@rollover.command()
@at_target
@click.option("--from", "old", metavar="FLAVOR", help="the flavor that is live")
@click.option("--to", "new", metavar="FLAVOR", help="the flavor that is to be")
@click.option("--model", help="find both: the live one, and the only other one")
@click.option("--url", "urls", multiple=True, help="a server of the new version; repeat per region")
@click.option("--replicas", type=click.IntRange(1), help="how many are expected behind each URL")
@click.option("--prometheus", metavar="URL", help="where traffic is counted")
@click.option(
    "--metrics", multiple=True, metavar="URL", help="or: each server of both versions, repeated"
)
@click.option(
    "--traffic", multiple=True, metavar="SCHEME:URL", help="or: any other source, by its scheme"
)
@click.option("--steps", default="100", show_default=True, help="percents, such as 1,10,50,100")
@click.option(
    "--quiet", "quiet_s", type=float, default=3600.0, show_default=True,
    help="seconds without a request that count as drained",
)  # fmt: skip
@click.option(
    "--margin", type=float, default=0.01, show_default=True,
    help="how much larger the new one's share of errors may be, 0 to 1",
)  # fmt: skip
def start(
    context: Context,
    old: str | None,
    new: str | None,
    model: str | None,
    urls: tuple[str, ...],
    replicas: int | None,
    prometheus: str | None,
    metrics: tuple[str, ...],
    traffic: tuple[str, ...],
    steps: str,
    quiet_s: float,
    margin: float,
) -> None:
    """Begin a rollover; begun already, it is found again."""
    shares = _percents(steps)
    traffic += tuple(f"prometheus:{url}" for url in filter(None, [prometheus]))
    traffic += tuple(f"metrics:{url}" for url in metrics)
    asked = Asked(urls, replicas, traffic, shares, quiet_s, margin)
    rolling = _rolling(context)
    begun = begin(rolling, old, new, model, asked)
    _show(context, rolling_over.status(rolling, begun.rollover.model))


@rollover.command()
@at_target
@click.argument("model", required=False)
@click.option("--watch", is_flag=True, help="show it again every few seconds, until Ctrl-C")
@click.option("--markdown", is_flag=True, help="the checklist alone, for a pull request or a chat")
@click.option(
    "--open-pr-body", "file", type=click.Path(path_type=Path), metavar="FILE",
    help="write the checklist to FILE",
)  # fmt: skip
def status(
    context: Context, model: str | None, watch: bool, markdown: bool, file: Path | None
) -> None:
    """Show how a rollover stands, by fresh readings; nothing is changed."""
    rolling = _rolling(context)
    while True:
        standing = rolling_over.status(rolling, model)
        if file:
            _write(file, checklist.markdown(standing))
        if markdown:
            print(checklist.markdown(standing))
        else:
            _show(context, standing)
        if not watch or not standing.rollover.live:
            return
        print(f"-- {utc_text(time.time())}; Ctrl-C ends this", flush=True)
        time.sleep(POLL_S)


@rollover.command()
@at_target
@click.argument("model", required=False)
@click.option("--until", type=click.Choice(STATES), help="go on until then, however long it takes")
@click.option(
    "--every", "every_s", type=click.FloatRange(0.1), default=POLL_S, show_default=True,
    help="with --until: seconds between two looks",
)  # fmt: skip
def advance(context: Context, model: str | None, until: str | None, every_s: float) -> None:
    """Do the next step, if its evidence is there; exit code 10: something is missing."""
    rolling = _rolling(context)
    if until is None:
        _tell(context, rolling_over.move(rolling, model, "advance"))
        return

    def wait(outcome: Outcome) -> None:
        lacks = "; ".join(lack.found for lack in outcome.lacks)
        print(f"{utc_text(time.time())}  {outcome.rollover.state}: {lacks}", file=sys.stderr)
        time.sleep(every_s)

    _tell(context, rolling_over.move_until(rolling, model, until, wait))


@rollover.command()
@at_target
@click.argument("model", required=False)
@click.option("--why", required=True, help="the reason; the history and the hold keep it")
def rollback(context: Context, model: str | None, why: str) -> None:
    """Point back at the old flavor, and hold the new one so that CI does not undo it."""
    _tell(context, rolling_over.move(_rolling(context), model, "rollback", why))


@rollover.command()
@at_target
@click.argument("model", required=False)
def finish(context: Context, model: str | None) -> None:
    """Delete the old flavor from flavors.yaml, once its traffic has drained."""
    _tell(context, rolling_over.move(_rolling(context), model, "finish"))


@rollover.command()
@at_target
@click.argument("model", required=False)
@click.option("--why", required=True, help="the reason; the history keeps it")
def abandon(context: Context, model: str | None, why: str) -> None:
    """End a rollover and leave things as they are."""
    _tell(context, rolling_over.move(_rolling(context), model, "abandon", why))


def _rolling(context: Context) -> Rolling:
    return open_rolling(context.checkout, context.target, context.store)


def _percents(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            "--steps takes percents.", got=text, wanted="rising percents that end in 100: 1,10,100"
        ) from None


def _tell(context: Context, outcome: Outcome) -> None:
    """Says what a command came to; ends with 10 where it did not do its step."""
    current = outcome.rollover
    if context.as_json:
        print_json(
            {
                "rollover": current.as_dict(),
                "before": outcome.before,
                "lacks": [vars(lack) for lack in outcome.lacks],
            }
        )
    elif outcome.lacks:
        print(f"{current.model}: {current.state}, and not further yet:")
        _print_lacks(outcome.lacks)
    else:
        last = current.history[-1]
        why = f" ({last.why})" if last.why else ""
        share = f", {current.new.flavor} at {current.shares[0]:g} %" if current.shares else ""
        print(f"{current.model}: {outcome.before} -> {current.state}{why}{share}")
    if outcome.lacks:
        raise click.exceptions.Exit(EXIT_SOMETHING_TO_DO)


def _show(context: Context, standing: Status) -> None:
    if context.as_json:
        print_json(_as_json(standing))
        return
    current = standing.rollover
    old, new = (f"{side.flavor} ({side.version})" for side in (current.old, current.new))
    print(f"{current.model} {current.id}: {old} -> {new}: {current.state}")
    for box in standing.boxes:
        print(f"  [{'x' if box.done else ' '}] {box.title}{checklist.detail(box)}")
    if standing.lacks:
        print("missing for the next step:")
        _print_lacks(standing.lacks)
    for warning in standing.warnings:
        print(f"warning: {warning}")
    for way in standing.next:
        print(f"next: python -m adroit_publish rollover {way} {current.model}")


def _print_lacks(lacks: Sequence[Lack]) -> None:
    for lack in lacks:
        print(f"  {lack.evidence}: {lack.found}")
        if lack.how:
            print(f"    {lack.how}")


def _as_json(standing: Status) -> dict[str, Any]:
    return {
        "rollover": standing.rollover.as_dict(),
        "boxes": [vars(box) for box in standing.boxes],
        "lacks": [vars(lack) for lack in standing.lacks],
        "next": list(standing.next),
        "warnings": list(standing.warnings),
    }


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            "The checklist cannot be written.", where=path, got=error.strerror, wanted="a file"
        ) from error
