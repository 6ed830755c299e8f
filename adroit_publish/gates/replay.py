"""Outputs against what was recorded of them, and against what the signature says of them.

Golden replay: a model that is republished has to predict what it predicted before.

Two JSON values are compared leaf by leaf: the outputs on the input example that a version's record
keeps, and those of the new bundle. Numbers may differ by ``rtol`` of the larger one (near zero: of
``NEAR_ZERO``); anything else, and the shape, has to be equal. Rows are the first index of a list,
a column is the rest of the way to the leaf: ``price``, ``[2]``, ``scores[0].label``.

MLflow checks inputs against a signature and outputs never, so ``unexpected`` refuses nothing. JSON
has numbers, strings and booleans, and so has a client: whether a number was an integer, a float or
a boolean in Python, and whether one column came as a list or as a table, makes no difference to it.

``check_together`` compares the answers to many clients at once with those to one: what threads and
batches have to show.

Pure: who wants to compare brings both values.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import Any

from adroit_publish.bundle.imports import BundleFinding
from adroit_publish.errors import VerificationError

NEAR_ZERO = 1e-6
_NUMBERS = {"integer", "long", "float", "double", "boolean"}
_TEXTS = {"string", "binary", "datetime"}
_WHOLE_ROWS = {"any", "array", "map", "object"}  # what a type hint signs: a column is the row
_NO_NUMBERS = {"NaN", "Infinity", "-Infinity"}  # as strict JSON has them
_LINES = 5
SHOWN = 10
_ABSENT = object()
_TOGETHER_WHERE = "serve.thread_safe or serve.batch in config.yaml"
_TOGETHER_NEXT = "take thread_safe and batch out of config.yaml, commit, and publish again"


@dataclass(frozen=True)
class Difference:
    """One leaf that moved.

    Attributes:
        row: Index of the row, from 0; None where the outputs have no rows.
        column: The way from the row to the leaf; empty where the row is the leaf.
        recorded: What it was, or ``"(absent)"``.
        now: What it is, or ``"(absent)"``.
        relative: ``|now - recorded|`` relative to the larger one; infinite unless both are numbers.
    """

    row: int | None
    column: str
    recorded: Any
    now: Any
    relative: float

    def __str__(self) -> str:
        place = "" if self.row is None else f"row {self.row}"
        place = ", ".join(part for part in (place, self.column) if part) or "the output"
        moved = f" (relative {self.relative:.3g})" if math.isfinite(self.relative) else ""
        return f"{place}: {self.recorded!r} -> {self.now!r}{moved}"


@dataclass(frozen=True)
class Replay:
    """How the outputs of two bundles compare on the same input.

    Attributes:
        rows: How many rows were compared; None where the outputs have none.
        leaves: How many leaves were compared; ``differing`` ones by more than is allowed.
        largest: The largest differences, at most ``SHOWN``, the largest first.
        worst: The largest relative difference of two numbers that was seen, allowed ones too.
    """

    rows: int | None
    leaves: int
    differing: int
    largest: tuple[Difference, ...]
    rtol: float
    worst: float

    @property
    def same(self) -> bool:
        """Whether nothing differs by more than is allowed."""
        return not self.differing

    def lines(self) -> list[str]:
        """Returns the largest differences, a line each, and how many there are in all."""
        lines = [str(difference) for difference in self.largest]
        if self.differing > len(self.largest):
            lines.append(f"and {self.differing - len(self.largest)} more")
        return lines

    def as_dict(self) -> dict[str, Any]:
        """Returns it as strict JSON values: an infinite difference is None."""
        facts = asdict(self)
        for difference in facts["largest"]:
            if not math.isfinite(difference["relative"]):
                difference["relative"] = None
        return facts


def compare_outputs(recorded: Any, now: Any, rtol: float, *, truncated: bool = False) -> Replay:
    """Returns how two JSON outputs of the same input compare.

    Args:
        rtol: Allowed relative difference of two numbers.
        truncated: One of the two is cut: only the rows that both have are compared.
    """
    if truncated and isinstance(recorded, list) and isinstance(now, list):
        rows = min(len(recorded), len(now))
        recorded, now = recorded[:rows], now[:rows]
    leaves, worst, differences = 0, 0.0, []
    for path, before, after in _leaves((), recorded, now):
        leaves += 1
        relative = _relative(before, after)
        if math.isfinite(relative):
            worst = max(worst, relative)
        if not _close(before, after, rtol):
            row = path[0] if path and isinstance(path[0], int) else None
            column = _column(path if row is None else path[1:])
            differences.append(Difference(row, column, _shown(before), _shown(after), relative))
    differences.sort(key=lambda difference: -difference.relative)  # stable: rows stay in order
    whole = len(recorded) if isinstance(recorded, list) else None
    return Replay(whole, leaves, len(differences), tuple(differences[:SHOWN]), rtol, worst)


def _leaves(
    path: tuple[int | str, ...], before: Any, after: Any
) -> Iterator[tuple[tuple[int | str, ...], Any, Any]]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            yield from _leaves((*path, key), before.get(key, _ABSENT), after.get(key, _ABSENT))
    elif isinstance(before, list) and isinstance(after, list):
        for index, pair in enumerate(zip_longest(before, after, fillvalue=_ABSENT)):
            yield from _leaves((*path, index), *pair)
    else:
        yield path, before, after


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _relative(before: Any, after: Any) -> float:
    if before == after and type(before) is type(after):
        return 0.0
    if not (_is_number(before) and _is_number(after)):
        return math.inf
    larger = max(abs(before), abs(after), NEAR_ZERO)
    try:
        return float(abs(after - before) / larger)
    except OverflowError:  # an integer that no float holds
        return math.inf


def _close(before: Any, after: Any, rtol: float) -> bool:
    if _is_number(before) and _is_number(after):
        return _relative(before, after) <= rtol
    return type(before) is type(after) and bool(before == after)


def _shown(value: Any) -> Any:
    if value is _ABSENT:
        return "(absent)"
    text = value if isinstance(value, str) else repr(value)
    return value if len(text) <= 200 else text[:200] + "..."


def _column(path: tuple[int | str, ...]) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return "".join(parts).removeprefix(".")


def unexpected(outputs: Any, columns: Any) -> tuple[BundleFinding, ...]:
    """Returns how JSON outputs differ from a signature's ``outputs``, as one finding or none."""
    if not isinstance(columns, list) or not all(isinstance(one, Mapping) for one in columns):
        return ()
    lines = list(dict.fromkeys(_differences(outputs, columns)))
    if not lines:
        return ()
    what = f"the outputs are not what the signature says: {'; '.join(lines[:_LINES])}"
    return (BundleFinding("outputs:signature", what),)


