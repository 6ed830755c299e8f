"""What a flavor's ``version`` can be: a run that waits to be published, or a published version.

Both are text in every file and every message; the type says which of the two it is.
"""

from __future__ import annotations

import re

_RUN_ID = re.compile(r"[0-9a-f]{32}")
_PUBLISHED = re.compile(r"v[0-9a-f]{8}-[0-9a-f]{12}")


class RunId(str):
    """An MLflow run id: 32 lower-case hex digits; ValueError for any other text."""

    __slots__ = ()

    def __new__(cls, text: str) -> RunId:
        return super().__new__(cls, _matching(_RUN_ID, text, "a run id"))


class PublishedVersion(str):
    """A published version: ``v``, 8 digits of its run id, ``-``, 12 of its manifest's digest.

    Raises ValueError for any other text.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> PublishedVersion:
        return super().__new__(cls, _matching(_PUBLISHED, text, "a published version"))

    @classmethod
    def matches(cls, text: str) -> bool:
        """Whether a text is spelled as one; that says nothing of whether it exists."""
        return _PUBLISHED.fullmatch(text) is not None

    @property
    def run_id_start(self) -> str:
        """The first 8 digits of the run id."""
        return self[1:9]


def parse_version(text: str) -> RunId | PublishedVersion:
    """Returns what a version's text means; raises ValueError where it is neither of the two."""
    if _RUN_ID.fullmatch(text):
        return RunId(text)
    return PublishedVersion(_matching(_PUBLISHED, text, "a version"))


def _matching(pattern: re.Pattern[str], text: str, kind: str) -> str:
    if not pattern.fullmatch(text):
        raise ValueError(f"not {kind}: {text[:80]!r}")
    return text
