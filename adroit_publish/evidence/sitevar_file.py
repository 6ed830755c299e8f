"""Sitevars in files of one directory: read, compared and replaced under a lock."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adroit_publish.edge.files import locked, make_directories, read_file
from adroit_publish.errors import RefusedError, StoreError
from adroit_publish.evidence.sitevars import Seen

_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP}


class FileDocuments:
    """Documents as files of one directory, by name; it is made when the first one is."""

    def __init__(self, directory: Path) -> None:
        self.location = f"file:{directory}"
        self._directory = directory

    def read(self, key: str) -> Seen | None:
        path = self._directory / key
        with _translated(path):
            return _seen(read_file(path))

    def put(self, key: str, data: bytes, seen: Seen | None) -> bool:
        path = (self._directory / key).resolve()
        with _translated(path):
            make_directories(path.parent)
            with locked(path) as file:
                before = file.read()
                return _seen(before) == seen and file.replace(data, seen=before)

    def keys(self, prefix: str) -> Iterator[str]:
        with _translated(self._directory):
            names = os.listdir(self._directory) if self._directory.is_dir() else []
        yield from sorted(n for n in names if n.startswith(prefix) and not n.startswith("."))


def _seen(data: bytes | None) -> Seen | None:
    return None if data is None else Seen(data, hashlib.sha256(data).hexdigest())


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _DENIED:
            raise RefusedError(
                "The sitevar's file may not be used; it is as it was.",
                where=path,
                got=error.strerror,
                next_step="give yourself permission to the file and its directory",
            ) from error
        raise StoreError(
            "The sitevar's file cannot be used; it is as it was.",
            where=path,
            got=error.strerror,
            next_step="mend or free that disk, then run the same command again",
        ) from error
