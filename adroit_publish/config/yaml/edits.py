"""One edit of a YAML text: which characters become what; every other one stays.

A file is never written from its parsed form. The tree says where an entry stands, an ``Edit``
replaces those characters, and the caller parses the result to prove that only that value changed.

    key: value            the scalar is replaced, in the quotes it has
    key: *alias           the alias becomes a scalar
    key missing           a line after the last line of the mapping
    {a: b}                ``, key: value`` before the closing brace
    owner: *other         ``owner: {<<: *other, key: value}``

Comments, anchors and ``!!str`` stay. A block scalar (``|`` or ``>``) becomes a plain one, because
its value would end with a line break.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from adroit_publish.config.yaml import spans
from adroit_publish.config.yaml.tree import Alias, Entry, Mapping, Scalar

_COMMA = re.compile(r"\s*,[ \t]*")


@dataclass(frozen=True)
class Edit:
    """The characters from ``start`` to ``end`` become ``replacement``."""

    start: int
    end: int
    replacement: str

    def apply(self, text: str) -> str:
        """Returns the edited text."""
        return text[: self.start] + self.replacement + text[self.end :]


def own_entry(owner: Entry, key: str) -> Entry | None:
    """Returns the entry of that key in the owner's own mapping, neither merged nor aliased."""
    own = owner.value.entries if isinstance(owner.value, Mapping) else ()
    return next((entry for entry in own if entry.name == key), None)


def set_entry(text: str, owner: Entry, key: str, spelled: str, bare: str | None = None) -> Edit:
    """Returns the edit that sets ``key`` in the mapping of ``owner``.

    Args:
        owner: An entry whose value is a mapping, or an alias of one.
        spelled: The new value as YAML.
        bare: What goes between the quotes of the old value; None replaces the quotes as well.

    Raises:
        ValueError: The key stands without a colon, or its value is a list or a mapping.
    """
    if isinstance(owner.value, Alias):
        start, end = owner.value.start, owner.value.end
        return Edit(start, end, f"{{<<: {text[start:end]}, {key}: {spelled}}}")
    own = own_entry(owner, key)
    if own is not None:
        return _replace_value(text, own, spelled, bare)
    assert isinstance(owner.value, Mapping)
    return _add_entry(text, owner.value, f"{key}: {spelled}")


def remove_entry(text: str, mapping: Mapping, entry: Entry) -> Edit:
    """Returns the edit that takes an entry out of its mapping, and no comment but its line's."""
    at = mapping.entries.index(entry)
    start, end = (
        spans.line_start(text, entry.key.start),
        spans.line_end(text, spans.entry_end(text, entry)),
    )
    if not mapping.flow and not text[start : entry.key.start].strip():
        if start == 0 or end < len(text):
            return Edit(start, spans.next_line(text, end), "")
        if at and spans.is_block_scalar(spans.last_node(mapping.entries[at - 1].value)):
            return Edit(start, end, "")  # the line break before it is part of that value
        return Edit(spans.line_end(text, spans.previous_line(text, start)), end, "")
    start, end = entry.key.start, spans.entry_end(text, entry)
    if mapping.flow and at:
        before = spans.entry_end(text, mapping.entries[at - 1])
        if not text[before:start].strip(", \t\r\n"):
            return Edit(before, end, "")
    comma = _COMMA.match(text, end) if mapping.flow else None
    return Edit(start, comma.end() if comma else end, "")


def _replace_value(text: str, entry: Entry, spelled: str, bare: str | None) -> Edit:
    value = entry.value
    if isinstance(value, Alias):
        return Edit(value.start, value.end, spelled)
    if not isinstance(value, Scalar):
        raise ValueError(f"its {entry.name!r} is a list or a mapping")
    if value.end == value.start:
        colon = spans.colon_end(text, entry)
        if colon is None:
            raise ValueError(f"its {entry.name!r} has no colon; add one")
        return Edit(colon, colon, f" {spelled}")
    start = spans.value_start(text, value)
    if start >= value.end:  # an anchor or a tag, and nothing behind it
        return Edit(value.end, value.end, f" {spelled}")
    if spans.is_block_scalar(value):
        comment = re.search(r"\s+#.*", text[start : spans.line_end(text, start)])
        end = start + len(text[start : value.end].rstrip())
        return Edit(start, end, spelled + (comment[0] if comment else ""))
    if bare is not None and value.style != "plain":
        return Edit(start + 1, value.end - 1, bare)
    return Edit(start, value.end, spelled)


def _add_entry(text: str, mapping: Mapping, added: str) -> Edit:
    last = max((spans.entry_end(text, entry) for entry in mapping.entries), default=mapping.end - 1)
    if mapping.flow:
        gap = " " if text[last - 1] == ":" else ""  # behind an empty value: `key:,` is a word
        return Edit(last, last, f"{gap}, {added}" if mapping.entries else added)
    at, key = spans.line_end(text, last), mapping.entries[0].key.start
    lead = text[spans.line_start(text, key) : key]
    if lead.strip() == "?":
        lead = lead[: lead.index("?")]
    indent = lead if not lead.strip() else " " * len(lead)
    eol = spans.line_break(text, at)
    if at == len(text) and spans.is_block_scalar(spans.last_node(mapping)):
        # A line after it would give that scalar the final line break it does not have.
        return Edit(key, key, f"{added}{eol}{indent}")
    return Edit(at, at, f"{eol}{indent}{added}")
