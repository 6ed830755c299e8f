"""YAML text into a tree of nodes that know where they stand, within limits.

What is refused, each with its file and line: bytes that are not UTF-8 or that YAML does not
permit (NUL and other control characters), a byte order mark anywhere but at the start, more
than one document, directives, tags other than ``!!str``, ``!!map``, ``!!seq`` and ``!``,
duplicate keys, keys that are not scalars, aliases without an anchor or within their own anchor,
and anything beyond the limits of ``yaml_tree``. Nothing is resolved here: see ``yaml_values``.

Source: YAML 1.2.2, section 5.1 (character set), 5.2 (byte order mark), 3.2.1.3 (unique keys).
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from ruamel.yaml import YAML, events
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from adroit_publish.config.yaml.tree import (
    BOM,
    MAX_BYTES,
    MAX_DEPTH,
    MAX_EXPANDED_NODES,
    MAX_NODES,
    Alias,
    Document,
    Entry,
    Mapping,
    Node,
    Scalar,
    Sequence,
    deref,
)
from adroit_publish.errors import ConfigError, Problem

MAX_PROBLEMS = 50

_LINE_BREAK = re.compile(r"\r\n|\r|\n")
_DIRECTIVE = re.compile(r"(?:\A\ufeff?|[\r\n])%")
# Only comments before the end mark: an empty document, which ruamel.yaml does not take.
_ONLY_END_MARK = re.compile(
    r"(?:[ \t]*(?:#[^\r\n]*)?[\r\n])*\.\.\.[ \t]*(?:#[^\r\n]*)?(?:[\r\n][ \t]*(?:#[^\r\n]*)?)*"
)
_NOT_PERMITTED = re.compile(
    "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
_CORE = "tag:yaml.org,2002:"
_TAGS = {
    "scalar": (None, "!", _CORE + "str"),
    "sequence": (None, "!", _CORE + "seq"),
    "mapping": (None, "!", _CORE + "map"),
}


class Report:
    """The problems of one file, gathered to be raised together; at most ``MAX_PROBLEMS``."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []

    @property
    def is_full(self) -> bool:
        """Whether further problems are passed over."""
        return len(self.problems) >= MAX_PROBLEMS

    def add(self, line: int, message: str) -> None:
        """Adds a problem unless the same one is there, as where two flavors share an anchor."""
        problem = Problem(self.file, line, message)
        if not self.is_full and problem not in self.problems:
            self.problems.append(problem)

    def check(self) -> None:
        """Raises ConfigError with all problems, if there are any."""
        if self.problems:
            raise ConfigError.of(self.problems)


@lru_cache(maxsize=2)  # an edit reads the text before it and after it; a row of edits each twice
def read_yaml(data: bytes, file: str) -> Document:
    """Returns the tree of one YAML document.

    Raises:
        ConfigError: The file is refused for one of the reasons at the top of this module. The
            message has as many problems as could be found: a syntax error or a limit ends it.
    """
    report = Report(file)
    text = _decode(data, report)
    report.check()
    has_bom = text.startswith(BOM)
    text = text.removeprefix(BOM)
    root = _Composer(text, report).compose()
    report.check()
    return Document(file, text, has_bom, root)


def _decode(data: bytes, report: Report) -> str:
    if len(data) > MAX_BYTES:
        report.add(0, f"the file has more than {MAX_BYTES:,} bytes; that is the limit")
        return ""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = len(_LINE_BREAK.findall(data[: error.start].decode())) + 1
        report.add(line, "these bytes are not UTF-8; save the file as UTF-8")
        return ""
    bad = _NOT_PERMITTED.search(text, 1 if text.startswith(BOM) else 0)
    if bad:
        line = len(_LINE_BREAK.findall(text, 0, bad.start())) + 1
        report.add(line, f"the character U+{ord(bad[0]):04X} is not allowed here; remove it")
    elif directive := _DIRECTIVE.search(text):
        line = len(_LINE_BREAK.findall(text, 0, directive.end())) + 1
        report.add(line, "a line that begins with % is a directive; remove it")
    return text


class _Stop(Exception):
    """The rest of the file is not looked at."""


