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
from adroit_publish.config.yaml.spans import (
    BREAK,
    colon_end,
    entry_end,
    is_block_scalar,
    last_node,
    line_end,
    line_start,
    value_start,
)
from adroit_publish.config.yaml.text import read_yaml
from adroit_publish.config.yaml.tree import Alias, Document, Entry, Mapping, Scalar, deref
from adroit_publish.config.yaml.values import effective_entries, value_of
from adroit_publish.errors import ConfigError, Problem, RefusedError

KEY = "version"

# What a reader could take for a number: 1.2's integers and floats, 1.1's binary.
_LIKE_A_NUMBER = re.compile(r"[0-9]+(e[0-9]+)?|0b[01]+")


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
    entry = flavor_entry(document, flavor)
    current = current_version(document, flavor, entry)
    if current == version:
        return data
    if current != expected:
        raise changed_meanwhile(document, flavor, entry, got=current, wanted=expected)
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
    entry = flavor_entry(document, flavor)
    own, text = _own_entry(entry), document.text
    node = own.key if own else entry.key
    start = node.start
    if own and isinstance(own.value, Scalar) and own.value.text:
        start = value_start(text, own.value)
    elif own and isinstance(own.value, Alias):
        start = own.value.start
    number = node.line + len(BREAK.findall(text, node.start, start))
    return number, text[line_start(text, start) : line_end(text, start)]


def flavor_entry(document: Document, flavor: str) -> Entry:
    """Returns where a flavor stands; raises ConfigError where there is none that can be edited."""
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


def current_version(document: Document, flavor: str, entry: Entry) -> str | None:
    """Returns a flavor's version, its own or a merged one; raises ConfigError for what is none."""
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
        return insertion(text, mapping, f"{KEY}: {plain}")
    value = own.value
    if isinstance(value, Alias):
        return value.start, value.end, plain
    assert isinstance(value, Scalar)  # _current_version refuses anything else
    start = value_start(text, value)
    if value.end == value.start:
        colon = colon_end(text, own)
        if colon is None:
            raise _cannot(document, flavor, own.key.line, f"its {KEY!r} has no colon; add one")
        return colon, colon, f" {plain}"
    if start >= value.end:  # an anchor or a tag, and nothing behind it
        return value.end, value.end, f" {plain}"
    if is_block_scalar(value):
        header_end = line_end(text, start)
        comment = re.search(r"\s+#.*", text[start:header_end])
        end = start + len(text[start : value.end].rstrip())
        return start, end, plain + (comment[0] if comment else "")
    quote = "" if value.style == "plain" else value.style
    return start, value.end, f"{quote}{version}{quote}" if quote else plain


def insertion(text: str, mapping: Mapping, added: str) -> tuple[int, int, str]:
    """Returns the edit that gives a mapping another entry: which characters become what.

    Args:
        text: The whole text.
        mapping: Of a flavor, and its own: no alias.
        added: ``key: value``.
    """
    last = max((entry_end(text, entry) for entry in mapping.entries), default=mapping.end - 1)
    if mapping.flow:
        comma = ", " if mapping.entries else ""
        return last, last, f"{comma}{added}"
    at = line_end(text, last)
    key = mapping.entries[0].key.start
    lead = text[line_start(text, key) : key]
    if lead.strip() == "?":
        lead = lead[: lead.index("?")]
    indent = lead if not lead.strip() else " " * len(lead)
    found = BREAK.search(text, at) or BREAK.search(text)
    eol = found[0] if found else "\n"
    if at == len(text) and is_block_scalar(last_node(mapping)):
        # A line after it would give that scalar the final line break it does not have.
        return key, key, f"{added}{eol}{indent}"
    return at, at, f"{eol}{indent}{added}"


def _spelled(version: str) -> str:
    return f'"{version}"' if _LIKE_A_NUMBER.fullmatch(version) else version


def _check_only_change(before: Document, edited: bytes, flavor: str, version: str) -> None:
    """Raises ConfigError unless the edit changed this flavor's version and nothing else."""
    try:
        after = read_yaml(edited, before.file)
    except ConfigError as error:
        raise _cannot(before, flavor, 0, f"the result would not be valid: {error}") from error
    old, new = spelling(before), spelling(after)
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


def spelling(document: Document) -> dict[str, dict[str, Any]]:
    """Returns a file's content with each scalar as it is spelled, so that NaN equals NaN."""
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


def changed_meanwhile(
    document: Document, flavor: str, entry: Entry, *, got: str | None, wanted: str | None
) -> RefusedError:
    """Returns the refusal of an edit that found another version than its caller did."""
    return RefusedError(
        f"The version of flavor {flavor!r} was changed by someone else meanwhile.",
        where=f"{document.file}:{entry.key.line}",
        got=got or "no version",
        wanted=wanted or "no version",
        next_step="look at the file, then run the same command again",
    )
