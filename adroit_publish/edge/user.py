"""Who runs this."""

from __future__ import annotations

import getpass
import os


def user_name() -> str:
    """Returns who runs this, as Metaflow would name them; ``unknown`` where nobody can tell."""
    for variable in ("METAFLOW_USER", "SUDO_USER", "USERNAME", "USER"):
        if name := os.environ.get(variable):
            return name
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
