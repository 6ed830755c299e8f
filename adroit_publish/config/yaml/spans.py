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


def keeps_breaks(text: str, node: Node) -> bool:
    """Whether the empty lines after a block scalar are part of it: ``|+`` or ``>+``."""
    if not isinstance(node, Scalar) or not is_block_scalar(node):
        return False
    start = value_start(text, node)
    return "+" in text[start : line_end(text, start)].split("#")[0]


def entry_end(text: str, entry: Entry) -> int:
    """Returns where the last character of a ``key: value`` ends."""
    if entry.value.end == entry.value.start:
        return colon_end(text, entry) or entry.key.end
    return last_offset(text, entry.value)


def colon_end(text: str, entry: Entry) -> int | None:
    """Returns where the colon of an entry without a value ends; None where it has none.

    The mark of a value that was left out is of no use: it is at the next token.
    """
    colon = _COLON.match(text, entry.key.end)
    return colon.end() if colon else None


def last_offset(text: str, node: Node) -> int:
    """Returns where a value's last character ends; marks of block nodes lie further on."""
    if isinstance(node, Scalar) and is_block_scalar(node):
        start = value_start(text, node)
        body = text[start : node.end]
        kept = re.sub(r"(\r\n|\r|\n)\Z", "", body) if keeps_breaks(text, node) else body.rstrip()
        return start + len(kept)
    if isinstance(node, Mapping) and not node.flow:
        return max(entry_end(text, entry) for entry in node.entries)
    if isinstance(node, Sequence) and not node.flow:
        return max(last_offset(text, item) for item in node.items)
    return node.end


def value_start(text: str, value: Scalar) -> int:
    """Returns where a scalar's own characters begin, behind its anchor and its tag."""
    at = value.start
    while at < value.end and (prefix := _PROPERTY.match(text, at, value.end)):
        at = prefix.end()
    return at


def line_start(text: str, offset: int) -> int:
    """Returns where the line that holds ``offset`` begins."""
    return max(text.rfind("\n", 0, offset), text.rfind("\r", 0, offset)) + 1


def line_end(text: str, offset: int) -> int:
    """Returns where that line ends, before its line break."""
    rest = _LINE_END.match(text, offset)
    assert rest  # it matches the empty string
    return rest.end()


def next_line(text: str, offset: int) -> int:
    """Returns where the next line begins; the end of the text where there is none."""
    end = line_end(text, offset)
    after = BREAK.match(text, end)
    return after.end() if after else end


def previous_line(text: str, start: int) -> int:
    """Returns where the line before the one that begins at ``start`` begins."""
    return line_start(text, start - 2 if text.endswith("\r\n", 0, start) else start - 1)


def blank_lines_end(text: str, at: int) -> int:
    """Returns where the empty lines from ``at`` on end."""
    while at < len(text) and not text[at : line_end(text, at)].strip():
        at = next_line(text, at)
    return at


def blank_lines_start(text: str, at: int) -> int:
    """Returns where the empty lines before ``at`` begin."""
    while at > 0 and not text[previous_line(text, at) : at].strip():
        at = previous_line(text, at)
    return at


def line_break(text: str, at: int = 0) -> str:
    """Returns the line break that the text uses, from ``at`` on if it can be told there."""
    used = BREAK.search(text, at) or BREAK.search(text)
    return used[0] if used else "\n"
