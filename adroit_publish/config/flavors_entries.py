"""Whole entries of flavors.yaml: a copy under the old one, a deletion; every other byte stays.

    # this comment block, up to an empty line or the file's first line, belongs to the entry
    my_flavor:
      version: v5f2b9c01-3f0c9a1b2c3d
      # and so do deeper comments that follow it

A copy keeps comments and formatting, but not anchors: a copied ``&name`` would rebind every later
alias. A deletion takes the empty lines after the entry along, or those before the last one. Both
are proved as every edit is: the result is parsed again and may differ in that entry alone.
"""

from __future__ import annotations

import re
from collections import abc
from collections.abc import Iterator
from contextlib import suppress

from adroit_publish.config.flavors_edit import (
    cannot_edit,
    check_version,
    current_version,
    flavor_entry,
    read_edited,
    set_version,
    spelling,
)
from adroit_publish.config.names import name_problem
from adroit_publish.config.yaml import spans
from adroit_publish.config.yaml.edits import Edit
from adroit_publish.config.yaml.text import read_yaml
from adroit_publish.config.yaml.tree import Alias, Document, Entry, Mapping, Node, Sequence
from adroit_publish.errors import ConfigError, RefusedError

_ANCHOR = re.compile(r"(?:!\S*[ \t]+)?(&[^\s,\[\]{}]+[ \t]*)")
_COMMENT_INDENT = re.compile(r"[ \t]*(?=#)")
_DOCUMENT_START = re.compile(r"---(\s|\Z)")
_BREAKS = ("\n", "\r")


def copy_flavor(
    data: bytes,
    flavor: str,
    new: str,
    version: str,
    *,
    expected: str | None,
    file: str = "flavors.yaml",
) -> bytes:
    """Returns the file with a copy of a flavor under it, by another name and version.

    It is ``data`` itself where there is such a flavor with this version already. ``expected`` is
    the version of ``flavor`` that the caller found.

    Raises:
        ConfigError: The file or the name is not acceptable, or the copy cannot be made without
            changing another value.
        RefusedError: There is another flavor of that name, or ``flavor`` has another version.
    """
    document = read_yaml(data, file)
    if problem := name_problem(new):
        raise ConfigError("Not a valid flavor name.", where=file, got=new, wanted=problem)
    if new in spelling(document):
        if current_version(document, new) == version:
            return data
        return set_version(data, new, version, expected=None, file=file)
    entry = flavor_entry(document, flavor)
    check_version(document, flavor, expected)
    edit = _insertion(document.text, *_block(document, flavor, entry), entry, new)
    reason = "a copy of it would change another value"
    if not document.text.endswith(_BREAKS):
        reason = "its last value needs a line break at the end of the file"
    copied = document.encode(edit.apply(document.text))
    before, after = spelling(document), read_edited(document, flavor, copied)
    if after.pop(new, None) != before[flavor] or after != before or list(after) != list(before):
        raise cannot_edit(document, flavor, entry, reason)
    return set_version(copied, new, version, expected=expected, file=file)


def add_flavor(
    data: bytes, flavor: str, fields: abc.Mapping[str, str], file: str = "flavors.yaml"
) -> bytes:
    """Returns the file with a new flavor as its last entry, set out as the one before it.

    Args:
        fields: Its values by key, which need no quotes; an empty one is written as nothing.

    Raises:
        ConfigError: The file or the name is not acceptable, the file is one mapping in braces, or
            another value would change.
        RefusedError: There is such an entry.
    """
    document = read_yaml(data, file)
    text, root, before = document.text, document.root, spelling(document)
    if problem := name_problem(flavor):
        raise ConfigError("Not a valid flavor name.", where=file, got=flavor, wanted=problem)
    if flavor in before:
        raise RefusedError(f"There is a flavor {flavor} already.", where=file)
    last = root.entries[-1] if isinstance(root, Mapping) and root.entries else None
    indent = "  "
    if last and isinstance(last.value, Mapping) and last.value.entries and not last.value.flow:
        first = last.value.entries[0].key.start
        indent = text[spans.line_start(text, first) : first] or indent
    eol, end = spans.line_break(text), len(text)
    lines = [f"{flavor}:", *(f"{indent}{key}: {value}".rstrip() for key, value in fields.items())]
    open_line = "" if not text or text.endswith(_BREAKS) else eol
    gap = "" if not text.strip() or text.endswith((eol * 2, "\n\n")) else eol
    edit = Edit(end, end, open_line + gap + eol.join(lines) + eol)
    edited, after = document.encode(edit.apply(text)), {}
    with suppress(ConfigError):
        after = spelling(read_yaml(edited, file))
    added = after.pop(flavor, None)
    texts = {key: value[0] for key, value in added.items()} if isinstance(added, dict) else {}
    if after != before or texts != dict(fields):
        raise ConfigError(
            "A flavor cannot be added to the end of this file without changing another value.",
            where=file,
            next_step="add it by hand:\n" + "\n".join(lines),
        )
    return edited


