"""A rollover over time, as HTML with drawings in it: nothing is loaded, and nothing is run.

Four drawings share one axis of time: the share of the traffic, requests by second, errors by
request and latency, of both versions. Every step is marked in each by its number in the list
below them. A point is what was counted since the look before it, or since its step began; latency
is that of its whole step so far.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from html import escape
from itertools import pairwise
from typing import Any

from adroit_publish.cli.picture.plot import Curve, Mark, plot
from adroit_publish.rollover.health import seconds
from adroit_publish.rollover.state import Rollover
from adroit_publish.stores.rollovers import utc_text

NO_LOOK = "No look was kept yet: <code>rollover advance</code> keeps one a minute."
STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --faint: #d0d7de; --paper: #fff; --old: #8a4600;
        --new: #0550ae }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --faint: #3d444d; --paper: #0d1117;
        --old: #f0a860; --new: #6cb6ff } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
       max-width: 960px; margin: 1.5em auto; padding: 0 16px }
h1 { font-size: 1.4em; overflow-wrap: anywhere } h2 { font-size: 1em; margin: 1.4em 0 .2em }
.plots { display: grid; gap: 12px;
         grid-template-columns: repeat(auto-fit, minmax(min(340px, 100%), 1fr)) }
.plots svg { width: 100%; height: auto; display: block }
.key { margin-right: 1.5em; white-space: nowrap } .key-old { color: var(--old) }
.key-new { color: var(--new) }
.steps { overflow-x: auto } table { border-collapse: collapse }
td, th { padding: .2em .8em .2em 0; text-align: left; vertical-align: top;
       border-bottom: 1px solid var(--faint) }
td:nth-child(2) { white-space: nowrap } td:last-child { min-width: 8em }
@media (max-width: 600px) { table { font-size: 13px } }
"""
STEPS = ["", "when", "state", "who", "why"]
Look = Mapping[str, Any]


def page(rollover: Rollover) -> str:
    """Returns the whole page."""
    old, new = rollover.old, rollover.new
    title = escape(f"{rollover.model}: {old.flavor} to {new.flavor}, {rollover.state}")
    key = (
        f'<span class="key key-old">&#9476;&#9476; {escape(old.flavor)} ({escape(old.version)})'
        f'</span> <span class="key key-new">&#9472;&#9472; {escape(new.flavor)} '
        f"({escape(new.version)})</span>"
    )
    note = "" if rollover.samples else f"<p>{NO_LOOK}</p>\n"
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{title}</title>\n'
        f'<meta name="viewport" content="width=device-width">\n<style>{STYLE}</style>\n'
        f"<h1>{title}</h1>\n<p>{key}</p>\n"
        f'<div class="plots">\n{"".join(drawings(rollover))}</div>\n{note}{_steps(rollover)}\n'
        "</html>\n"
    )


def drawings(rollover: Rollover) -> Iterator[str]:
    """Yields each drawing as SVG that stands alone; without a look, that of the shares alone."""
    looks = rollover.samples
    marks = [
        Mark(entry.at_s, number, f"{entry.after}, {utc_text(entry.at_s)}")
        for number, entry in enumerate(rollover.history, 1)
    ]
    times = [mark.at_s for mark in marks] + [look["at_s"] for look in looks]
    if not times:
        return
    span = min(times), max(times)
    shares = list(share_of_time(rollover, span[1]))
    yield plot(
        "Share of the traffic",
        [
            Curve("old", [(at_s, 100 - share) for at_s, share in shares], stairs=True),
            Curve("new", shares, stairs=True),
        ],
        span,
        marks,
        lambda value: f"{value:g} %",
    )
    if not looks:
        return
    rates = list(since_the_look_before(looks))
    yield plot(
        "Requests by second", list(_both(rates, _rate)), span, marks, lambda value: f"{value:.3g}"
    )
    yield plot(
        "Errors by request",
        list(_both(rates, _failed)),
        span,
        marks,
        lambda value: f"{value:.2g} %",
    )
    latency = [
        curve
        for name in ("p50", "p99")
        for curve in _both(looks, lambda counted, _s, at=name: counted[f"{at}_s"], name)
    ]
    yield plot("Latency: p50, and p99 (thin)", latency, span, marks, seconds)


def _both(
    looks: list[Look] | tuple[Look, ...],
    value: Callable[..., float | None],
    kind: str = "",
) -> Iterator[Curve]:
    """Yields a curve for each version: ``value`` of its counts in a window of some seconds."""
    for side in ("old", "new"):
        points = [(look["at_s"], value(look[side], look["window_s"])) for look in looks]
        yield Curve(f"{side} {kind}".strip(), points)


def _rate(counted: Look, window_s: float) -> float | None:
    return counted["requests"] / window_s if window_s else None


def _failed(counted: Look, _window_s: float) -> float | None:
    return 100 * counted["errors"] / counted["requests"] if counted["requests"] else None


def share_of_time(rollover: Rollover, end: float) -> Iterator[tuple[float, float]]:
    """Yields when the sitevar was read back with which share of the new flavor.

    A look says it; where none was kept before the next switch, the next of the steps was taken.
    """
    switches = [
        (entry.at_s, entry.after)
        for entry in rollover.history
        if (entry.before, entry.after) in (("pointing", "pointed"), ("rolling back", "rolled back"))
    ]
    share = 0.0
    if rollover.history:
        yield rollover.history[0].at_s, share
    for (at_s, state), (until, _) in pairwise([*switches, (float("inf"), "")]):
        looked = [look["share"] for look in rollover.samples if at_s <= look["at_s"] < until]
        if state == "rolled back":
            share = 0.0
        elif looked:
            share = looked[0]
        elif not rollover.checks.by_region:
            share = next((step for step in rollover.steps if step > share), share)
        yield at_s, share
    if not switches:
        yield from ((look["at_s"], look["share"]) for look in rollover.samples)
    yield end, rollover.shares[0]


def since_the_look_before(looks: tuple[Look, ...]) -> Iterator[Look]:
    """Yields looks with what was counted since the one before, where both are of one step."""
    for before, look in pairwise((None, *looks)):
        assert look is not None
        yield _difference(before, look) or look


def _difference(before: Look | None, look: Look) -> Look | None:
    window_s = look["window_s"] - before["window_s"] if before else 0.0
    if before is None or window_s <= 0:
        return None
    sides = {
        side: {name: look[side][name] - before[side][name] for name in ("requests", "errors")}
        for side in ("old", "new")
    }
    if before["share"] != look["share"] or min(min(side.values()) for side in sides.values()) < 0:
        return None
    return {"at_s": look["at_s"], "window_s": window_s, **sides}


def steps(rollover: Rollover) -> list[list[str]]:
    """Returns a row for each step: the number that marks it, when, the state, who, and why."""
    return [
        [str(number), utc_text(entry.at_s), entry.after, entry.who, entry.why or ""]
        for number, entry in enumerate(rollover.history, 1)
    ]


def _steps(rollover: Rollover) -> str:
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}" for cell in row) for row in steps(rollover)
    )
    head = "<tr>" + "".join(f"<th>{name}" for name in STEPS)
    return f'<h2>Steps</h2>\n<div class="steps"><table>{head}{rows}</table></div>'