class _Composer:
    """Builds the tree from ruamel.yaml's events, which carry the marks; reports as it goes.

    ruamel's own composer is not used: it has no limits, and it forgets where an alias stood.
    """

    def __init__(self, text: str, report: Report) -> None:
        self._breaks = [match.end() for match in _LINE_BREAK.finditer(text)]
        self._text = text
        self._report = report
        self._anchors: dict[str, Node] = {}
        self._open: list[str] = []
        self._count = 0
        self._events: Iterator[Any] = iter(())

    def compose(self) -> Node | None:
        root = None
        if _ONLY_END_MARK.fullmatch(self._text):
            return None
        self._events = YAML(typ="safe", pure=True).parse(self._text)
        try:
            for event in self._events:
                if isinstance(event, events.DocumentStartEvent):
                    if root is not None:
                        self._fail(event.start_mark, "a second document; one file holds one")
                elif isinstance(event, events.NodeEvent):
                    root = self._node(event, 1)
        except _Stop:
            pass
        except (YAMLError, ValueError, OverflowError) as error:
            # ValueError and OverflowError: escapes such as "\UFFFFFFFF" reach chr() unchecked.
            self._report.add(self._error_line(error), _explain(error))
        return root

    def _node(self, event: Any, depth: int) -> Node:
        self._count += 1
        if self._count > MAX_NODES:
            self._fail(event.start_mark, f"more than {MAX_NODES:,} values; that is the limit")
        if depth > MAX_DEPTH:
            self._fail(event.start_mark, f"more than {MAX_DEPTH} levels; that is the limit")
        if isinstance(event, events.AliasEvent):
            return self._alias(event, depth)
        if event.anchor:
            self._open.append(event.anchor)
        if isinstance(event, events.ScalarEvent):
            node: Node = self._scalar(event)
        elif isinstance(event, events.SequenceStartEvent):
            node = self._sequence(event, depth)
        else:
            node = self._mapping(event, depth)
        if event.anchor:
            self._anchors[self._open.pop()] = node
        if node.weight > MAX_EXPANDED_NODES:
            self._fail(event.start_mark, "its aliases, written out, are too many values")
        if node.height > MAX_DEPTH:
            self._fail(event.start_mark, f"its aliases, written out, pass {MAX_DEPTH} levels")
        return node

    def _alias(self, event: Any, depth: int) -> Node:
        place = self._place(event.start_mark, event.end_mark)
        target = self._anchors.get(event.anchor)
        if event.anchor in self._open:
            self._fail(event.start_mark, f"*{event.anchor} stands within its own anchor")
        if target is None:
            self._fail(event.start_mark, f"*{event.anchor} has no anchor before it")
        assert target is not None
        return Alias(*place, target.height, target.weight, target)

    def _scalar(self, event: Any) -> Scalar:
        self._check_tag(event, "scalar")
        place = self._place(event.start_mark, event.end_mark)
        if any("\ud800" <= char <= "\udfff" for char in event.value):
            self._report.add(place[2], "an escaped surrogate is not a character")
        return Scalar(*place, 1, 1, event.value, event.style or "plain", bool(event.tag))

    def _sequence(self, event: Any, depth: int) -> Sequence:
        self._check_tag(event, "sequence")
        items = []
        while not isinstance(inner := next(self._events), events.SequenceEndEvent):
            items.append(self._node(inner, depth + 1))
        place = self._place(event.start_mark, inner.end_mark)
        return Sequence(*place, *_size(items), tuple(items), bool(event.flow_style))

    def _mapping(self, event: Any, depth: int) -> Mapping:
        self._check_tag(event, "mapping")
        entries: list[Entry] = []
        seen: dict[str, int] = {}
        while not isinstance(inner := next(self._events), events.MappingEndEvent):
            key = self._node(inner, depth + 1)
            value = self._node(next(self._events), depth + 1)
            scalar = deref(key)
            if not isinstance(scalar, Scalar):
                self._report.add(key.line, "a key that is a list or a mapping; use a plain name")
                continue
            if event.flow_style and scalar.text.endswith(":") and not scalar.is_string:
                # Readers do not agree whether {a:} has the key "a" or "a:".
                self._report.add(key.line, f"put a space behind the colon of {scalar.text!r}")
            if scalar.text in seen:
                first = seen[scalar.text]
                self._report.add(key.line, f"the key {scalar.text!r} is there since line {first}")
                continue
            seen[scalar.text] = key.line
            merges = scalar.text == "<<" and not scalar.is_string
            if merges:
                self._check_merge(value)
            entries.append(Entry(key, scalar.text, merges, value))
        place = self._place(event.start_mark, inner.end_mark)
        flow = bool(event.flow_style)
        return Mapping(*place, *_size([entry.value for entry in entries]), tuple(entries), flow)

    def _check_merge(self, value: Node) -> None:
        merged = deref(value)
        sources = merged.items if isinstance(merged, Sequence) else (merged,)
        if not all(isinstance(deref(source), Mapping) for source in sources):
            self._report.add(value.line, "<< takes a mapping or a list of mappings")

    def _check_tag(self, event: Any, kind: str) -> None:
        if event.tag not in _TAGS[kind]:
            tag = str(event.tag).replace(_CORE, "!!")
            line = self._line(event.start_mark.index)
            self._report.add(line, f"the tag {tag!r} is not allowed; write the value without it")

    def _fail(self, mark: Any, message: str) -> None:
        self._report.add(self._line(mark.index), message)
        raise _Stop

    def _place(self, start: Any, end: Any) -> tuple[int, int, int]:
        return start.index, end.index, self._line(start.index)

    def _line(self, offset: int) -> int:
        return bisect_right(self._breaks, offset) + 1

    def _error_line(self, error: Exception) -> int:
        mark = isinstance(error, MarkedYAMLError) and (error.problem_mark or error.context_mark)
        return self._line(mark.index) if mark else 0


def _size(children: list[Node]) -> tuple[int, int]:
    """Returns height and weight of a node with these children."""
    height = 1 + max((child.height for child in children), default=0)
    return height, 1 + sum(child.weight for child in children)


def _explain(error: Exception) -> str:
    if isinstance(error, MarkedYAMLError):
        parts = [str(part) for part in (error.context, error.problem) if part]
        return "not valid YAML: " + ", ".join(parts)
    return "not valid YAML: an escape or a character that does not exist"
