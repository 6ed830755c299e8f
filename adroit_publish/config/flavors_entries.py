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
from collections.abc import Iterator
from dataclasses import dataclass

from adroit_publish.config.flavors_edit import (
    changed_meanwhile,
    current_version,
    flavor_entry,
    set_version,
    spelling,
)
from adroit_publish.config.names import name_problem
from adroit_publish.config.yaml.spans import BREAK, entry_end, line_end, line_start
from adroit_publish.config.yaml.text import read_yaml
from adroit_publish.config.yaml.tree import Document, Entry, Mapping, Node, Sequence
from adroit_publish.errors import ConfigError, Problem

_ANCHOR = re.compile(r"(?:!\S*[ \t]+)?(&[^\s,\[\]{}]+[ \t]*)")
_COMMENT = re.compile(r"[ \t]*#")


@dataclass(frozen=True)
class _Block:
    """The lines of one entry, as offsets in the text.

    Attributes:
        start: Where its comment block begins.
        end: Behind its last line's break.
    """

    start: int
    end: int


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

    Args:
        data: The whole file.
        flavor: The flavor to copy; it stays as it is.
        new: The copy's name.
        version: The copy's version.
        expected: The version of ``flavor`` that the caller found.
        file: The file's path as the user knows it, for messages.

    Returns:
        The new bytes; ``data`` itself where there is such a flavor with this version already.

    Raises:
        ConfigError: The file is not acceptable, the name is none, or the copy cannot be made
            without changing another value.
        RefusedError: There is another flavor of that name, or ``flavor`` has another version.
    """
    document = read_yaml(data, file)
    if problem := name_problem(new):
        raise ConfigError("This is no name of a flavor.", where=file, got=new, wanted=problem)
    if new in spelling(document):
        if current_version(document, new, flavor_entry(document, new)) == version:
            return data
        return set_version(data, new, version, expected=None, file=file)
    entry = flavor_entry(document, flavor)
    current = current_version(document, flavor, entry)
    if current != expected:
        raise changed_meanwhile(document, flavor, entry, got=current, wanted=expected)
    text, block = document.text, _block(document, flavor, entry)
    added = _renamed(text, block, entry, new)
    eol = _line_break(text)
    if not added.endswith(("\n", "\r")):
        added += eol
    last = not text[block.end :].strip()
    gap = eol if _stands_apart(text, block) else ""
    before = text[: block.end]
    if not before.endswith(("\n", "\r")):
        before += eol
    blank = _blank_lines_end(text, block.end)
    if gap and not last and blank > block.end:  # keep the distance to the next one
        edited = text[:blank] + added + text[block.end : blank] + text[blank:]
    else:
        edited = before + gap + added + text[block.end :]
    copied = document.encode(edited)
    _check_only_entry(document, copied, new, flavor, version_too=True)
    return set_version(copied, new, version, expected=current, file=file)


def delete_flavor(
    data: bytes, flavor: str, *, expected: str | None, file: str = "flavors.yaml"
) -> bytes:
    """Returns the file without a flavor and its comments; ``data`` where there is none.

    Args:
        data: The whole file.
        flavor: The flavor's name.
        expected: The version that the caller found there.
        file: The file's path as the user knows it, for messages.

    Raises:
        ConfigError: The file is not acceptable, or another flavor would change: one that takes a
            value from this one by an anchor.
        RefusedError: The flavor has another version by now.
    """
    document = read_yaml(data, file)
    if document.root is None or flavor not in spelling(document):
        return data
    entry = flavor_entry(document, flavor)
    current = current_version(document, flavor, entry)
    if current != expected:
        raise changed_meanwhile(document, flavor, entry, got=current, wanted=expected)
    text, block = document.text, _block(document, flavor, entry)
    start, end = block.start, _blank_lines_end(text, block.end)
    if end == len(text):
        end = block.end if text[block.end :] else end
        start = _blank_lines_start(text, start)
    edited = document.encode(text[:start] + text[end:])
    _check_only_entry(document, edited, flavor, flavor, version_too=False)
    return edited


def _block(document: Document, flavor: str, entry: Entry) -> _Block:
    text, root = document.text, document.root
    begin = line_start(text, entry.key.start)
    lead = text[begin : entry.key.start]
    if not isinstance(root, Mapping) or root.flow or lead.strip():
        raise _cannot(document, flavor, entry, "it does not begin a line of its own")
    end = _next_line(text, entry_end(text, entry))
    while end < len(text) and _is_deeper_comment(text, end, len(lead)):
        end = _next_line(text, end)
    start = begin
    while start > 0 and _COMMENT.match(
        text, previous := line_start(text, _before_break(text, start))
    ):
        start = previous
    if start == 0 and start != begin:  # the file's own heading
        start = begin
    return _Block(start, end)


def _is_deeper_comment(text: str, at: int, indent: int) -> bool:
    line = text[at : line_end(text, at)]
    return line.lstrip().startswith("#") and len(line) - len(line.lstrip()) > indent


def _renamed(text: str, block: _Block, entry: Entry, new: str) -> str:
    """Returns the block's text by another name, without its anchors."""
    cuts = [(entry.key.start, entry.key.end, new)]
    for node in _nodes(entry.value):
        found = _ANCHOR.match(text, node.start, node.end)
        if found:
            cuts.append((*found.span(1), ""))
    parts, at = [], block.start
    for start, end, replacement in sorted(cuts):
        parts += [text[at:start], replacement]
        at = end
        if not replacement and text[at : at + 1] in ("\r", "\n"):  # nothing behind it in its line
            parts[-2] = parts[-2].rstrip(" \t")
    return "".join([*parts, text[at : block.end]])