def _differences(outputs: Any, columns: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    rows = outputs if isinstance(outputs, list) else [outputs]
    if any("tensor-spec" in column for column in columns):
        return
    hinted = [column.get("type") for column in columns if "name" not in column]
    if len(columns) == len(hinted) == 1 and hinted[0] in _WHOLE_ROWS:
        return
    for row in rows:
        if isinstance(row, Mapping) and list(row) == ["0"] and len(columns) == 1:
            yield from _in_order(list(row.values()), columns)  # a Series without a name
        elif isinstance(row, Mapping):
            yield from _named(row, columns)
        else:
            yield from _in_order(row if isinstance(row, list) else [row], columns)


def _named(row: Mapping[str, Any], columns: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not all("name" in column for column in columns):
        return
    names = [str(column["name"]) for column in columns]
    for column, name in zip(columns, names, strict=True):
        if name in row:
            yield from _typed(row[name], column, f"column {name}")
        elif column.get("required", True):
            yield f"no column {name}"
    yield from (f"a column {name} more" for name in row if name not in names)


def _in_order(row: Sequence[Any], columns: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if len(row) != len(columns):
        yield f"{len(row)} values in a row, and not {len(columns)}"
        return
    for value, column in zip(row, columns, strict=True):
        yield from _typed(value, column, f"column {column.get('name', '(unnamed)')}")


def _typed(value: Any, column: Mapping[str, Any], place: str) -> Iterator[str]:
    wanted = column.get("type")
    number = isinstance(value, int | float) or value in _NO_NUMBERS
    if value is None or isinstance(value, list | dict):
        return
    if (wanted in _NUMBERS and not number) or (wanted in _TEXTS and not isinstance(value, str)):
        yield f"{place} holds {type(value).__name__}, and not {wanted}"


def check_together(seen: Any, rtol: float, place: str) -> None:
    """Raises VerificationError unless every row was answered at once as it was alone.

    Args:
        seen: ``together`` of the report, which is the model's word: of any shape.
        rtol: How far numbers may differ, relative.
        place: Where the model ran.
    """
    alone = seen.get("alone") if isinstance(seen, dict) else None
    others = seen.get("others") if isinstance(seen, dict) else None
    if not isinstance(alone, list) or not isinstance(others, list):
        raise _unproven("no answers that can be compared")
    answers = {json.dumps(answer, sort_keys=True) for answer in alone}
    if len(answers) < 2:
        raise _unproven(f"{len(alone)} rows with {len(answers)} different answers")
    for before, now in others:
        replay = compare_outputs(before, now, rtol)
        if not replay.same:
            raise VerificationError(
                "The model answers many clients at once otherwise than one after the other.",
                where=f"{_TOGETHER_WHERE}, {place}",
                got="\n".join(replay.lines()),
                wanted="the answer that the same row gets alone",
                next_step=_TOGETHER_NEXT,
            )


def _unproven(got: str) -> VerificationError:
    return VerificationError(
        "Nothing shows that the model can answer many clients at once.",
        where=_TOGETHER_WHERE,
        got=got,
        wanted="an input example with two rows or more that are answered differently",
        next_step=f"log the model with such an example, or {_TOGETHER_NEXT}",
    )
