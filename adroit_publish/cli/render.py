"""Values as people read them: tables, sizes, YAML, and JSON for machines."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from adroit_publish.mlflow.trained_by import METAFLOW_PAGE, METAFLOW_RUN, TRAINING_JOB, job_page

_NARROWEST = 16


def bytes_text(size_bytes: int) -> str:
    """Returns a size in the largest binary unit that keeps it above one, such as ``1.5 MiB``."""
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size_bytes} B" if unit == "B" else f"{size:.1f} {unit}"


def made_by(trained_by: Mapping[str, str]) -> Iterator[tuple[str, str, str | None]]:
    """Yields what ``trained_by`` says made a model: what it is, its name, its page or None."""
    if METAFLOW_RUN in trained_by:
        yield "trained by", trained_by[METAFLOW_RUN], trained_by.get(METAFLOW_PAGE)
    if TRAINING_JOB in trained_by:
        arn = trained_by[TRAINING_JOB]
        yield "training job", arn.rpartition("/")[2], job_page(arn)


def print_json(value: Any) -> None:
    """Prints ``value`` as one indented JSON document."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def print_yaml(documents: Sequence[Any]) -> None:
    """Prints YAML documents, keys in their own order, ``---`` between two."""
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style, yaml.width = False, 4096
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.dump_all(documents, sys.stdout)


def markdown_cell(text: object) -> str:
    """Returns text for a cell of a table that GitHub renders; nothing in it can break out of it."""
    shown = "" if text is None else str(text)
    for char, safe in (("&", "&amp;"), ("<", "&lt;"), ("|", "&#124;"), ("`", "&#96;")):
        shown = shown.replace(char, safe)
    return "<br>".join(shown.splitlines())


def coloured(text: str, colour: str) -> str:
    """Returns text in a colour (of ANSI's SGR codes) on a terminal, and as it is elsewhere."""
    shown = colour and sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return f"\x1b[{colour}m{text}\x1b[0m" if shown else text


def print_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Prints an aligned table; the headers are bold on a terminal.

    On a terminal that is too narrow, sentences are wrapped in their columns; where that is not
    enough, each row is a block of lines, one a value, so that a name or a digest stays whole.
    """
    texts = [["" if cell is None else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(headers, *texts, strict=True)]
    if sys.stdout.isatty():
        room = shutil.get_terminal_size().columns - 2 * (len(widths) - 1)
        widths = _narrowed(widths, texts, room)
        if sum(widths) > room and len(widths) > 2:
            _print_blocks(headers, texts)
            return

    def line(cells: Sequence[str]) -> str:
        return "  ".join(
            cell.ljust(width) for cell, width in zip(cells, widths, strict=True)
        ).rstrip()

    print(coloured(line(list(headers)), "1"))
    for row in texts:
        cells = [_wrapped(cell, width) for cell, width in zip(row, widths, strict=True)]
        for parts in zip_longest(*cells, fillvalue=""):
            print(line(parts))


def _narrowed(widths: Sequence[int], rows: Sequence[Sequence[str]], room: int) -> list[int]:
    """Returns the widths with columns of sentences made narrower, the widest first, if need be."""
    narrow = list(widths)
    words = [
        max((len(w) for row in rows for w in row[i].split()), default=0) for i in range(len(widths))
    ]
    for i in sorted(range(len(widths)), key=lambda i: -widths[i]):
        excess = sum(narrow) - room
        if excess > 0 and words[i] < narrow[i]:
            narrow[i] = max(narrow[i] - excess, words[i], _NARROWEST)
    return narrow


def _wrapped(cell: str, width: int) -> list[str]:
    if len(cell) <= width:
        return [cell]
    return textwrap.wrap(cell, width, break_long_words=False, break_on_hyphens=False)


def _print_blocks(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    width = max(map(len, headers))
    for number, row in enumerate(rows):
        if number:
            print()
        for header, cell in zip(headers, row, strict=True):
            if cell:
                print(f"{coloured(header.ljust(width), '1')}  {cell}")
