"""What of the file system a Python interpreter needs: the only host files a sandbox shows.

The environment's directories (``sys.prefix``, ``sys.base_prefix``), the symbolic links between
them (a venv's python is one), and the system's shared libraries. A directory that would take the
user's home with it is refused: there the credentials lie.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from adroit_publish.errors import RefusedError

SYSTEM_DIRECTORIES = tuple(
    Path(name) for name in ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64")
)
# Debian's libblas.so.3 and the like are links through /etc/alternatives.
SYSTEM_FILES = tuple(Path(name) for name in ("/etc/ld.so.cache", "/etc/alternatives"))
_ASK = "import json, sys; print(json.dumps([sys.prefix, sys.exec_prefix, sys.base_prefix]))"


@dataclass(frozen=True)
class Interpreter:
    """An interpreter and what it needs.

    Attributes:
        executable: Absolute and not resolved: a venv is recognised by where its python lies.
        directories: Shown read-only at their own paths; none is below another or the system's.
        links: (target, path) of symbolic links outside them that lead to the interpreter.
    """

    executable: Path
    directories: tuple[Path, ...]
    links: tuple[tuple[str, Path], ...]


@functools.cache
def interpreter_of(python: str) -> Interpreter:
    """Returns what the interpreter ``python`` needs.

    Raises:
        RefusedError: It cannot be run, or its environment includes the user's home directory.
    """
    executable = Path(os.path.abspath(python))  # resolve would follow links
    prefixes = [Path(prefix) for prefix in _prefixes(python)]
    wanted = {*prefixes, *(prefix.resolve() for prefix in prefixes)}
    home = Path.home()
    for directory in sorted(wanted):
        if directory in (home, home.resolve()) or directory in home.resolve().parents:
            raise RefusedError(
                "This Python's environment includes the home directory; a sandbox with it would "
                "show a model your credentials.",
                where=executable,
                got=f"environment in {directory}",
                next_step="run from a virtual environment: python3 -m venv .venv",
            )
    return Interpreter(executable, _outermost(wanted), _links_to(executable, wanted))


def _prefixes(python: str) -> list[str]:
    if python == sys.executable:
        return [sys.prefix, sys.exec_prefix, sys.base_prefix]
    try:
        asked = subprocess.run(
            [python, "-I", "-S", "-c", _ASK], capture_output=True, check=True, timeout=60, env={}
        )
        return [str(prefix) for prefix in json.loads(asked.stdout)]
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise RefusedError(
            "The Python interpreter cannot be run.", where=python, got=error
        ) from error


def _outermost(directories: set[Path]) -> tuple[Path, ...]:
    outermost: list[Path] = []
    for directory in sorted(directories):
        if not any(directory.is_relative_to(outer) for outer in (*SYSTEM_DIRECTORIES, *outermost)):
            outermost.append(directory)
    return tuple(outermost)


def _links_to(executable: Path, directories: set[Path]) -> tuple[tuple[str, Path], ...]:
    links = []
    path = executable
    while path.is_symlink():
        target = os.readlink(path)
        if not any(path.is_relative_to(shown) for shown in (*SYSTEM_DIRECTORIES, *directories)):
            links.append((target, path))
        path = path.parent / target
    return tuple(links)
