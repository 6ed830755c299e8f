"""The byte-exact edits of one flavor's ``version`` and ``hold`` in flavors.yaml.

Each replaces a few characters of the text (see ``yaml.edits``). The result is parsed again, and the
edit stands only where exactly that value changed, each scalar compared as it is spelled. A version
keeps the quotes it has; where there were none, they are added only to one that a YAML 1.1 or 1.2
reader could take for a number. A hold that the flavor inherits by a merge is overruled by a
``hold: null`` of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from adroit_publish.bundle.version_names import parse_version
from adroit_publish.config.flavors import own_text
from adroit_publish.config.names import nearest
from adroit_publish.config.yaml.edits import Edit, own_entry, remove_entry, set_entry
from adroit_publish.config.yaml.spans import BREAK, line_end, line_start, value_start
from adroit_publish.config.yaml.text import read_yaml
from adroit_publish.config.yaml.tree import Alias, Document, Entry, Mapping, Scalar, deref
from adroit_publish.config.yaml.values import effective_entries, is_null, value_of
from adroit_publish.errors import ConfigError, Problem, RefusedError

VERSION, HOLD = "version", "hold"
MAX_HOLD_CHARACTERS = 500

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
    """Returns the file with one flavor's version set; ``data`` itself where it has it already.

    ``expected`` is the version the caller found there before; None where there was none.

    Raises:
        ConfigError: The file is not acceptable YAML, has no such flavor, or the edit cannot be
            made without changing another value.
        RefusedError: The flavor's version is neither ``expected`` nor ``version``: another writer
            changed it.
        ValueError: ``version`` is neither a run id nor a published version.
    """
    parse_version(version)
    document = read_yaml(data, file)
    if current_version(document, flavor) == version:
        return data
    check_version(document, flavor, expected)
    spelled = f'"{version}"' if _LIKE_A_NUMBER.fullmatch(version) else version
    readings = [(version, True)] if spelled != version else [(version, True), (version, False)]
    edit = _set(document, flavor, VERSION, spelled, version)
    return _proved(document, edit, flavor, VERSION, readings.__contains__)


def set_hold(data: bytes, flavor: str, why: str, file: str = "flavors.yaml") -> bytes:
    """Returns the file with a flavor held, for a reason of one line of printable characters.

    Raises:
        ConfigError: The file is not acceptable, there is no such flavor, the reason is not
            acceptable (or longer than ``MAX_HOLD_CHARACTERS``), or another value would change.
    """
    if not why.strip() or not why.isprintable() or len(why) > MAX_HOLD_CHARACTERS:
        raise ConfigError(
            "Not a valid reason for a hold.",
            got=repr(why[:80]),
            wanted=f"one line of text, at most {MAX_HOLD_CHARACTERS} characters",
            next_step=f'python -m adroit_publish hold {flavor} --why "..."',
        )
    document = read_yaml(data, file)
    edit = _set(document, flavor, HOLD, json.dumps(why, ensure_ascii=False))
    return _proved(document, edit, flavor, HOLD, (why, True).__eq__)


def clear_hold(data: bytes, flavor: str, file: str = "flavors.yaml") -> bytes:
    """Returns the file with a flavor no longer held; ``data`` where it is not.

    Raises as ``set_hold`` does.
    """
    document = read_yaml(data, file)
    entry = flavor_entry(document, flavor)
    held = _entries(entry).get(HOLD)
    if held is None or is_null(held.value):
        return data
    own = own_entry(entry, HOLD)
    if own is None:
        edit = _set(document, flavor, HOLD, "null")
        return _proved(document, edit, flavor, HOLD, ("null", False).__eq__)
    assert isinstance(entry.value, Mapping)
    edit = remove_entry(document.text, entry.value, own)
    without = _proved(document, edit, flavor, HOLD, lambda _: True)
    return clear_hold(without, flavor, file)  # what it overruled shows again


def version_line(data: bytes, flavor: str, file: str = "flavors.yaml") -> tuple[int, str]:
    """Returns the line that holds a flavor's own version: its number from 1, and its text.

    Where the flavor has none of its own, this is the line that holds the flavor's name. Raises
    ConfigError where the file is not acceptable YAML, or has no such flavor.
    """
    document = read_yaml(data, file)
    entry = flavor_entry(document, flavor)
    own, text = own_entry(entry, VERSION), document.text
    key = own.key if own else entry.key
    start = key.start
    if own and isinstance(own.value, Scalar) and own.value.text:
        start = value_start(text, own.value)
    elif own and isinstance(own.value, Alias):
        start = own.value.start
    number = key.line + len(BREAK.findall(text, key.start, start))
    return number, text[line_start(text, start) : line_end(text, start)]


def flavor_entry(document: Document, flavor: str) -> Entry:
    """Returns where a flavor stands; raises ConfigError where none stands that can be edited."""
    root = deref(document.root) if document.root is not None else None
    entries = effective_entries(root) if isinstance(root, Mapping) else {}
    if flavor not in entries:
        known = [name for name in entries if not name.startswith("x-")]
        message = f"there is no flavor {flavor!r}; one of: {nearest(flavor, known)}"
        raise ConfigError.of([Problem(document.file, 0, message)])
    entry = entries[flavor]
    if not isinstance(deref(entry.value), Mapping):
        raise cannot_edit(document, flavor, entry, "it is not a mapping")
    if isinstance(root, Mapping) and entry not in root.entries:
        raise cannot_edit(document, flavor, entry, "it comes from a merge at the top level")
    return entry


def current_version(document: Document, flavor: str) -> str | None:
    """Returns a flavor's version, its own or a merged one; raises ConfigError for a list."""
    entry = flavor_entry(document, flavor)
    try:
        return own_text(_entries(entry).get(VERSION))
    except ValueError as reason:
        raise cannot_edit(document, flavor, entry, f"its version {reason}") from None


