"""The Python that runs a program of this checkout: one that has the requirements, or a message.

The programs call this before they import anything else, so it needs the standard library alone,
and nothing newer than Python 3.7.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

CHECKOUT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
REQUIRED = (
    "click",
    "git",
    "metaflow",
    "mlflow",
    "packaging",
    "pathspec",
    "requests",
    "ruamel.yaml",
)
"""What every command needs; the rest of the requirements comes with it."""
RESTARTED = "ADROIT_RESTARTED"
OLDEST = (3, 11)


def needs_requirements(*program: str) -> None:
    """Returns where this Python can run the program; else runs it in the checkout's .venv.

    A Python that has the requirements is left alone, whichever it is. Where .venv is not ready
    either, the program ends with exit code 1 and says what to type.

    Args:
        program: How Python is told to run it, such as ``-m adroit_publish``; by default the script
            that was started.
    """
    missing = [name for name in REQUIRED if not _importable(name)]
    if not missing and sys.version_info >= OLDEST:
        os.environ.pop(RESTARTED, None)
        return
    words = list(program or sys.argv[:1])
    python = os.path.join(CHECKOUT, ".venv", "bin", "python")
    ready = os.path.exists(os.path.join(CHECKOUT, ".venv", ".made-from-lock"))
    if ready and os.access(python, os.X_OK) and RESTARTED not in os.environ:
        os.environ[RESTARTED] = "1"  # once: a .venv that lost a package must not start itself
        os.execv(python, [python, *words, *sys.argv[1:]])
    sys.exit(_message(missing, " ".join([python, *words])))


def ready_for_metaflow() -> None:
    """Returns where the flow that was started can run: ``needs_requirements``, and a user.

    Metaflow refuses root, and an environment that names nobody (a bare container): both train as
    ``adroit``. METAFLOW_USER names somebody else.
    """
    needs_requirements()
    from metaflow.util import get_username

    if get_username() is None:  # type: ignore[no-untyped-call]
        os.environ["USERNAME"] = "adroit"


def _importable(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ImportError:  # of the package around it
        return False


def _message(missing: list[str], command: str) -> str:
    lacks = f"lacks {', '.join(missing)}"
    if sys.version_info < OLDEST:
        lacks = f"is Python {sys.version_info[0]}.{sys.version_info[1]}; 3.11 is the oldest"
    next_step = "pip install adroit-publish, with its dependencies"
    if os.path.exists(os.path.join(CHECKOUT, "Makefile")):
        next_step = f"make -C {CHECKOUT} install\n          {command}"
    return (
        f"This Python cannot run the program.\n  where:  {sys.executable}\n"
        f"  got:    it {lacks}\n  next:   {next_step}"
    )
