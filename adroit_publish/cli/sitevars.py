"""``sitevar``: which flavor of a model is live, since when and why; and moving it by hand."""

from __future__ import annotations

from typing import Any

import click

from adroit_publish.cli.options import Context, at_target
from adroit_publish.cli.render import print_json, print_table
from adroit_publish.config.sitevars import Pointer
from adroit_publish.errors import ConfigError
from adroit_publish.evidence.sitevars import Change
from adroit_publish.rollovers.sitevars import point, sitevars_of


@click.group()
def sitevar() -> None:
    """Look at adroit_model_versions, which services route by; move one model's pointer."""


@sitevar.command()
@at_target
@click.argument("model", required=False)
def get(context: Context, model: str | None) -> None:
    """Print which flavor is live, or the share of each: of MODEL, or of every model."""
    sitevars = sitevars_of(context.target, context.store)
    if model is None:
        pointers = sitevars.pointers()
        if context.as_json:
            print_json({name: pointer.as_json() for name, pointer in pointers.items()})
        else:
            print_table(["model", "flavors"], list(pointers.items()))
        return
    reading = sitevars.get(model)
    if context.as_json:
        print_json(
            {
                "model": model,
                "pointer": _json(reading.pointer),
                "tag": reading.tag,
                "read_utc": reading.read_utc.isoformat(),
            }
        )
    else:
        print(reading.pointer or f"{context.target.sitevars} has no entry for {model}.")


@sitevar.command("set")
@at_target
@click.argument("model")
@click.argument("flavors", nargs=-1, required=True, metavar="FLAVOR[=PERCENT]...")
@click.option("--why", required=True, help="the reason; the history keeps it")
@click.option(
    "--expect", metavar="FLAVOR[=PERCENT],...|none", help="refuse where it points elsewhere now"
)
def set_(
    context: Context, model: str, flavors: tuple[str, ...], why: str, expect: str | None
) -> None:
    """Point MODEL at a flavor, or at several: percents that add up to 100."""
    pointer = _pointer(flavors)
    if expect is None:
        expected = sitevars_of(context.target, context.store).get(model).pointer
    else:
        expected = None if expect == "none" else _pointer(tuple(expect.split(",")))
    point(context.checkout, context.target, context.store, model, pointer, expected, why)
    if context.as_json:
        print_json({"model": model, "before": _json(expected), "pointer": _json(pointer)})
    else:
        print(f"{model}: {expected or 'no entry'} -> {pointer}")


@sitevar.command()
@at_target
@click.argument("model")
def history(context: Context, model: str) -> None:
    """List who moved MODEL's pointer, when, from what to what, and why."""
    changes = sitevars_of(context.target, context.store).history(model)
    if context.as_json:
        print_json([_change(change) for change in changes])
        return
    print_table(
        ["when (UTC)", "by", "before", "after", "why"],
        [
            [f"{change.utc:%Y-%m-%d %H:%M:%S}", change.who, change.before, change.after, change.why]
            for change in changes
        ],
    )


def _pointer(words: tuple[str, ...]) -> Pointer:
    weights: dict[str, float] = {}
    try:
        for word in words:
            flavor, equals, percent = word.partition("=")
            if flavor in weights:
                raise ValueError(f"names {flavor!r} twice")
            weights[flavor] = float(percent) if equals else 100.0
        return Pointer.of(weights)
    except ValueError as reason:
        raise ConfigError(
            "Not a valid pointer.",
            got=f"{' '.join(words)}: it {reason}",
            wanted="FLAVOR, or FLAVOR=PERCENT ... with percents that add up to 100",
        ) from None


def _json(pointer: Pointer | None) -> Any:
    return pointer.as_json() if pointer else None


def _change(change: Change) -> dict[str, Any]:
    return {
        "utc": change.utc.isoformat(),
        "who": change.who,
        "why": change.why,
        "before": _json(change.before),
        "after": _json(change.after),
    }
