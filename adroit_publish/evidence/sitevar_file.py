"""Sitevars in files of one directory: read, compared and replaced under a lock.

The file is the old one or the new one, never torn. A writer holds an exclusive flock on the
directory (nothing is left behind, and a killed holder frees it), reads the file afresh, and where
it still is what was seen, writes a temporary file beside it, syncs it, renames it over the file
and syncs the directory. Temporary files of killed writers are removed by the next one. The file's
mode is kept; where it is a symbolic link, the file it leads to is replaced.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from adroit_publish.errors import RefusedError, StoreError
from adroit_publish.evidence.sitevars import Seen

_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP}


class FileDocuments:
    """Documents as files of one directory, which is made when the first one is.

    Args:
        directory: The directory; keys are names of files in it.
    """

    def __init__(self, directory: Path) -> None:
        self.location = f"file:{directory}"
        self._directory = directory

    def read(self, key: str) -> Seen | None:
        path = self._directory / key
        with _translated(path):
            return _read(path)

    def put(self, key: str, data: bytes, seen: Seen | None) -> bool:
        path = (self._directory / key).resolve()
        with _translated(path):
            _make_directories(path.parent)
            directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(directory, fcntl.LOCK_EX)
                for leftover in path.parent.glob(f".{path.name}.{'[0-9a-f]' * 16}.tmp"):
                    leftover.unlink(missing_ok=True)
                if _read(path) != seen:
                    return False
                _replace(directory, path, data)
                return True
            finally:
                os.close(directory)

    def keys(self, prefix: str) -> Iterator[str]:
        with _translated(self._directory):
            names = os.listdir(self._directory) if self._directory.is_dir() else []
        yield from sorted(n for n in names if n.startswith(prefix) and not n.startswith("."))


def _read(path: Path) -> Seen | None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    return Seen(data, hashlib.sha256(data).hexdigest())


def _replace(directory: int, path: Path, data: bytes) -> None:
    temporary = f".{path.name}.{secrets.token_hex(8)}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    try:
        with open(os.open(temporary, flags, 0o666, dir_fd=directory), "wb") as stream:
            stream.write(data)
            stream.flush()
            with suppress(FileNotFoundError):
                before = path.stat()
                with suppress(PermissionError):
                    os.fchown(stream.fileno(), before.st_uid, before.st_gid)
                os.fchmod(stream.fileno(), stat.S_IMODE(before.st_mode))
            os.fsync(stream.fileno())
        os.rename(temporary, path.name, src_dir_fd=directory, dst_dir_fd=directory)
        os.fsync(directory)
    finally:
        with suppress(FileNotFoundError):  # renamed
            os.unlink(temporary, dir_fd=directory)


def _make_directories(path: Path) -> None:
    """Makes ``path`` and its missing parents, each durable in its own parent."""
    if path.is_dir():
        return
    _make_directories(path.parent)
    path.mkdir(exist_ok=True)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
