"""TOML within the limits of the YAML files, and the line of each key, which tomllib leaves out."""

from __future__ import annotations

import re
import tomllib
from typing import Any

from adroit_publish.config.yaml.text import Report
from adroit_publish.config.yaml.tree import MAX_BYTES, MAX_DEPTH, MAX_NODES


def read_toml(data: bytes, report: Report) -> tuple[str, dict[str, Any]]:
    """Returns the text and its tables, within the limits of the YAML files; or reports why not."""
    if len(data) > MAX_BYTES:
        report.add(0, f"the file has more than {MAX_BYTES:,} bytes; that is the limit")
        return "", {}
    try:
        text = data.decode("utf-8-sig")
        for number, line in enumerate(text.splitlines(), 1):
            # A key of n parts takes tomllib n squared steps.
            if line.count(".") > MAX_DEPTH and not line.lstrip().startswith("#"):
                report.add(number, f"more than {MAX_DEPTH} dots in a line; that is the limit")
                return "", {}
        tree = tomllib.loads(text)
        _check_size(tree, report)
        return text, tree
    except UnicodeDecodeError as error:
        line_number = data.count(b"\n", 0, error.start) + 1
        report.add(line_number, "these bytes are not UTF-8; save the file as UTF-8")
    except ValueError as error:  # of tomllib, or of int() for a number of more than 4,300 digits
        place = re.search(r"at line (\d+)", str(error))
        at_end = isinstance(error, tomllib.TOMLDecodeError)
        line_number = int(place[1]) if place else len(text.splitlines()) if at_end else 0
        report.add(line_number, f"not valid TOML: {error}")
    except RecursionError:
        report.add(0, f"more than {MAX_DEPTH} levels; that is the limit")
    return "", {}


def _check_size(tree: dict[str, Any], report: Report) -> None:
    level: list[Any] = [tree]
    count = depth = 0
    while level and count <= MAX_NODES and depth <= MAX_DEPTH:
        count, depth = count + len(level), depth + 1
        inner = (
            node.values() if isinstance(node, dict) else node
            for node in level
            if isinstance(node, dict | list)
        )
        level = [value for values in inner for value in values]
    if count > MAX_NODES:
        report.add(0, f"more than {MAX_NODES:,} values; that is the limit")
    if depth > MAX_DEPTH:
        report.add(0, f"more than {MAX_DEPTH} levels; that is the limit")


def lines_of_keys(text: str) -> dict[tuple[str, str], int]:
    """Finds the line of each ``key =`` by (target, key); tomllib does not tell.

    A search by shape: where a file is written unusually, a key is missing here and its problem
    names the file alone.
    """
    lines: dict[tuple[str, str], int] = {}
    target = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(
            r"\s*\[\s*\"?([\w-]+)\"?\s*(?:\.\s*[\"']?([\w-]+)[\"']?\s*)?\]", line
        ):
            target = header[2] or ""
            lines.setdefault(("", header[1]), number)
            lines.setdefault((target, ""), number)
        elif key := re.match(r"\s*[\"']?([\w-]+)[\"']?\s*=", line):
            lines.setdefault((target, key[1]), number)
    return lines
