"""A diff as titled tables, which a terminal and a page show alike."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from adroit_publish.bundle.document import FILE_KINDS
from adroit_publish.cli.render import bytes_text
from adroit_publish.versions.comparison import Diff, FileChange, ValueChange

MARKS = {"added": "+", "removed": "-", "changed": "~", "packed differently": "?", "same": "="}
_CELL_CHARS = 2000


@dataclass(frozen=True)
class DiffSection:
    """One table of a diff; a row is printable and begins with one of ``MARKS``, or nothing."""

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def sections(diff: Diff) -> list[DiffSection]:
    """Returns every table of a diff; one without rows says that nothing differs."""
    return [
        DiffSection("Versions", ("", "", "A", "B"), tuple(_facts(diff.before, diff.after))),
        _files(diff.files),
        _values("Config", diff.serve, "serve"),
        _values("Conda env", diff.env),
        _values("Packages", diff.packages, "package", note=diff.packages_note),
        _values("Requirements of the model", diff.requirements, "line"),
        _values("Signature", diff.signature),
        _outputs(diff),
        _values("Metrics", diff.metrics, "metric"),
        _sizes(diff.layer_sizes),
    ]


def line_marks(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yields each line of a unified diff after ``+``, ``-``, ``@`` (a place) or nothing."""
    for number, line in enumerate(lines):
        mark = "@" if number < 2 else line[:1].strip()  # the first two name the file
        yield mark, printable(line)


def printable(text: str) -> str:
    """Returns a text without what a terminal would obey; tabs become blanks."""
    shown = text.expandtabs(4)
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in shown)


def _facts(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for name, value in before.items():
        if not value and not after[name]:
            continue
        mark = "" if value == after[name] else "~"
        yield mark, name, _text(value), _text(after[name])


def _files(files: Iterable[FileChange]) -> DiffSection:
    # A model's files are few, and that they are the same is what one wants to see.
    shown = [file for file in files if file.change != "same" or file.kind == "model"]
    rows = [
        (
            MARKS[file.change],
            f"{file.kind}/{printable(file.path)}",
            file.change,
            *("" if size is None else bytes_text(size) for size in _sizes_of(file)),
            file.after or file.before or "",
        )
        for file in sorted(shown, key=lambda file: (file.change == "same", file.kind != "model"))
    ]
    same = [
        f"{sum(file.kind == kind and file.change == 'same' for file in files)} of {kind}"
        for kind in FILE_KINDS
    ]
    headers = ("", "file", "change", "A", "B", "digest (of its layer, where it is alone in it)")
    return DiffSection("Files", headers, tuple(rows), f"the same: {', '.join(same)}")


def _sizes_of(change: FileChange) -> tuple[int | None, int | None]:
    return change.before_bytes, change.after_bytes


def _values(
    title: str, changes: Iterable[ValueChange], name: str = "", note: str = ""
) -> DiffSection:
    rows = [
        (_mark(change), printable(change.name), _text(change.before), _text(change.after))
        for change in changes
    ]
    return DiffSection(title, ("", name, "A", "B"), tuple(rows), note)


def _outputs(diff: Diff) -> DiffSection:
    replay = diff.outputs.replay
    rows = [
        (
            "~",
            "" if value.row is None else str(value.row),
            printable(value.column),
            _text(value.recorded),
            _text(value.now),
            f"{value.relative:.3g}" if math.isfinite(value.relative) else "",
        )
        for value in (replay.largest if replay else ())
    ]
    headers = ("", "row", "column", "A", "B", "relative")
    return DiffSection("Golden outputs", headers, tuple(rows), diff.outputs.note)


def _sizes(changes: Iterable[ValueChange]) -> DiffSection:
    rows = []
    for change in changes:
        moved = (change.after or 0) - (change.before or 0)
        sizes = ("" if size is None else bytes_text(size) for size in (change.before, change.after))
        moved_text = f"{'+' if moved > 0 else '-'}{bytes_text(abs(moved))}" if moved else ""
        rows.append(("~" if moved else "", change.name, *sizes, moved_text))
    return DiffSection("Sizes", ("", "layers", "A", "B", "change"), tuple(rows))


def _mark(change: ValueChange) -> str:
    if change.before is None:
        return "+"
    return "-" if change.after is None else "~"


def _text(value: Any) -> str:
    if value is None or value == []:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    cut = text if len(text) <= _CELL_CHARS else text[:_CELL_CHARS] + "..."
    return printable(cut)
