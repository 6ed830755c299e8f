"""The byte-exact edit of one flavor's ``version`` in flavors.yaml.

The file is never written from its parsed form: the scalar's span is found in the tree, its
characters are replaced, the result is parsed again, and the edit stands only where exactly that
flavor's version changed. Where the flavor has no version of its own, it gets one:

    version missing, or inherited by a merge     a line after the last line of the flavor's mapping
    version: *alias                              the alias becomes a scalar
    {config: c, conda_env: e}                    ``, version: V`` before the closing brace
    flavor: *other                               ``flavor: {<<: *other, version: V}``

Quotes stay as they are; where there were none, they are added only to a value that a YAML 1.1 or
1.2 reader could take for a number. Comments, anchors and ``!!str`` stay. A block scalar
(``|`` or ``>``) becomes a plain one, because its value would end with a line break.
"""

from __future__ import annotations

import re
from typing import Any

from adroit_publish.config.flavors import is_published_version, is_run_id, own_text
from adroit_publish.config.yaml_text import read_yaml
from adroit_publish.config.yaml_tree import (
    Alias,
    Document,
    Entry,
    Mapping,
    Node,
    Scalar,
    Sequence,
    deref,
)
from adroit_publish.config.yaml_values import effective_entries, value_of
from adroit_publish.errors import ConfigError, Problem, RefusedError

KEY = "version"

# What a reader could take for a number: 1.2's integers and floats, 1.1's binary.
_LIKE_A_NUMBER = re.compile(r"[0-9]+(e[0-9]+)?|0b[01]+")
_PROPERTY = re.compile(r"[&!]\S*(?:\s(?:#[^\r\n]*)?)*")  # with the space and comments after it
_COLON = re.compile(r"(?:\s(?:#[^\r\n]*)?)*:")
_LINE_END = re.compile(r"[^\r\n]*")
_BREAK = re.compile(r"\r\n|\r|\n")


def set_version(
    data: bytes,
    flavor: str,
    version: str,
    *,
    expected: str | None,
    file: str = "flavors.yaml",
) -> bytes:
    """Returns the file with one flavor's version set and every other byte as it was.

    Args:
        data: The whole file.
        flavor: The flavor's name.
        version: A run id or a published version.
        expected: The version the caller found there before; None where there was none.
        file: The file's path as the user knows it, for messages.

    Returns:
        The new bytes; ``data`` itself where the flavor has this version already.

    Raises:
        ConfigError: The file is not acceptable YAML, has no such flavor, or the edit cannot be
            made without changing another value.
        RefusedError: The flavor's version is neither ``expected`` nor ``version``: another writer
            changed it.
    """
    if not (is_run_id(version) or is_published_version(version)):
        raise ValueError(f"not a version: {version!r}")
    document = read_yaml(data, file)
    entry = _flavor_entry(document, flavor)
    current = _current_version(document, flavor, entry)
    if current == version:
        return data
    if current != expected:
        raise _changed_meanwhile(document, flavor, entry, got=current, wanted=expected)
    start, end, replacement = _splice(document, flavor, entry, version)
    edited = document.encode(document.text[:start] + replacement + document.text[end:])
    _check_only_change(document, edited, flavor, version)
    return edited


def version_line(data: bytes, flavor: str, file: str = "flavors.yaml") -> tuple[int, str]:
    """Returns the line that holds a flavor's own version: its number from 1, and its text.

    Where the flavor has none of its own, this is the line that holds the flavor's name.

    Raises:
        ConfigError: The file is not acceptable YAML, or has no such flavor.
    """
    document = read_yaml(data, file)
    entry = _flavor_entry(document, flavor)
    own, text = _own_entry(entry), document.text
    node = own.key if own else entry.key
    start = node.start
    if own and isinstance(own.value, Scalar) and own.value.text:
        start = _value_start(text, own.value)
    elif own and isinstance(own.value, Alias):
        start = own.value.start
    number = node.line + len(_BREAK.findall(text, node.start, start))
    return number, text[_line_start(text, start) : _line_end(text, start)]


