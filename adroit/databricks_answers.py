"""What Databricks says, as text: the error in an answer, the profiles of a ``~/.databrickscfg``.

Nothing here opens a file or a connection, so the publisher and the flows that train share it. What
is returned may be shown: no query of an address, where signatures stand, and of a file no more
than the names of its profiles, since a malformed line may be the one with the token.

Source: Databricks, "REST API: errors" and "Databricks configuration profiles".
"""

from __future__ import annotations

import json
import re


def error_of(body: bytes) -> tuple[str, str]:
    """Returns the code and the message of an error in Databricks' spelling; else twice nothing.

    Args:
        body: What came with a status other than 200; its ``error_code`` may be a number, which
            older clients of MLflow cannot read (``Enum ErrorCode has no value defined for name
            '403'``).
    """
    try:
        found = json.loads(body)
        code, said = str(found.get("error_code", "")), str(found.get("message", ""))
    except (ValueError, AttributeError, RecursionError):
        return "", ""
    shown = re.sub(r"\?\S*", "?...", f"{code}\n{said}")  # no query of any address
    code, _, said = "".join(c if c.isprintable() or c == "\n" else " " for c in shown).partition(
        "\n"
    )
    return code[:80], said.replace("\n", " ")[:200]


def profiles_in(text: str) -> str:
    """Returns words for the profiles that a configuration file names: ``the profiles A, B``."""
    names = re.findall(r"^\[([\w.-]+)\]", text, re.MULTILINE)
    return f"the profiles {', '.join(names)}" if names else "no profile"
