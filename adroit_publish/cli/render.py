"""Values as people read them: tables, sizes, YAML, and JSON for machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from adroit_publish.mlflow.trained_by import METAFLOW_PAGE, METAFLOW_RUN, TRAINING_JOB, job_page


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


def print_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Prints an aligned table; the headers are bold on a terminal."""
    texts = [["" if cell is None else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(headers, *texts, strict=True)]

    def line(cells: Sequence[str]) -> str:
        return "  ".join(
            cell.ljust(width) for cell, width in zip(cells, widths, strict=True)
        ).rstrip()

    heading = line(list(headers))
    print(f"\x1b[1m{heading}\x1b[0m" if sys.stdout.isatty() else heading)
    for row in texts:
        print(line(row))
