"""``sitevar``: which flavor of a model is live, since when and why; and moving it by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from adroit_publish.cli.entry.help import Commands
from adroit_publish.cli.options import Context, at_target
from adroit_publish.cli.render import print_json, print_table
from adroit_publish.config.sitevars import Pointer
from adroit_publish.errors import ConfigError
from adroit_publish.evidence.sitevars import Change, Sitevars
from adroit_publish.rollovers.sitevars import chosen, point_everywhere, sitevars_of

in_one_region = click.option("--region", help="of a target with several: in this one alone")


@click.group(cls=Commands)
def sitevar() -> None:
    """Look at adroit_model_versions, which services route by; move one model's pointer."""


@sitevar.command()
@at_target
@click.argument("model", required=False)
@in_one_region
def get(context: Context, model: str | None, region: str | None) -> None:
    """Print which flavor is live, or the share of each: of MODEL, or of every model."""
    everywhere = chosen(sitevars_of(context.target, context.store), region)
    if len(everywhere) > 1:
        _print_regions(context, everywhere, model)
        return
    ((place, sitevars),) = everywhere.items()
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
        address = context.target.sitevar_addresses[place]
        print(reading.pointer or f"{address} has no entry for {model}.")


def _print_regions(context: Context, everywhere: Mapping[str, Sitevars], model: str | None) -> None:
    """Prints what the sitevars of several regions say."""
    said = {
        region: {model: sitevars.get(model).pointer} if model else dict(sitevars.pointers())
        for region, sitevars in everywhere.items()
    }
    if context.as_json:
        print_json(
            {
                region: {name: _json(pointer) for name, pointer in pointers.items()}
                for region, pointers in said.items()
            }
        )
        return
    rows = [
        [name, region, pointer or "no entry"]
        for region, pointers in said.items()
        for name, pointer in pointers.items()
    ]
    print_table(["model", "region", "flavors"], rows)


@sitevar.command("set")
@at_target
@click.argument("model")
@click.argument("flavors", nargs=-1, required=True, metavar="FLAVOR[=PERCENT]...")
@click.option("--why", required=True, help="the reason; the history keeps it")
@click.option(
    "--expect", metavar="FLAVOR[=PERCENT],...|none", help="refuse where it points elsewhere now"
)
@in_one_region
def set_(
    context: Context,
    model: str,
    flavors: tuple[str, ...],
    why: str,
    expect: str | None,
    region: str | None,
) -> None:
    """Point MODEL at a flavor, or at several: percents that add up to 100; in every region."""
    pointer = _pointer(flavors)
    known = None if expect in (None, "none") else _pointer(tuple(expect.split(",")))
    pointing = point_everywhere(
        context.checkout,
        chosen(sitevars_of(context.target, context.store), region),
        context.store,
        model,
        pointer,
        lambda sitevars: sitevars.get(model).pointer if expect is None else known,
        why,
    )
    if not context.as_json:
        for region, before in pointing.before.items():
            where = f" in {region}" if region else ""
            print(f"{model}{where}: {before or 'no entry'} -> {pointer}", flush=True)
    if pointing.error:
        raise pointing.error
    told = [
        {"model": model, "before": _json(before), "pointer": _json(pointer)}
        | ({"region": region} if region else {})
        for region, before in pointing.before.items()
    ]
    if context.as_json:
        print_json(told if len(told) > 1 else told[0])


@sitevar.command()
@at_target
@click.argument("model")
@in_one_region
def history(context: Context, model: str, region: str | None) -> None:
    """List who moved MODEL's pointer, when, from what to what, and why."""
    everywhere = chosen(sitevars_of(context.target, context.store), region)
    changes = [
        (region, change)
        for region, sitevars in everywhere.items()
        for change in sitevars.history(model)
    ]
    changes.sort(key=lambda pair: pair[1].utc if len(everywhere) > 1 else 0)
    if context.as_json:
        print_json([_change(change) | ({"region": at} if at else {}) for at, change in changes])
        return
    print_table(
        [
            "when (UTC)",
            "by",
            "before",
            "after",
            "why",
            *(["region"] if "" not in everywhere else []),
        ],
        [
            [f"{change.utc:%Y-%m-%d %H:%M:%S}", change.who, change.before, change.after, change.why]
            + ([at] if at else [])
            for at, change in changes
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