def check_version(document: Document, flavor: str, expected: str | None) -> None:
    """Raises RefusedError where the flavor's version is not the one that the caller found."""
    current = current_version(document, flavor)
    if current != expected:
        raise RefusedError(
            f"The version of flavor {flavor!r} was changed by someone else meanwhile.",
            where=f"{document.file}:{flavor_entry(document, flavor).key.line}",
            got=current or "no version",
            wanted=expected or "no version",
            next_step="look at the file, then run the same command again",
        )


def spelling(document: Document) -> dict[str, Any]:
    """Returns a file's content with each scalar as it is spelled, so that NaN equals NaN."""
    if document.root is None or is_null(document.root):
        return {}
    spelled: dict[str, Any] = value_of(
        document.root, lambda scalar: (scalar.text, scalar.is_string)
    )
    return spelled


def read_edited(document: Document, flavor: str, edited: bytes) -> dict[str, Any]:
    """Returns the spelling of an edited file; raises ConfigError where it is no longer YAML."""
    try:
        return spelling(read_yaml(edited, document.file))
    except ConfigError as error:
        entry = flavor_entry(document, flavor)
        reason = f"the result would not be valid: {error}"
        raise cannot_edit(document, flavor, entry, reason) from error


def cannot_edit(document: Document, flavor: str, entry: Entry, reason: str) -> ConfigError:
    """Returns the refusal of an edit that would change more than it is to change."""
    message = f"the entry of flavor {flavor!r} cannot be edited: {reason}"
    return ConfigError.of(
        [Problem(document.file, entry.key.line, message)],
        next_step="edit the entry by hand, then run the same command again",
    )


def _entries(entry: Entry) -> dict[str, Entry]:
    mapping = deref(entry.value)
    assert isinstance(mapping, Mapping)  # flavor_entry refuses anything else
    return effective_entries(mapping)


def _set(document: Document, flavor: str, key: str, spelled: str, bare: str | None = None) -> Edit:
    entry = flavor_entry(document, flavor)
    try:
        return set_entry(document.text, entry, key, spelled, bare)
    except ValueError as reason:
        raise cannot_edit(document, flavor, entry, str(reason)) from None


def _proved(
    document: Document, edit: Edit, flavor: str, key: str, accepts: Callable[[object], bool]
) -> bytes:
    """Returns the edited file; raises ConfigError where anything but that value changed."""
    edited = document.encode(edit.apply(document.text))
    old, new = spelling(document), read_edited(document, flavor, edited)
    entry = flavor_entry(document, flavor)
    old[flavor].pop(key, None)
    value = new[flavor].pop(key, None) if isinstance(new.get(flavor), dict) else None
    others = [name for name in old if name != flavor and old[name] != new.get(name)]
    if others:
        names = ", ".join(map(repr, others))
        own = [f"{name!r} its own `{_own_value(document, name, key)}`" for name in others]
        raise ConfigError(
            f"The {key} of flavor {flavor!r} cannot be set without changing {names} too.",
            where=f"{document.file}:{entry.key.line}",
            got=f"{names} takes its {key} from {flavor!r}, by an anchor",
            next_step=f"give {'; '.join(own)}; then run the same command again",
        )
    if not accepts(value):
        raise cannot_edit(document, flavor, entry, f"its {key} would not be read back as written")
    if old != new or list(old) != list(new):
        raise cannot_edit(document, flavor, entry, "another value of it would change as well")
    return edited


def _own_value(document: Document, name: str, key: str) -> str:
    """Returns what an entry lacks to have a value of its own, as its author would type it."""
    root = document.root
    assert isinstance(root, Mapping)
    entry = effective_entries(root)[name]
    if not isinstance(deref(entry.value), Mapping):
        return "value"
    version = current_version(document, name) if key == VERSION else None
    return set_entry(document.text, entry, key, version or "null").replacement.strip(", \r\n")
