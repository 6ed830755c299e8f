"""Where the parts of a YAML text begin and end, to the character, for edits that keep the rest.

The marks of a parser are of no use for that: a block node's end lies at the next token, and a
value that was left out has none.
"""

from __future__ import annotations

import re

from adroit_publish.config.yaml.tree import Entry, Mapping, Node, Scalar, Sequence

BREAK = re.compile(r"\r\n|\r|\n")
_PROPERTY = re.compile(r"[&!]\S*(?:\s(?:#[^\r\n]*)?)*")  # with the space and comments after it
_COLON = re.compile(r"(?:\s(?:#[^\r\n]*)?)*:")
_LINE_END = re.compile(r"[^\r\n]*")


def last_node(node: Node) -> Node:
    """Returns the last value of a block node, however deep; any other node is its own."""
    while isinstance(node, Mapping | Sequence) and not node.flow:
        node = node.entries[-1].value if isinstance(node, Mapping) else node.items[-1]
    return node


def is_block_scalar(node: Node) -> bool:
    """Whether a value is written behind ``|`` or ``>``."""
    return isinstance(node, Scalar) and node.style in ("|", ">")


def entry_end(text: str, entry: Entry) -> int:
    """Returns where the last character of a ``key: value`` ends."""
    if entry.value.end == entry.value.start:
        return colon_end(text, entry) or entry.key.end
    return last_offset(text, entry.value)


def colon_end(text: str, entry: Entry) -> int | None:
    """Returns where the colon of an entry without a value ends; None where it has none.

    The mark of a value that was left out is of no use: it is at the next token.
    """
    found = _COLON.match(text, entry.key.end)
    return found.end() if found else None


def last_offset(text: str, node: Node) -> int:
    """Returns where a value's last character ends; marks of block nodes lie further on."""
    if isinstance(node, Scalar) and is_block_scalar(node):
        start = value_start(text, node)
        keeps = "+" in text[start : line_end(text, start)].split("#")[0]
        body = text[start : node.end]
        if not keeps:
            return start + len(body.rstrip())
        return start + len(re.sub(r"(\r\n|\r|\n)\Z", "", body))
    if isinstance(node, Mapping) and not node.flow:
        return max(entry_end(text, entry) for entry in node.entries)
    if isinstance(node, Sequence) and not node.flow:
        return max(last_offset(text, item) for item in node.items)
    return node.end


def value_start(text: str, value: Scalar) -> int:
    """Returns where a scalar's own characters begin, behind its anchor and its tag."""
    at = value.start
    while at < value.end and text[at] in "&!" and (found := _PROPERTY.match(text, at, value.end)):
        at = found.end()
    return at


def line_start(text: str, offset: int) -> int:
    """Returns where the line that holds ``offset`` begins."""
    return max(text.rfind("\n", 0, offset), text.rfind("\r", 0, offset)) + 1


def line_end(text: str, offset: int) -> int:
    """Returns where that line ends, before its line break."""
    found = _LINE_END.match(text, offset)
    assert found  # it matches the empty string
    return found.end()
