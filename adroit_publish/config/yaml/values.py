"""A YAML tree as values, and the reading of a mapping field by field.

Scalars are resolved by YAML 1.2's core schema: ``yes`` and ``2026-11-01`` are strings, ``1e-6``
is a number. Keys are their text (``80:`` is the key ``"80"``, as in JSON). Merge keys work as in
YAML 1.1: what a mapping says itself wins over what it merges, an earlier merge over a later one.

Source: YAML 1.2.2, section 10.3.2; https://yaml.org/type/merge.html.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from adroit_publish.config.names import near_miss, relative_path
from adroit_publish.config.yaml.text import Report
from adroit_publish.config.yaml.tree import Document, Entry, Mapping, Node, Scalar, Sequence, deref

_NULL = re.compile(r"|~|null|Null|NULL")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
# Longer integers are left as text: Python refuses to convert them.
_INT = re.compile(r"[-+]?[0-9]{1,4000}|0o[0-7]{1,4000}|0x[0-9a-fA-F]{1,4000}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


def scalar_value(scalar: Scalar) -> str | int | float | bool | None:
    """Returns what YAML 1.2's core schema makes of a scalar."""
    text = scalar.text
    if scalar.is_string:
        return text
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text.lower() == "true"
    if _INT.fullmatch(text):
        return int(text, 0 if text[:2] in ("0o", "0x") else 10)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _SPECIAL.fullmatch(text):
        return float(text.replace(".", ""))
    return text


def effective_entries(mapping: Mapping) -> dict[str, Entry]:
    """Returns the entries by name with merge keys carried out, own entries first."""
    entries = {entry.name: entry for entry in mapping.entries if not entry.merges}
    for entry in mapping.entries:
        if entry.merges:
            merged = deref(entry.value)
            for source in merged.items if isinstance(merged, Sequence) else (merged,):
                target = deref(source)
                assert isinstance(target, Mapping)  # read_yaml refuses anything else
                for name, inherited in effective_entries(target).items():
                    entries.setdefault(name, inherited)
    return entries


def own_entries(document: Document, names: str, report: Report) -> dict[str, Entry]:
    """Returns the top-level entries but those of other tools, which begin with ``x-``."""
    root = deref(document.root) if document.root is not None else None
    if isinstance(root, Mapping):
        entries = effective_entries(root)
        return {name: entry for name, entry in entries.items() if not name.startswith("x-")}
    if root is not None and not is_null(root):
        report.add(root.line, f"must be a mapping of {names}")
    return {}


def value_of(node: Node, scalar: Callable[[Scalar], Any] = scalar_value) -> Any:
    """Returns a tree as dicts, lists and scalars, aliases and merges written out."""
    node = deref(node)
    if isinstance(node, Scalar):
        return scalar(node)
    if isinstance(node, Sequence):
        return [value_of(item, scalar) for item in node.items]
    assert isinstance(node, Mapping)
    return {name: value_of(e.value, scalar) for name, e in effective_entries(node).items()}


class Section:
    """One mapping of a file, read field by field; what is wrong goes to the report.

    A reader gives back a harmless value where it reports a problem, so that one pass finds all.
    Unknown keys that are near a known one are always problems.

    Args:
        title: How messages name it: ``flavor 'a'``, ``serve.handler``.
        line: The line to name for what is missing.
        known: The keys this program reads.
        closed: Whether every unknown key is a problem, not only a near miss.
    """

    def __init__(
        self,
        node: Node | None,
        title: str,
        line: int,
        report: Report,
        known: tuple[str, ...],
        *,
        closed: bool = False,
    ) -> None:
        self.title, self._line, self._report = title, line, report
        self.entries: dict[str, Entry] = {}
        target = deref(node) if node is not None else None
        if isinstance(target, Mapping):
            self.entries = effective_entries(target)
        elif target is not None and not is_null(target):
            self._report.add(line, f"{title} must be a mapping of {', '.join(known)}")
        self._check_keys(known, closed)

    def _check_keys(self, known: tuple[str, ...], closed: bool) -> None:
        for name, entry in self.entries.items():
            if name in known or self._report.is_full:
                continue
            if meant := near_miss(name, known):
                message = f"has {name!r}; is {meant!r} meant? If not, prefix it with x-"
            elif closed and not name.startswith("x-"):
                message = f"has an unknown key {name[:80]!r}; known: {', '.join(known)}"
            else:
                continue
            self._report.add(entry.key.line, f"{self.title} {message}")

    def problem(self, key: str, message: str) -> None:
        """Reports what is wrong with the value of ``key``."""
        entry = self.entries.get(key)
        self._report.add(entry.value.line if entry else self._line, f"{self.title}: {message}")

    def value(self, key: str) -> Any:
        """Returns the value of ``key`` as JSON values; None where it is null or missing."""
        entry = self.entries.get(key)
        return None if entry is None else value_of(entry.value)

    def text(self, key: str, *, required: bool = False) -> str | None:
        """Returns a string that prints and is not empty; None where it is null, '' or missing."""
        value = self.value(key)
        if value is None or value == "":
            if required:
                self.problem(key, f"{key!r} is missing")
            return None
        if not isinstance(value, str):
            self.problem(key, f"{key!r} must be a string; quote it if it is meant as written")
            return None
        if not value.isprintable():
            self.problem(key, f"{key!r} has a line break or a character that does not print")
            return None
        return value

    def path(self, key: str, *, required: bool = False) -> str | None:
        """Returns a path below the repository's root; None where it is null or missing."""
        text = self.text(key, required=required)
        if text is None:
            return None
        try:
            return relative_path(text)
        except ValueError as reason:
            self.problem(key, f"{key!r} {reason}")
            return None

    def texts(self, key: str) -> tuple[str, ...]:
        """Returns a list of non-empty strings that print; empty where it is null or missing."""
        value = self.value(key)
        if value is None:
            return ()
        if not isinstance(value, list):
            self.problem(key, f"{key!r} must be a list of strings")
            return ()
        if not all(isinstance(item, str) and item and item.isprintable() for item in value):
            self.problem(key, f"{key!r} must hold strings that print; quote what is not a string")
            return ()
        return tuple(value)

    def section(self, key: str, known: tuple[str, ...], *, closed: bool = False) -> Section:
        """Returns the mapping under ``key``; an empty section where it is missing."""
        entry = self.entries.get(key)
        line = entry.key.line if entry else self._line
        node = entry.value if entry else None
        return Section(node, key, line, self._report, known, closed=closed)


def is_null(node: Node) -> bool:
    """Whether the node is a null in any spelling."""
    node = deref(node)
    return isinstance(node, Scalar) and scalar_value(node) is None