def _flavor_entry(document: Document, flavor: str) -> Entry:
    root = deref(document.root) if document.root is not None else None
    entries = effective_entries(root) if isinstance(root, Mapping) else {}
    if flavor not in entries:
        raise ConfigError.of([Problem(document.file, 0, f"there is no flavor {flavor!r}")])
    entry = entries[flavor]
    if not isinstance(deref(entry.value), Mapping):
        raise _cannot(document, flavor, entry.key.line, "it is not a mapping")
    if isinstance(root, Mapping) and entry not in root.entries:
        raise _cannot(document, flavor, entry.key.line, "it comes from a merge at the top level")
    return entry


def _own_entry(flavor_entry: Entry) -> Entry | None:
    """Returns the ``version`` entry that stands in the flavor's own mapping, if one does."""
    mapping = flavor_entry.value
    own = mapping.entries if isinstance(mapping, Mapping) else ()
    return next((entry for entry in own if entry.name == KEY), None)


def _current_version(document: Document, flavor: str, entry: Entry) -> str | None:
    mapping = deref(entry.value)
    assert isinstance(mapping, Mapping)
    try:
        return own_text(effective_entries(mapping).get(KEY))
    except ValueError as reason:
        raise _cannot(document, flavor, entry.key.line, f"its version {reason}") from None


def _splice(document: Document, flavor: str, entry: Entry, version: str) -> tuple[int, int, str]:
    """Returns which characters to replace, and by what."""
    text, plain = document.text, _spelled(version)
    if isinstance(entry.value, Alias):
        alias = entry.value
        name = text[alias.start : alias.end]
        return alias.start, alias.end, f"{{<<: {name}, {KEY}: {plain}}}"
    own = _own_entry(entry)
    mapping = entry.value
    assert isinstance(mapping, Mapping)
    if own is None:
        return _insertion(text, mapping, plain)
    value = own.value
    if isinstance(value, Alias):
        return value.start, value.end, plain
    assert isinstance(value, Scalar)  # _current_version refuses anything else
    start = _value_start(text, value)
    if value.end == value.start:
        colon_end = _colon_end(text, own)
        if colon_end is None:
            raise _cannot(document, flavor, own.key.line, f"its {KEY!r} has no colon; add one")
        return colon_end, colon_end, f" {plain}"
    if start >= value.end:  # an anchor or a tag, and nothing behind it
        return value.end, value.end, f" {plain}"
    if _is_block_scalar(value):
        header_end = _line_end(text, start)
        comment = re.search(r"\s+#.*", text[start:header_end])
        end = start + len(text[start : value.end].rstrip())
        return start, end, plain + (comment[0] if comment else "")
    quote = "" if value.style == "plain" else value.style
    return start, value.end, f"{quote}{version}{quote}" if quote else plain


def _insertion(text: str, mapping: Mapping, plain: str) -> tuple[int, int, str]:
    """Returns the edit that gives a mapping a version of its own."""
    last = max((_entry_end(text, entry) for entry in mapping.entries), default=mapping.end - 1)
    if mapping.flow:
        comma = ", " if mapping.entries else ""
        return last, last, f"{comma}{KEY}: {plain}"
    at = _line_end(text, last)
    key = mapping.entries[0].key.start
    lead = text[_line_start(text, key) : key]
    if lead.strip() == "?":
        lead = lead[: lead.index("?")]
    indent = lead if not lead.strip() else " " * len(lead)
    found = _BREAK.search(text, at) or _BREAK.search(text)
    eol = found[0] if found else "\n"
    if at == len(text) and _is_block_scalar(_last_node(mapping)):
        # A line after it would give that scalar the final line break it does not have.
        return key, key, f"{KEY}: {plain}{eol}{indent}"
    return at, at, f"{eol}{indent}{KEY}: {plain}"


def _last_node(node: Node) -> Node:
    while isinstance(node, Mapping | Sequence) and not node.flow:
        node = node.entries[-1].value if isinstance(node, Mapping) else node.items[-1]
    return node


def _is_block_scalar(node: Node) -> bool:
    return isinstance(node, Scalar) and node.style in ("|", ">")


