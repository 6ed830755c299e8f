"""The byte-exact edit of a flavor's ``hold: "why"``, which CI respects.

Setting it replaces the value that is there, or adds a line at the end of the flavor's mapping;
taking it away takes its whole line. A hold that the flavor inherits by a merge is overruled by
``hold: null`` of its own. As with every edit, the result is parsed again, and stands only where
nothing but this flavor's hold changed.
"""

from __future__ import annotations

import json
from typing import Any

from adroit_publish.config.flavors_edit import flavor_entry, insertion, spelling
from adroit_publish.config.yaml.spans import (
    BREAK,
    colon_end,
    entry_end,
    is_block_scalar,
    line_end,
    line_start,
    value_start,
)
from adroit_publish.config.yaml.text import read_yaml
from adroit_publish.config.yaml.tree import Alias, Document, Entry, Mapping, Scalar, deref
from adroit_publish.config.yaml.values import effective_entries, is_null
from adroit_publish.errors import ConfigError, Problem

KEY = "hold"
MAX_CHARACTERS = 500
_Splice = tuple[int, int, str]


def set_hold(data: bytes, flavor: str, why: str, file: str = "flavors.yaml") -> bytes:
    """Returns the file with a flavor held, and every other byte as it was.

    Args:
        data: The whole file.
        flavor: The flavor's name.
        why: The reason, one line of printable characters, at most ``MAX_CHARACTERS``.
        file: The file's path as the user knows it, for messages.

    Raises:
        ConfigError: The file is not acceptable, there is no such flavor, the reason is none, or
            another value would change.
    """
    if not why.strip() or not why.isprintable() or len(why) > MAX_CHARACTERS:
        raise ConfigError(
            "This is no reason for a hold.",
            got=repr(why[:80]),
            wanted=f"one line of text, at most {MAX_CHARACTERS} characters",
            next_step=f'python -m adroit_publish hold {flavor} --why "..."',
        )
    document = read_yaml(data, file)
    entry = flavor_entry(document, flavor)
    return _spliced(
        document, flavor, _setting(document, entry, json.dumps(why, ensure_ascii=False)), why
    )


def clear_hold(data: bytes, flavor: str, file: str = "flavors.yaml") -> bytes:
    """Returns the file with a flavor no longer held; ``data`` where it is not.

    Args, Raises: As for ``set_hold``.
    """
    document = read_yaml(data, file)
    entry = flavor_entry(document, flavor)
    mapping = deref(entry.value)
    assert isinstance(mapping, Mapping)
    held = effective_entries(mapping).get(KEY)
    if held is None or is_null(held.value):
        return data
    own = _own(entry)
    if own is None:
        return _spliced(document, flavor, _setting(document, entry, "null"), None)
    edited = _spliced(document, flavor, _removal(document.text, mapping, own), None)
    merged = effective_entries(_mapping_in(edited, flavor, file)).get(KEY)
    if merged is None or is_null(merged.value):
        return edited
    return clear_hold(edited, flavor, file)  # what it overruled shows again


def _mapping_in(data: bytes, flavor: str, file: str) -> Mapping:
    mapping = deref(flavor_entry(read_yaml(data, file), flavor).value)
    assert isinstance(mapping, Mapping)
    return mapping


def _own(entry: Entry) -> Entry | None:
    own = entry.value.entries if isinstance(entry.value, Mapping) else ()
    return next((each for each in own if each.name == KEY), None)


def _setting(document: Document, entry: Entry, quoted: str) -> _Splice:
    """Returns the edit that gives a flavor a hold: which characters become what."""
    text, own = document.text, _own(entry)
    if isinstance(entry.value, Alias):
        alias = entry.value
        return alias.start, alias.end, f"{{<<: {text[alias.start : alias.end]}, {KEY}: {quoted}}}"
    assert isinstance(entry.value, Mapping)
    if own is None:
        return insertion(text, entry.value, f"{KEY}: {quoted}")
    value = own.value
    if value.end == value.start:
        colon = colon_end(text, own) or own.key.end
        return colon, colon, f" {quoted}"
    if not isinstance(value, Scalar):
        return value.start, value.end, quoted
    start = value_start(text, value)
    if is_block_scalar(value):
        return start, start + len(text[start : value.end].rstrip()), quoted
    return (start, value.end, quoted) if start < value.end else (value.end, value.end, f" {quoted}")


def _removal(text: str, mapping: Mapping, own: Entry) -> _Splice:
    """Returns the edit that takes an entry out of a mapping."""
    at = mapping.entries.index(own)
    if not mapping.flow:
        start, end = line_start(text, own.key.start), line_end(text, entry_end(text, own))
        if not text[start : own.key.start].strip():
            found = BREAK.match(text, end)
            if found:
                return start, found.end(), ""
            before = line_end(
                text, entry_end(text, mapping.entries[at - 1])
            )  # the last line of all
            return (before, end, "") if at else (start, end, "")
        if at + 1 < len(mapping.entries):
            return own.key.start, mapping.entries[at + 1].key.start, ""
    if at:
        return entry_end(text, mapping.entries[at - 1]), entry_end(text, own), ""
    after = mapping.entries[at + 1].key.start if len(mapping.entries) > 1 else mapping.end - 1
    return own.key.start, after, ""


def _spliced(document: Document, flavor: str, splice: _Splice, why: str | None) -> bytes:
    """Returns the file with the edit made; raises ConfigError where it changes anything else."""
    start, end, replacement = splice
    edited = document.encode(document.text[:start] + replacement + document.text[end:])
    try:
        new = spelling(read_yaml(edited, document.file))
    except ConfigError as error:
        raise _cannot(document, flavor, f"the result would not be valid: {error}") from error
    old = spelling(document)
    got: Any = new.get(flavor, {}).pop(KEY, None)
    old[flavor].pop(KEY, None)
    as_wanted = got == (why, True) if why is not None else True
    if not as_wanted or new != old or list(new) != list(old):
        raise _cannot(document, flavor, "another value would change with it")
    return edited


def _cannot(document: Document, flavor: str, reason: str) -> ConfigError:
    line = flavor_entry(document, flavor).key.line
    said = f"the hold of flavor {flavor!r} cannot be changed: {reason}"
    return ConfigError.of(
        [Problem(document.file, line, said)],
        next_step=f"edit the 'hold:' line of flavor {flavor!r} by hand",
    )
