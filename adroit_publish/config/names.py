"""Which names and paths are allowed in the users' files, and which known name a wrong one meant.

Names end up in S3 keys, image references, command lines and file names; paths are joined to the
repository's root. So neither may step out of its place, start an option, or hide a character.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable
from pathlib import PurePosixPath

MAX_NAME_LENGTH = 128

_NAME = re.compile(r"\w[\w.-]*")
_ASCII_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def name_problem(name: str, *, ascii_only: bool = False) -> str | None:
    """Returns what is wrong with a name of a flavor, a conda env, a model or a target, or None.

    With ``ascii_only`` its letters and digits are ASCII's alone, as in image references.
    """
    pattern = _ASCII_NAME if ascii_only else _NAME
    if len(name) > MAX_NAME_LENGTH:
        return f"has more than {MAX_NAME_LENGTH} characters"
    if not pattern.fullmatch(name):
        return "may hold letters, digits, '_', '.' and '-' only, the first a letter or digit"
    if ".." in name:
        return "may not hold '..'"
    if not unicodedata.is_normalized("NFC", name):
        return "is not in Unicode's composed form (NFC), so it would look like another name"
    return None


def relative_path(text: str) -> str:
    """Returns a path below the repository's root in its plain form (no ``./``, no ``//``).

    Raises ValueError for any other; its text says why, to follow the path's name.
    """
    path = PurePosixPath(text)
    if not text.isprintable() or "\\" in text:
        raise ValueError("has a backslash or a character that does not print")
    if path.is_absolute() or re.match(r"[A-Za-z]:|~", text):
        raise ValueError("must be relative to the repository's root")
    if ".." in path.parts:
        raise ValueError("may not step up with '..'")
    if not path.parts:
        raise ValueError("must name something below the repository's root")
    return str(path)


def near_miss(key: str, known: Iterable[str]) -> str | None:
    """Returns the known key that ``key`` is probably a slip of, or None where it is foreign.

    Two edits (insert, delete, replace, swap of neighbours) are a slip, one where either has
    five letters or fewer: two edits turn ``host`` into ``hold``. Case, ``-`` and ``_`` do not
    count. A key that starts with ``x-`` is foreign by convention.
    """
    if key.startswith("x-"):
        return None
    folded = key.casefold().replace("-", "_")
    for candidate in known:
        allowed = 1 if min(len(folded), len(candidate)) <= 5 else 2
        # No edit changes which letters are there by more than two; the distance itself is slow.
        if abs(len(folded) - len(candidate)) > allowed:
            continue
        if len({*folded} ^ {*candidate}) > 2 * allowed:
            continue
        if _edits(folded, candidate) <= allowed:
            return candidate
    return None


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns the names most like ``name``, or all where none is, as text for a message."""
    names = sorted(known)
    close = difflib.get_close_matches(name[:MAX_NAME_LENGTH], names, n=3)
    return ", ".join(close or names[:20]) or "(none)"


def _edits(one: str, other: str) -> int:
    """The optimal string alignment distance: Levenshtein's, with swaps of neighbours."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, char in enumerate(one, 1):
        before, last, row = row, before, [i]
        for j, wanted in enumerate(other, 1):
            cost = min(before[j] + 1, row[-1] + 1, before[j - 1] + (char != wanted))
            if i > 1 and j > 1 and char == other[j - 2] and one[i - 2] == wanted:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
    return row[-1]
