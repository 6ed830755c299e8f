"""The files of the repository that a job needs beside Metaflow's own code package.

Metaflow packs the flow's directory, by itself. What the flow imports from elsewhere in the
repository (``adroit.training``, ``projects.common``) is found by following its imports, as a
publish finds what a handler needs, and packed under its import name. All of ``adroit`` goes: parts
of it are run as programs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

from adroit.import_closure import ModuleFiles, import_closure

from .errors import SagemakerError

ROOT = Path(__file__).resolve().parents[4]


def shipped_files(flow: Path) -> Iterator[tuple[Path, str]]:
    """Yields the files, each with its path below a directory that is on the job's ``sys.path``.

    Args:
        flow: The file that defines the flow.
    """
    found = {
        path.relative_to(ROOT).as_posix(): path
        for folder in ("adroit", "projects")
        for path in sorted((ROOT / folder).rglob("*.py"))
    }
    start = "<flow>.py"
    texts = {name: path.read_bytes() for name, path in found.items()}
    texts[start] = flow.read_bytes()
    reached = import_closure(ModuleFiles(texts), [start], environment=None).files
    for name, path in found.items():
        if name.startswith("adroit/") or name in reached:
            yield path, name


def included_files(
    flow: Path, include: Sequence[str], exclude: Sequence[str]
) -> Iterator[tuple[Path, str]]:
    """Yields files beside the flow, each with its path in the job's working directory.

    Args:
        flow: The file that defines the flow.
        include: Files, directories or patterns beside it. What begins with a dot has to be named
            itself.
        exclude: Patterns of files, or of directories, that are left out of these.

    Raises:
        SagemakerError: One of ``include`` is nowhere below the flow's directory.
    """
    folder = flow.resolve().parent
    for pattern in include:
        parts = Path(pattern).parts
        named = [] if ".." in parts or Path(pattern).is_absolute() else sorted(folder.glob(pattern))
        if not named:
            raise SagemakerError(
                f"include={pattern!r} names no file below the flow's directory.\n"
                f"  where: {folder}\n"
                "  next:  mend it; a path counts from the flow's directory, and stays in it"
            )
        for path in named:
            for file in [path] if path.is_file() else _visible_files(path):
                name = file.relative_to(folder).as_posix()
                if not any(
                    fnmatch(name, f"{skip}") or fnmatch(name, f"{skip}/*") for skip in exclude
                ):
                    yield file, name


def _visible_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        below = path.relative_to(folder).parts
        if path.is_file() and not any(p.startswith(".") or p == "__pycache__" for p in below):
            yield path
