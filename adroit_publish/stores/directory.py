"""A directory as a place of immutable objects: the embedded default.

Every object is written to a temporary file, synced, and linked to its name: ``link`` fails where
the name is taken, so that creating is atomic and exclusive on any POSIX file system; then the
directory is synced. Writers hold a lock on their temporary file; those of killed writers are
recognised by its absence and removed when the directory is next written to.

A file system keeps no checksum, so ``stat(checksum=True)`` reads the file: a flipped bit on disk
is seen by the next publish that would re-use the blob.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from adroit_publish.bundle.content import CHUNK_BYTES, Content
from adroit_publish.bundle.digest import Digest, verified
from adroit_publish.edge.files import make_directories, sync_directory
from adroit_publish.errors import RefusedError, StoreError, VerificationError
from adroit_publish.stores.contract import KeyTaken, Progress, Stat, unheard

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}


class DirectoryObjects:
    """Objects as files below one directory, their keys as relative paths."""

    on_this_machine = True
    checksum_reads = True

    def __init__(self, root: Path) -> None:
        self.root = root
        self.location = f"file:{root}"
        self._swept = False

    def check(self) -> None:
        pass  # it is made when the first object is

    def path_of(self, key: str) -> Path:
        """Returns where ``key`` is on disk; raises ValueError where it is not a plain path."""
        if any(name in ("", ".", "..") for name in key.split("/")) or "\0" in key:
            raise ValueError(f"not a plain key: {key!r}")
        return self.root / key

    def stat(
        self, key: str, *, checksum: bool = False, content: Content | None = None
    ) -> Stat | None:
        path = self.path_of(key)
        with _translated(path):
            try:
                status = path.stat()
            except (FileNotFoundError, NotADirectoryError):
                if path.is_symlink():
                    raise _irregular(path) from None
                return None
            sha256 = None
            if checksum and not stat.S_ISREG(status.st_mode):
                raise _irregular(path)
            if checksum:  # it may be relied on from here: so it is right, and durable
                with path.open("rb", buffering=0) as file:
                    sha256 = Digest("sha256:" + hashlib.file_digest(file, "sha256").hexdigest())
                sync_directory(path.parent)
        tag = f"{status.st_dev}-{status.st_ino}-{status.st_mtime_ns}-{status.st_size}"
        return Stat(status.st_size, tag, sha256)

    def create(
        self, key: str, content: Content, digest: Digest, progress: Progress = unheard
    ) -> None:
        path = self.path_of(key)
        with _translated(path), self._temporary(content, digest, progress) as temporary:
            make_directories(path.parent)
            try:
                os.link(temporary, path)
            except FileExistsError:
                sync_directory(path.parent)  # whoever made it may have been killed before this
                raise KeyTaken(key) from None
            sync_directory(path.parent)

    def replace(self, key: str, content: Content, digest: Digest, seen: Stat) -> None:
        path = self.path_of(key)
        with _translated(path), self._temporary(content, digest, unheard) as temporary:
            with _locked(path.parent, fcntl.LOCK_EX):
                now = self.stat(key)
                if now is None or now.tag != seen.tag:
                    raise KeyTaken(key)
                os.rename(temporary, path)
            sync_directory(path.parent)

    def read(
        self, key: str, start: int = 0, stop: int | None = None
    ) -> Iterator[memoryview | bytes]:
        path = self.path_of(key)
        with _translated(path):
            try:
                if not stat.S_ISREG(path.stat().st_mode):  # a pipe would never open
                    raise _irregular(path)
                file = path.open("rb", buffering=0)
            except (FileNotFoundError, NotADirectoryError):
                raise StoreError("An object is not there.", where=path) from None
            with file:
                file.seek(start)
                left = sys.maxsize if stop is None else stop - start
                buffer = memoryview(bytearray(CHUNK_BYTES))
                while left > 0 and (count := file.readinto(buffer[:left])):
                    left -= count
                    yield buffer[:count]

    def keys(self, prefix: str) -> Iterator[str]:
        start = self.root / prefix.rpartition("/")[0]
        keys = []
        with _translated(start):
            for directory, _, names in os.walk(start):
                below = os.path.relpath(directory, self.root)
                keys += [name if below == "." else f"{below}/{name}" for name in names]
        keys = [key for key in keys if key.startswith(prefix) and not key.startswith("tmp/")]
        yield from sorted(keys, key=os.fsencode)

    def children(self, prefix: str) -> Iterator[str]:
        with _translated(self.root / prefix):
            try:
                names = os.listdir(self.root / prefix)
            except (FileNotFoundError, NotADirectoryError):
                return
        yield from sorted(name for name in names if prefix or name != "tmp")

    def delete(self, key: str) -> None:
        path = self.path_of(key)
        with _translated(path), suppress(FileNotFoundError):
            path.unlink()
            sync_directory(path.parent)

    @contextmanager
    def _temporary(self, content: Content, digest: Digest, progress: Progress) -> Iterator[Path]:
        """Gives a synced, read-only file of ``content``; whatever happens, its name goes away."""
        directory = self.root / "tmp"
        make_directories(directory)
        self._sweep(directory)
        path = directory / f"{os.getpid()}-{os.urandom(8).hex()}"
        with _locked(directory, fcntl.LOCK_SH):  # so that no sweeper sees it before its own lock
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            for chunk in verified(content.chunks(), digest, content.size_bytes, path):
                _write_all(descriptor, chunk)
                progress(len(chunk))
            os.fchmod(descriptor, 0o444)
            os.fsync(descriptor)
            yield path
        finally:
            with suppress(FileNotFoundError):  # renamed away by `replace`
                path.unlink()
            os.close(descriptor)

    def _sweep(self, directory: Path) -> None:
        if self._swept:
            return
        self._swept = True
        with _locked(directory, fcntl.LOCK_EX):  # others hold it for two calls at a time
            for path in directory.iterdir():
                with suppress(OSError), _locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB):
                    path.unlink()


def _irregular(path: Path) -> VerificationError:
    return VerificationError(
        "An object is not a regular file.", where=path, next_step=f"delete {path}, and verify again"
    )


@contextmanager
def _locked(path: Path, kind: int) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, kind)
        yield
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, chunk: memoryview | bytes) -> None:
    rest = memoryview(chunk)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = f"{error.strerror or error} ({errno.errorcode.get(error.errno or 0, '?')})"
        if error.errno in _FULL:
            raise StoreError(
                "There is no room left in the bundle store.",
                where=path,
                got=reason,
                next_step="make room on that disk and run the same command again",
            ) from error
        if error.errno in _DENIED:
            raise RefusedError(
                "The bundle store's directory cannot be used.",
                where=path,
                got=reason,
                wanted="a directory this user may read and write",
                next_step="mend its permissions, or choose another target",
            ) from error
        raise StoreError("The bundle store's disk failed.", where=path, got=reason) from error
