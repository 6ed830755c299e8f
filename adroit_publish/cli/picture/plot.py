"""One drawing: curves over time in SVG that stands alone, in a page, a card or a file.

It has its own colours for readers with light and with dark screens, so that neither depends on
what is around it, and lines differ without colours too. Times on the axis are UTC.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape

WIDTH, HEIGHT = 440, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 14, 42, 24
_WIDE, _HIGH = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
_FEW_POINTS = 40
_APART = 28
"""Marks that are nearer to each other share one number."""
_MOST_TICKS = 5
_DAY_S = 86400
_TICKS_S = (
    *(1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200),
    *(_DAY_S * days for days in (1, 2, 7, 14, 28, 56, 112)),
)
STYLE = """
svg.plot { --ink: #1b1f24; --faint: #d0d7de; --paper: #fff; --old: #8a4600; --new: #0550ae;
           font: 12px system-ui, sans-serif }
@media (prefers-color-scheme: dark) { svg.plot { --ink: #e6edf3; --faint: #3d444d;
           --paper: #0d1117; --old: #f0a860; --new: #6cb6ff } }
.plot text { fill: var(--ink) } .plot .title { font-weight: 600; font-size: 13px }
.plot .paper { fill: var(--paper) } .plot .number { font-size: 11px }
.plot .old, .plot .new { fill: none; stroke-width: 2 }
.plot .old { stroke: var(--old); stroke-dasharray: 6 3 } .plot .new { stroke: var(--new) }
.plot .p99 { stroke-width: 1 } .plot .dot { stroke: none } .plot .old.dot { fill: var(--old) }
.plot .new.dot { fill: var(--new) } .plot .axis { stroke: var(--faint) }
.plot .mark { stroke: var(--ink); stroke-opacity: .45; stroke-dasharray: 1 3 }
"""


@dataclass(frozen=True)
class Curve:
    """One curve of a drawing.

    Attributes:
        kind: Its class: ``old``, ``new``, and ``p99`` for the thin one.
        points: (seconds, value); None is a gap.
        stairs: Whether a value stays until the next one.
    """

    kind: str
    points: Sequence[tuple[float, float | None]]
    stairs: bool = False


@dataclass(frozen=True)
class Mark:
    """A moment that every drawing shows.

    Attributes:
        at_s: When.
        number: Its number in the list of all of them.
        text: What it was.
    """

    at_s: float
    number: int
    text: str


def plot(
    title: str,
    curves: Sequence[Curve],
    span: tuple[float, float],
    marks: Sequence[Mark],
    label: Callable[[float], str],
) -> str:
    """Returns a drawing as SVG.

    Args:
        title: What it shows.
        curves: Of values from 0.
        span: The first and the last time, POSIX seconds.
        marks: Moments in it, in their order.
        label: Says a value of the axis.
    """
    begin, end = span
    values = [value for curve in curves for _, value in curve.points if value is not None]
    top = nice_top(max([*values, 0.0]))

    def x(at_s: float) -> float:
        return _LEFT + _WIDE * (at_s - begin) / max(end - begin, 1.0)

    def y(value: float) -> float:
        return _TOP + _HIGH * (1 - value / top)

    parts = [
        f"<style>{STYLE}</style>",
        f'<rect class="paper" width="{WIDTH}" height="{HEIGHT}"/>',
        f'<text class="title" x="4" y="15">{escape(title)}</text>',
        *_values(top, y, label),
        *_times(begin, end, x),
        *_marked(marks, x),
        *(part for curve in curves for part in _drawn(curve, x, y)),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )


def nice_top(largest: float) -> float:
    """Returns the end of an axis: 1, 2 or 5 times a power of ten, not below; 1 for nothing."""
    if largest < 1e-9:
        return 1.0
    power = 10.0 ** math.floor(math.log10(largest))
    return next(part * power for part in (1, 2, 5, 10) if part * power >= largest * (1 - 1e-9))


def ticks(begin: float, end: float) -> list[tuple[float, str]]:
    """Returns round moments from ``begin`` to ``end``, and how each is written; at most six."""
    wide = max(end - begin, 1.0)
    step = next((step for step in _TICKS_S if wide / step <= _MOST_TICKS), _TICKS_S[-1])
    first = math.ceil(begin / step) * step
    moments = [first + step * number for number in range(int((end - first) // step) + 1)]
    return [(at_s, _written(at_s, step)) for at_s in moments]


def _written(at_s: float, step: int) -> str:
    moment = datetime.fromtimestamp(at_s, UTC)
    if at_s % _DAY_S == 0:
        return f"{moment.day} {moment:%b}"
    return f"{moment:%H:%M}" if step >= 60 else f"{moment:%H:%M:%S}"


def _values(
    top: float, y: Callable[[float], float], label: Callable[[float], str]
) -> Iterator[str]:
    for value in (0.0, top / 2, top):
        yield f'<path class="axis" d="M{_LEFT} {y(value):.1f}H{WIDTH - _RIGHT}"/>'
        place = f'x="{_LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end"'
        yield f"<text {place}>{escape(label(value))}</text>"


def _times(begin: float, end: float, x: Callable[[float], float]) -> Iterator[str]:
    bottom = HEIGHT - _BOTTOM
    yield f'<text x="4" y="{bottom + 17}">UTC</text>'
    for at_s, written in ticks(begin, end):
        yield f'<path class="axis" d="M{x(at_s):.1f} {bottom}v5"/>'
        yield f'<text x="{x(at_s):.1f}" y="{bottom + 17}" text-anchor="middle">{written}</text>'


def _marked(marks: Sequence[Mark], x: Callable[[float], float]) -> Iterator[str]:
    groups: list[list[Mark]] = []
    for mark in marks:
        place = f'x1="{x(mark.at_s):.1f}" x2="{x(mark.at_s):.1f}" y1="{_TOP - 6}"'
        title = f"<title>{mark.number}: {escape(mark.text)}</title>"
        yield f'<line class="mark" {place} y2="{HEIGHT - _BOTTOM}">{title}</line>'
        if groups and x(mark.at_s) - x(groups[-1][-1].at_s) < _APART:
            groups[-1].append(mark)
        else:
            groups.append([mark])
    for group in groups:
        first, last = group[0], group[-1]
        numbers = f"{first.number}–{last.number}" if last is not first else f"{first.number}"
        middle = (x(first.at_s) + x(last.at_s)) / 2
        yield (
            f'<text class="number" x="{middle:.1f}" y="{_TOP - 10}" text-anchor="middle">'
            f"{numbers}</text>"
        )


def _drawn(curve: Curve, x: Callable[[float], float], y: Callable[[float], float]) -> Iterator[str]:
    runs: list[list[tuple[float, float]]] = [[]]
    for at_s, value in curve.points:
        if value is None:
            runs.append([])
            continue
        if curve.stairs and runs[-1]:
            runs[-1].append((x(at_s), runs[-1][-1][1]))
        runs[-1].append((x(at_s), y(value)))
    for run in filter(None, runs):
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in run)
        yield f'<polyline class="{curve.kind}" points="{path}"/>'
        if not curve.stairs and (len(run) == 1 or len(curve.points) <= _FEW_POINTS):
            for a, b in run:
                yield f'<circle class="{curve.kind} dot" cx="{a:.1f}" cy="{b:.1f}" r="2"/>'
