"""A rollover over time, as HTML with drawings in it: nothing is loaded, and nothing is run.

Four drawings share one axis of time: the share of the traffic, requests by second, errors by
request and latency, of both versions, with the steps marked. A point is a look: what was counted at
its step so far. Colours follow the reader's light or dark scheme, and lines differ without them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from adroit_publish.rollover.health import seconds
from adroit_publish.rollover.state import Rollover
from adroit_publish.stores.rollovers import utc_text

WIDTH, HEIGHT, LEFT, RIGHT, TOP = 860, 150, 64, 12, 10
MARKED = ("pointed", "draining", "drained", "retired", "held", "rolled back", "abandoned")
STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --faint: #c9d1d9; --paper: #fff; --old: #6b5200;
        --new: #0550ae }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --faint: #444c56; --paper: #0d1117;
        --old: #e3b341; --new: #6cb6ff } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
       max-width: 900px; margin: 2em auto; padding: 0 1em }
h1 { font-size: 1.4em } h2 { font-size: 1em; margin: 1.4em 0 .2em }
svg { width: 100%; height: auto } svg text { font-size: 12px; fill: var(--ink) }
.old, .new { fill: none; stroke-width: 2 } .old { stroke: var(--old); stroke-dasharray: 6 3 }
.new { stroke: var(--new) } .p99 { stroke-width: 1 } .dot { stroke: none }
.old.dot { fill: var(--old) } .new.dot { fill: var(--new) }
.axis { stroke: var(--faint) } .mark { stroke: var(--faint); stroke-dasharray: 2 3 }
.key-old { color: var(--old) } .key-new { color: var(--new) }
table { border-collapse: collapse } td, th { padding: .2em .8em .2em 0; text-align: left;
       border-bottom: 1px solid var(--faint) }
"""


@dataclass(frozen=True)
class Curve:
    """One curve of a drawing.

    Attributes:
        kind: Its class: ``old``, ``new``, and ``p99`` for the thin one.
        points: (seconds, value); None is a gap.
    """

    kind: str
    points: Sequence[tuple[float, float | None]]


def page(rollover: Rollover) -> str:
    """Returns the whole page."""
    old, new = rollover.old, rollover.new
    title = escape(f"{rollover.model}: {old.flavor} to {new.flavor}, {rollover.state}")
    key = (
        f'<span class="key-old">&#9476; {escape(old.flavor)} ({escape(old.version)})</span> &nbsp; '
        f'<span class="key-new">&#9472; {escape(new.flavor)} ({escape(new.version)})</span>'
    )
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{title}</title>\n'
        f'<meta name="viewport" content="width=device-width">\n<style>{STYLE}</style>\n'
        f"<h1>{title}</h1>\n<p>{key}</p>\n{''.join(drawings(rollover))}\n{_steps(rollover)}\n</html>\n"
    )


def drawings(rollover: Rollover) -> Iterator[str]:
    """Yields each drawing under its heading, as HTML that stands alone in any page."""
    looks, marks = rollover.samples, list(_marks(rollover))
    times = [look["at_s"] for look in looks] + [at for at, _ in marks]
    if not looks:
        yield "<p>No look was kept yet: <code>rollover advance</code> keeps one a minute.</p>"
        return
    span = min(times), max(times)

    def line(kind: str, value: Callable[[Mapping[str, Any]], float | None]) -> Curve:
        return Curve(kind, [(look["at_s"], value(look)) for look in looks])

    def of(
        side: str, value: Callable[[Any, Mapping[str, Any]], float | None], kind: str = ""
    ) -> Curve:
        return line(f"{side} {kind}".strip(), lambda look: value(look[side], look))

    def rate(counted: Any, look: Mapping[str, Any]) -> float | None:
        return counted["requests"] / look["window_s"] if look["window_s"] else None

    def failed(counted: Any, _look: Mapping[str, Any]) -> float | None:
        return 100 * counted["errors"] / counted["requests"] if counted["requests"] else None

    sides = ("old", "new")
    shares = [
        line("new", lambda look: look["share"]),
        line("old", lambda look: 100 - look["share"]),
    ]
    yield _drawing("Share of the traffic", shares, span, marks, lambda value: f"{value:g} %")
    yield _drawing(
        "Requests by second", [of(side, rate) for side in sides], span, marks, lambda v: f"{v:.3g}"
    )
    yield _drawing(
        "Errors by request",
        [of(side, failed) for side in sides],
        span,
        marks,
        lambda v: f"{v:.2g} %",
    )
    latency = [
        of(side, lambda counted, _look, name=name: counted[f"{name}_s"], name)  # type: ignore[misc]
        for side in sides
        for name in ("p50", "p99")
    ]
    yield _drawing("Latency, p50 and (thin) p99", latency, span, marks, seconds)


def _marks(rollover: Rollover) -> Iterator[tuple[float, str]]:
    for entry in rollover.history:
        if entry.after in MARKED:
            yield entry.at_s, entry.after


def _drawing(
    title: str,
    lines: Sequence[Curve],
    span: tuple[float, float],
    marks: Sequence[tuple[float, str]],
    label: Callable[[float], str],
) -> str:
    begin, end = span
    values = [value for line in lines for _, value in line.points if value is not None]
    top = max([*values, 0.0]) or 1.0
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - 2 * TOP

    def x(at_s: float) -> float:
        return LEFT + wide * (at_s - begin) / max(end - begin, 1.0)

    def y(value: float) -> float:
        return TOP + high * (1 - value / top)

    parts = [
        f'<path class="axis" d="M{LEFT} {y(part):.1f}H{WIDTH - RIGHT}"/>'
        f'<text x="{LEFT - 6}" y="{y(part) + 4:.1f}" text-anchor="end">{escape(label(part))}</text>'
        for part in (0.0, top)
    ]
    parts += [
        f'<line class="mark" x1="{x(at):.1f}" x2="{x(at):.1f}" y1="{TOP}" y2="{HEIGHT - TOP}">'
        f"<title>{escape(name)}, {utc_text(at)}</title></line>"
        for at, name in marks
    ]
    for line in lines:
        placed = [(x(at), y(value)) for at, value in line.points if value is not None]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in placed)
        parts.append(f'<polyline class="{line.kind}" points="{path}"/>')
        parts += [
            f'<circle class="{line.kind} dot" cx="{a:.1f}" cy="{b:.1f}" r="2"/>' for a, b in placed
        ]
    return (
        f'<h2>{escape(title)}</h2>\n<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg>\n'
    )


def _steps(rollover: Rollover) -> str:
    rows = "".join(
        f"<tr><td>{utc_text(entry.at_s)}<td>{escape(entry.after)}<td>{escape(entry.who)}"
        f"<td>{escape(entry.why or '')}"
        for entry in rollover.history
    )
    return f"<h2>Steps</h2>\n<table><tr><th>when<th>state<th>who<th>why{rows}</table>"
