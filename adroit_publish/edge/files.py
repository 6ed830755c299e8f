"""Files that are replaced as a whole: the old one or the new one, never torn; and what is durable.

Who changes a file takes the lock of its directory (flock on the directory's descriptor: nothing is
left behind, and a killed holder frees it), reads the file, writes a temporary file next to it,
syncs it, renames it over the file and syncs the directory. Temporary files of killed writers are
removed by the next one, which holds the lock and so knows that they are dead. The mode is kept, the
owner where the system permits; a symbolic link is followed, the file it leads to is replaced.

Whatever is not a regular file (a device, a socket, a directory) is refused before it is read: a
rename would replace it. Failures of the disk are OSErrors, for the caller to explain.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from adroit_publish.errors import RefusedError


class LockedFile:
    """A file that no other writer of this module changes for now; made by ``locked``."""

    def __init__(self, path: Path, directory: int) -> None:
        self.path = path
        self._directory = directory

    def read(self, limit_bytes: int = -1) -> bytes | None:
        return read_file(self.path, limit_bytes)

    def replace(self, data: bytes, *, seen: bytes | None) -> bool:
        """Puts ``data`` in the file's place, durably; RefusedError where it is not a regular file.

        Returns False where it no longer holds what was ``seen`` (None: it was not there): a writer
        without the lock has changed it, and it is left alone.
        """
        temporary = f".{self.path.name}.{secrets.token_hex(8)}.tmp"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        try:
            with open(os.open(temporary, flags, 0o666, dir_fd=self._directory), "wb") as stream:
                if before := _status_of(self.path):
                    _keep_owner_and_mode(stream.fileno(), before)
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            if self.read(-1 if seen is None else len(seen) + 1) != seen:
                return False
            os.rename(
                temporary, self.path.name, src_dir_fd=self._directory, dst_dir_fd=self._directory
            )
            os.fsync(self._directory)
            return True
        finally:
            with suppress(FileNotFoundError):  # it was renamed
                os.unlink(temporary, dir_fd=self._directory)


@contextmanager
def locked(path: Path) -> Iterator[LockedFile]:
    """Gives a file under the lock of its directory, which has to be there; the file need not be.

    Raises:
        OSError: The directory is not there, or the disk failed.
        RefusedError: ``path`` leads to something that is not a regular file.
    """
    real = path.resolve()
    directory = os.open(real.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        _status_of(real)
        for leftover in real.parent.glob(f".{real.name}.{'[0-9a-f]' * 16}.tmp"):
            leftover.unlink(missing_ok=True)
        yield LockedFile(real, directory)
    finally:
        os.close(directory)


def read_file(path: Path, limit_bytes: int = -1) -> bytes | None:
    """Returns at most ``limit_bytes`` of a file, or None without one; raises as ``locked``."""
    real = path.resolve()
    if _status_of(real) is None:
        return None
    with real.open("rb") as stream:
        return stream.read(limit_bytes)


def make_directories(path: Path) -> None:
    """Makes ``path`` and its missing parents, each durable in its own parent."""
    if path.is_dir():
        return
    make_directories(path.parent)
    with suppress(FileExistsError):
        path.mkdir()
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Makes durable what was created, renamed or removed in a directory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _status_of(path: Path) -> os.stat_result | None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        raise RefusedError(
            "Not a regular file; it was left as it is.",
            where=path,
            got=_KINDS.get(stat.S_IFMT(status.st_mode), "something else"),
            next_step="name another file, or move that one out of the way",
        )
    return status


_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFLNK: "a symbolic link",
}


def _keep_owner_and_mode(descriptor: int, before: os.stat_result) -> None:
    now = os.fstat(descriptor)
    if (now.st_uid, now.st_gid) != (before.st_uid, before.st_gid):
        with suppress(PermissionError):
            os.fchown(descriptor, before.st_uid, before.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(before.st_mode))  # last: a change of owner drops bits
