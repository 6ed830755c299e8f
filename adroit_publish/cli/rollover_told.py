"""How the commands of a rollover tell what they came to, and the exit code that says it to cron.

0    moved on, or the rollover has ended
10   waiting: evidence is missing, and time or a mend may bring it
4    held, or refused: a person has to look
6    unhealthy: the new version is measured to be worse
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import click

from adroit_publish.cli import checklist
from adroit_publish.cli.options import Context
from adroit_publish.cli.render import print_json
from adroit_publish.errors import (
    EXIT_OK,
    EXIT_SOMETHING_TO_DO,
    PublishError,
    RefusedError,
    VerificationError,
)
from adroit_publish.rollover.needs import Lack, sitevar_name, weights_text
from adroit_publish.rollover.rules import typed
from adroit_publish.rollovers.steps import Outcome
from adroit_publish.rollovers.verbs import Status
from adroit_publish.stores.rollovers import utc_text

_WORST_FIRST = (6, 4, 5, 3, 2, EXIT_SOMETHING_TO_DO)


def exit_code(outcome: Outcome) -> int:
    """Returns the code that a command ends with; see above."""
    verdicts = {lack.verdict for lack in outcome.lacks} - {"ended"}
    if outcome.rollover.state == "held" or verdicts & {"held", "refused"}:
        return RefusedError.exit_code
    if "unhealthy" in verdicts:
        return VerificationError.exit_code
    return EXIT_SOMETHING_TO_DO if verdicts else EXIT_OK


def tell(
    context: Context, outcome: Outcome, after: Iterable[str] = (), *, unhealthy: bool = False
) -> NoReturn:
    """Says what a command came to, then what comes after, and ends with its exit code.

    Args:
        context: Of the command.
        outcome: What it came to.
        after: Lines to be said next, each as soon as it is there.
        unhealthy: Whether it was rolled back for what was measured; then nothing else counts.
    """
    if context.as_json:
        print_json(_outcome(outcome) | {"after": list(after)})
    else:
        _print_outcome(outcome)
        for line in after:
            print(line, flush=True)
    code = VerificationError.exit_code if unhealthy else exit_code(outcome)
    raise click.exceptions.Exit(code)


def tell_all(context: Context, outcomes: Iterable[Outcome | PublishError]) -> None:
    """Says what each rollover came to, and ends with the worst of their exit codes."""
    codes, told = set(), []
    for outcome in outcomes:
        if isinstance(outcome, PublishError):
            codes.add(outcome.exit_code)
            told.append(outcome.as_dict())
        else:
            codes.add(exit_code(outcome))
            told.append(_outcome(outcome))
        if context.as_json:
            continue
        if isinstance(outcome, PublishError):
            print(outcome, flush=True)
        else:
            _print_outcome(outcome)
    if context.as_json:
        print_json(told)
    raise click.exceptions.Exit(next((code for code in _WORST_FIRST if code in codes), EXIT_OK))


def show(context: Context, standing: Status) -> None:
    """Says how a rollover stands."""
    if context.as_json:
        print_json(_as_json(standing))
        return
    current = standing.rollover
    old, new = (f"{side.flavor} ({side.version})" for side in (current.old, current.new))
    print(f"{current.model} {current.id}: {old} -> {new}: {current.state}")
    for box in standing.boxes:
        print(f"  [{'x' if box.done else ' '}] {box.title}{checklist.detail(box)}")
    for region, weights in standing.regions.items():
        print(f"{sitevar_name(region)} points at {weights_text(weights)}")
    if standing.pointed is not None and not standing.regions:
        print(f"the sitevar points at {weights_text(standing.pointed)}")
    if standing.answered is not None:
        at, servers = utc_text(standing.answered.at_s), standing.answered.servers
        print(f"the old version last answered at {at}, {servers} servers")
    if standing.lacks:
        print("missing for the next step:")
        _print_lacks(standing.lacks)
    for line in standing.probes:
        print(f"does not answer as it should: {line}")
    for warning in standing.warnings:
        print(f"warning: {warning}")
    for way in standing.next:
        print(f"next: python -m adroit_publish rollover {typed(way, current)}")


def _print_outcome(outcome: Outcome) -> None:
    current, last = outcome.rollover, outcome.rollover.history[-1]
    if outcome.lacks and current.live:
        refused = any(lack.verdict == "refused" for lack in outcome.lacks)
        head = (
            f"refused; it stays {current.state}"
            if refused
            else f"{current.state}, and not further yet"
        )
        print(f"{current.model}: {head}:")
        _print_lacks(outcome.lacks)
    elif outcome.lacks:
        print(f"{current.model}: the rollover has ended: {current.state}")
    else:
        why = f" ({last.why})" if last.why else ""
        share = f", {current.new.flavor} at {current.shares[0]:g} %" if current.shares else ""
        share += "".join(f", in {region} {at:g} %" for region, at in current.ahead.items())
        print(f"{current.model}: {outcome.before} -> {current.state}{why}{share}", flush=True)


def _print_lacks(lacks: Sequence[Lack]) -> None:
    for lack in lacks:
        print(f"  {lack.evidence}: {lack.found}")
        if lack.how:
            print(f"    {lack.how}")


def _outcome(outcome: Outcome) -> dict[str, Any]:
    return {
        "rollover": outcome.rollover.as_dict(),
        "before": outcome.before,
        "lacks": [vars(lack) for lack in outcome.lacks],
    }


def _as_json(standing: Status) -> dict[str, Any]:
    regions = {"regions": dict(standing.regions)} if standing.regions else {}
    return {
        "rollover": standing.rollover.as_dict(),
        "boxes": [vars(box) for box in standing.boxes],
        "lacks": [vars(lack) for lack in standing.lacks],
        "next": list(standing.next),
        "warnings": list(standing.warnings),
        "pointed": standing.pointed,
        "answered": vars(standing.answered) if standing.answered else None,
        "probes": list(standing.probes),
    } | regions