def _entry_end(text: str, entry: Entry) -> int:
    if entry.value.end == entry.value.start:
        return _colon_end(text, entry) or entry.key.end
    return _last_offset(text, entry.value)


def _colon_end(text: str, entry: Entry) -> int | None:
    """Returns where the colon of an entry without a value ends; None where it has none.

    The mark of a value that was left out is of no use: it is at the next token.
    """
    found = _COLON.match(text, entry.key.end)
    return found.end() if found else None


def _last_offset(text: str, node: Node) -> int:
    """Returns where a value's last character ends; marks of block nodes lie further on."""
    if isinstance(node, Scalar) and _is_block_scalar(node):
        start = _value_start(text, node)
        keeps = "+" in text[start : _line_end(text, start)].split("#")[0]
        body = text[start : node.end]
        if not keeps:
            return start + len(body.rstrip())
        return start + len(re.sub(r"(\r\n|\r|\n)\Z", "", body))
    if isinstance(node, Mapping) and not node.flow:
        return max(_entry_end(text, entry) for entry in node.entries)
    if isinstance(node, Sequence) and not node.flow:
        return max(_last_offset(text, item) for item in node.items)
    return node.end


def _value_start(text: str, value: Scalar) -> int:
    """Returns where a scalar's own characters begin, behind its anchor and its tag."""
    at = value.start
    while at < value.end and text[at] in "&!" and (found := _PROPERTY.match(text, at, value.end)):
        at = found.end()
    return at


def _line_start(text: str, offset: int) -> int:
    return max(text.rfind("\n", 0, offset), text.rfind("\r", 0, offset)) + 1


def _line_end(text: str, offset: int) -> int:
    found = _LINE_END.match(text, offset)
    assert found  # it matches the empty string
    return found.end()


def _spelled(version: str) -> str:
    return f'"{version}"' if _LIKE_A_NUMBER.fullmatch(version) else version


def _check_only_change(before: Document, edited: bytes, flavor: str, version: str) -> None:
    """Raises ConfigError unless the edit changed this flavor's version and nothing else."""
    try:
        after = read_yaml(edited, before.file)
    except ConfigError as error:
        raise _cannot(before, flavor, 0, f"the result would not be valid: {error}") from error
    old, new = _spelling(before), _spelling(after)
    text, is_string = new.get(flavor, {}).pop(KEY, ("", False))
    old[flavor].pop(KEY, None)
    others = [name for name in old if old[name] != new.get(name)]
    if text != version or not (is_string or _spelled(version) == version):
        raise _cannot(before, flavor, 0, "its version would not be read back as written")
    if flavor in others:
        raise _cannot(before, flavor, 0, "another value of this flavor would change with it")
    if others or list(old) != list(new):
        names = ", ".join(repr(name) for name in others)
        raise ConfigError(
            f"The version of flavor {flavor!r} cannot be set without changing {names} too.",
            where=before.file,
            got=f"{names} takes its version from {flavor!r}, by an anchor",
            next_step=f"give {names} a 'version:' line of its own, then run the same command again",
        )


def _spelling(document: Document) -> dict[str, dict[str, Any]]:
    """The file's content with each scalar as it is spelled, so that NaN equals NaN."""
    assert document.root is not None
    spelled: dict[str, dict[str, Any]] = value_of(
        document.root, lambda scalar: (scalar.text, scalar.is_string)
    )
    return spelled


def _cannot(document: Document, flavor: str, line: int, reason: str) -> ConfigError:
    said = f"the version of flavor {flavor!r} cannot be set: {reason}"
    return ConfigError.of(
        [Problem(document.file, line, said)],
        next_step=f"write a 'version:' line of its own into flavor {flavor!r}, by hand",
    )


def _changed_meanwhile(
    document: Document, flavor: str, entry: Entry, *, got: str | None, wanted: str | None
) -> RefusedError:
    return RefusedError(
        f"The version of flavor {flavor!r} was changed by someone else meanwhile.",
        where=f"{document.file}:{entry.key.line}",
        got=got or "no version",
        wanted=wanted or "no version",
        next_step="look at the file, then run the same command again",
    )
