"""What every model that reads posts does to their text first; shared by training and serving."""

from __future__ import annotations

import re

MAX_CHARS = 2_000
_ADDRESS = re.compile(r"(?:https?://|www\.)\S+|\S+@\S+\.\w+")


def clean(text: str) -> str:
    """Returns a post in one line, without addresses of the web or of people, cut to its beginning.

    Args:
        text: As it was written.

    Returns:
        At most ``MAX_CHARS`` characters.
    """
    return " ".join(_ADDRESS.sub(" ", text).split())[:MAX_CHARS]
