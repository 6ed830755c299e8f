"""A bundle as a directory, the way an image has it under ``/opt/adroit``."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from adroit_publish.artifacts.pull import LocalFile
from adroit_publish.bundle.layer import ROOT, PackedFile


def lay_out(files: Iterable[PackedFile], directory: Path, *, link: bool) -> None:
    """Makes ``directory`` hold ``files`` at their paths below ``opt/adroit``.

    Args:
        link: Whether files on disk may be hard links, where the file system allows: only for who
            mounts the layout read-only, since a write would reach the file itself.
    """
    for file in files:
        path = directory / file.path.removeprefix(ROOT + "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        if link and isinstance(file.content, LocalFile) and _linked(file, file.content.path, path):
            continue
        with file.content.open() as stream, path.open("wb") as copy:
            shutil.copyfileobj(stream, copy, 1 << 20)
        path.chmod(0o755 if file.executable else 0o644)


def _linked(file: PackedFile, source: str, path: Path) -> bool:
    # Others must be able to read it: the sandbox may run as another user.
    mode = os.stat(source).st_mode
    if not mode & 0o004 or bool(mode & 0o001) != file.executable:
        return False
    try:
        os.link(source, path)
    except OSError:
        return False
    return True