def _nodes(node: Node) -> Iterator[Node]:
    yield node
    if isinstance(node, Sequence):
        for item in node.items:
            yield from _nodes(item)
    elif isinstance(node, Mapping):
        for entry in node.entries:
            yield entry.key
            yield from _nodes(entry.value)


def _stands_apart(text: str, block: _Block) -> bool:
    """Whether empty lines divide the entry from what is before it or after it."""
    return (
        _blank_lines_end(text, block.end) > block.end
        or _blank_lines_start(text, block.start) < block.start
    )


def _next_line(text: str, offset: int) -> int:
    end = line_end(text, offset)
    found = BREAK.match(text, end)
    return found.end() if found else end


def _before_break(text: str, start: int) -> int:
    return start - 2 if text[:start].endswith("\r\n") else start - 1


def _blank_lines_end(text: str, at: int) -> int:
    while at < len(text) and not text[at : line_end(text, at)].strip():
        at = _next_line(text, at)
    return at


def _blank_lines_start(text: str, at: int) -> int:
    while at > 0:
        previous = line_start(text, _before_break(text, at))
        if text[previous:at].strip():
            break
        at = previous
    return at


def _line_break(text: str) -> str:
    found = BREAK.search(text)
    return found[0] if found else "\n"


def _check_only_entry(
    before: Document, edited: bytes, name: str, flavor: str, *, version_too: bool
) -> None:
    """Raises ConfigError unless ``name`` alone came (as a copy of ``flavor``) or went."""
    try:
        after = spelling(read_yaml(edited, before.file)) if _has_content(edited) else {}
    except ConfigError as error:
        entry = flavor_entry(before, flavor)
        raise _cannot(before, flavor, entry, f"the result would not be valid: {error}") from error
    old = spelling(before)
    if version_too:
        copied = after.pop(name, None)
        same = copied == old[flavor]
    else:
        old.pop(name)
        same = True
    if not same or after != old or list(after) != list(old):
        entry = flavor_entry(before, flavor)
        raise _cannot(before, flavor, entry, "another value of the file would change with it")


def _has_content(data: bytes) -> bool:
    lines = data.decode("utf-8-sig").splitlines()
    return any(line.strip() and not line.lstrip().startswith("#") for line in lines)


def _cannot(document: Document, flavor: str, entry: Entry, reason: str) -> ConfigError:
    said = f"the entry of flavor {flavor!r} can be neither copied nor deleted: {reason}"
    return ConfigError.of(
        [Problem(document.file, entry.key.line, said)],
        next_step="edit the entry by hand, then run the same command again",
    )