def delete_flavor(
    data: bytes, flavor: str, *, expected: str | None, file: str = "flavors.yaml"
) -> bytes:
    """Returns the file without a flavor and its comments; ``data`` where there is none.

    Raises:
        ConfigError: The file is not acceptable, or another flavor would change: one that takes a
            value from this one by an anchor.
        RefusedError: The flavor has another version than the caller ``expected``.
    """
    document = read_yaml(data, file)
    if flavor not in spelling(document):
        return data
    entry = flavor_entry(document, flavor)
    check_version(document, flavor, expected)
    edit = _removal(document.text, *_block(document, flavor, entry), document.root, entry)
    if users := _users(document.root, entry):
        names = ", ".join(map(repr, users))
        reason = f"an anchor in it gives values to {names}; move it to a key that starts with x-"
        raise cannot_edit(document, flavor, entry, reason)
    edited = document.encode(edit.apply(document.text))
    before, after = spelling(document), read_edited(document, flavor, edited)
    before.pop(flavor)
    if after != before or list(after) != list(before):
        raise cannot_edit(document, flavor, entry, "without it another value would change")
    return edited


def _block(document: Document, flavor: str, entry: Entry) -> tuple[int, int]:
    """Returns where the lines of an entry begin, with its comments, and where they end."""
    text, root = document.text, document.root
    begin = start = spans.line_start(text, entry.key.start)
    indent = entry.key.start - begin
    if text[begin : entry.key.start].strip():
        raise cannot_edit(document, flavor, entry, "it does not begin a line of its own")
    if not isinstance(root, Mapping) or root.flow:
        raise cannot_edit(document, flavor, entry, "the whole file is one mapping in { ... }")
    while start > 0 and 0 <= _comment_indent(text, spans.previous_line(text, start)) <= indent:
        start = spans.previous_line(text, start)
    if start == 0 or _DOCUMENT_START.match(text, spans.previous_line(text, start)):
        start = begin  # what begins the file is its own heading
    end = spans.next_line(text, spans.entry_end(text, entry))
    while _comment_indent(text, line := spans.blank_lines_end(text, end)) > indent:
        end = spans.next_line(text, line)
    return start, end


def _comment_indent(text: str, at: int) -> int:
    """Returns how deep the comment stands that is alone in the line from ``at`` on; -1 for none."""
    lead = _COMMENT_INDENT.match(text, at)
    return len(lead[0]) if lead else -1


def _users(root: Node | None, entry: Entry) -> list[str]:
    """Returns the names of the entries that take a value from this one by an alias."""
    assert isinstance(root, Mapping)
    own = {id(node) for node in (entry.key, *_nodes(entry.value))}
    return [
        other.name
        for other in root.entries
        if other is not entry
        and any(
            isinstance(node, Alias) and id(node.target) in own
            for node in (other.key, *_nodes(other.value))
        )
    ]


def _removal(text: str, start: int, end: int, root: Node | None, entry: Entry) -> Edit:
    """Returns the edit that takes the lines away and the empty ones after, or before the last."""
    blank = spans.blank_lines_end(text, end)
    if blank < len(text):
        return Edit(start, blank, "")
    assert isinstance(root, Mapping)
    above = [
        spans.next_line(text, spans.entry_end(text, other))
        for other in root.entries
        if other is not entry
    ]
    # The empty lines below a `|+` are part of it.
    return Edit(
        max(spans.blank_lines_start(text, start), *(at for at in above if at <= start), 0), end, ""
    )


def _insertion(text: str, start: int, end: int, entry: Entry, new: str) -> Edit:
    """Returns the edit that puts a copy of the lines under them, as far off as their neighbours."""
    added, eol = _renamed(text, start, end, entry, new), spans.line_break(text)
    if not added.endswith(_BREAKS):
        added += eol
    blank = spans.blank_lines_end(text, end)
    if end < blank < len(text):
        return Edit(blank, blank, added + text[end:blank])
    apart = blank > end or spans.blank_lines_start(text, start) < start
    gap = eol if apart and not spans.keeps_breaks(text, spans.last_node(entry.value)) else ""
    open_line = "" if text.endswith(_BREAKS, 0, end) else eol
    return Edit(end, end, open_line + gap + added)


def _renamed(text: str, start: int, end: int, entry: Entry, new: str) -> str:
    """Returns the lines with the entry by another name, without its anchors."""
    cuts = [(entry.key.start, entry.key.end, new)]
    for node in _nodes(entry.value):
        if anchor := _ANCHOR.match(text, node.start, node.end):
            cuts.append((*anchor.span(1), ""))
    parts, at = [], start
    for cut_start, cut_end, replacement in sorted(cuts):
        parts += [text[at:cut_start], replacement]
        at = cut_end
        if not replacement and text[at : at + 1] in _BREAKS:  # nothing behind it in its line
            parts[-2] = parts[-2].rstrip(" \t")
    return "".join([*parts, text[at:end]])


def _nodes(node: Node) -> Iterator[Node]:
    yield node
    if isinstance(node, Sequence):
        for item in node.items:
            yield from _nodes(item)
    elif isinstance(node, Mapping):
        for entry in node.entries:
            yield entry.key
            yield from _nodes(entry.value)
