"""``plan``: what would be done; ``hold`` and ``unhold``: what CI is to leave alone."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial

import click

from adroit_publish.cli.options import Context, at_target, in_git_options
from adroit_publish.cli.render import bytes_text, markdown_cell, print_json, print_table
from adroit_publish.errors import EXIT_SOMETHING_TO_DO
from adroit_publish.publish.planning import Plan
from adroit_publish.publish.planning import plan as make_plan
from adroit_publish.rollovers.holds import hold as hold_flavor
from adroit_publish.rollovers.holds import unhold as unhold_flavor
from adroit_publish.writeback.one_flavor import InGit


@click.command()
@at_target
@click.option("--flavor", help="these flavors alone, with commas between them")
@click.option("--markdown", is_flag=True, help="print a Markdown table, for a CI job's summary")
def plan(context: Context, flavor: str | None, markdown: bool) -> None:
    """Show what a publish or a republish would do, and why. Reads only.

    Exit code 10: there is something to do; 0: there is not.
    """
    names = [name.strip() for name in (flavor or "").split(",") if name.strip()]
    plans = make_plan(context.checkout, context.target.name, names)
    if context.as_json:
        print_json([plan.as_dict() for plan in plans])
    elif markdown:
        print(_markdown(plans))
    else:
        _print(plans)
    raise click.exceptions.Exit(_exit_code(plans))


@click.command()
@at_target
@in_git_options
@click.argument("flavor")
@click.option("--why", required=True, help="the reason, one line; everybody is told")
def hold(context: Context, flavor: str, why: str, in_git: InGit) -> None:
    """Hold FLAVOR: CI and --stale leave it alone, and a publish by hand needs --despite-hold."""
    edited = hold_flavor(context.checkout, context.store, flavor, why, in_git)
    if context.as_json:
        print_json({"flavor": flavor, "hold": why})
    else:
        print(f"{flavor} is held: {why}\n{edited.line()}".strip())


@click.command()
@at_target
@in_git_options
@click.argument("flavor")
def unhold(context: Context, flavor: str, in_git: InGit) -> None:
    """End the hold of FLAVOR, and of the version that was rolled back in it."""
    warn = partial(print, file=sys.stderr)
    edited, held = unhold_flavor(context.checkout, context.store, flavor, in_git, warn)
    if context.as_json:
        print_json({"flavor": flavor, "hold": None})
    else:
        print(f"{flavor} is no longer held" if held else f"{flavor} was not held")
        print(edited.line(), end="\n" if edited.line() else "")


def _exit_code(plans: Sequence[Plan]) -> int:
    """Returns the code of the first flavor that cannot be judged, or whether there is work."""
    errors = [plan.error.exit_code for plan in plans if plan.error]
    if errors:
        return errors[0]
    return EXIT_SOMETHING_TO_DO if any(plan.to_do for plan in plans) else 0


def _print(plans: Sequence[Plan]) -> None:
    print_table(
        ["flavor", "state", "version", "to send", "why"],
        [
            [plan.flavor, plan.state.value, plan.version, _sent(plan), "; ".join(plan.why)]
            for plan in plans
        ],
    )
    for plan in plans:
        details = [*_lines(plan), *plan.notes]
        if plan.error:
            details.append(str(plan.error))
        if details:
            print(f"\n{plan.flavor}:")
            for detail in details:
                print("  " + detail.replace("\n", "\n  "))


def _lines(plan: Plan) -> list[str]:
    lines = []
    if plan.model and plan.model_bytes is not None:
        lines.append(f"{plan.model}, {bytes_text(plan.model_bytes)}")
    lines += _run_lines(plan)
    for place, size in (plan.send_bytes or {}).items():
        reused_bytes = (plan.reuse_bytes or {}).get(place)
        known = "at most " if reused_bytes is None else ""
        reused = "" if reused_bytes is None else f", {reused_bytes:,} bytes re-used"
        lines.append(f"{place}: {known}{size:,} bytes to send{reused}")
    if plan.line:
        lines.append(f"flavors.yaml:{plan.line.number}")
        lines += [f"- {plan.line.before}", f"+ {plan.line.after}"]
    return lines


def _run_lines(plan: Plan) -> list[str]:
    lines = []
    if plan.run:
        named = f"run {plan.run['name']!r} of experiment {plan.run['experiment']}"
        lines.append(f"{named}, started {plan.run['started_utc'] or 'at an unknown time'}")
        lines += [f"metric {name}: {value:.6g}" for name, value in plan.run["metrics"].items()]
    return lines + [f"gate {result}" for result in plan.gates]


def _sent(plan: Plan) -> str:
    if not plan.send_bytes:
        return ""
    most = max(plan.send_bytes.values())
    return f"{'' if plan.reuse_bytes else 'at most '}{bytes_text(most)}"


def _markdown(plans: Sequence[Plan]) -> str:
    """Returns a table that GitHub renders; nothing in it can break out of its cell."""

    cell = markdown_cell
    rows = [["flavor", "state", "version", "becomes", "to send", "why"], ["---"] * 6]
    rows += [
        [
            cell(plan.flavor),
            f"**{plan.state.value}**" if plan.to_do else plan.state.value,
            cell(plan.version),
            cell(plan.new_version),
            _sent(plan),
            cell("\n".join([*plan.why, *_run_lines(plan), *plan.notes])),
        ]
        for plan in plans
    ]
    work = sum(plan.to_do for plan in plans)
    heading = f"### {work} of {len(plans)} flavors have something to do\n"
    return "\n".join([heading, *(f"| {' | '.join(row)} |" for row in rows)])
