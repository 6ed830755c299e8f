"""The files of the repository that a job needs beside Metaflow's own code package.

Metaflow packs the flow's directory, by itself. What the flow imports from elsewhere in the
repository (``adroit.training``, ``projects.common``) is found by following its imports, as a
publish finds what a handler needs, and packed under its import name. All of ``adroit`` goes: parts
of it are run as programs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from adroit.import_closure import ModuleFiles, import_closure

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
