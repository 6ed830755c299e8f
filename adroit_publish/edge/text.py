"""Text that others wrote, made fit to be shown."""

from __future__ import annotations


def printable(
    text: str | bytes, limit_chars: int | None = None, *, keep_lines: bool = False
) -> str:
    """Returns untrusted text without what a terminal would act on; bytes are read as UTF-8.

    It is cut at the limit, with a blank for each other kind of space in it than line breaks to
    keep, and ``?`` for each character that does not print.
    """
    if isinstance(text, bytes):
        # No character takes more than four bytes: enough is read, and never all of a large body.
        text = (text if limit_chars is None else text[: 4 * limit_chars]).decode(errors="replace")
    return "".join(
        char
        if char.isprintable() or (keep_lines and char == "\n")
        else (" " if char.isspace() else "?")
        for char in text[:limit_chars]
    )
