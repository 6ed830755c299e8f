"""The cache of downloaded models: one directory a model, filled side by side, resumed after a kill.

    <cache>/<key>/files/<path>            whole files, by their listed length
    <cache>/<key>/parts/<name>.part       what has arrived of a file that is not whole yet
    <cache>/<key>/parts/<name>.<k>.done   piece k of that part has arrived

A file gets its final name by a rename, once its last byte is there. One process at a time fills a
model's directory (a lock on the directory, gone with the process); the others wait, and then find
the files there.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from adroit_publish.artifacts.remote_root import (
    Body,
    CorruptBody,
    Patience,
    RemoteRoot,
    Stopped,
    TransientFault,
)
from adroit_publish.bundle.listing import RemoteFile
from adroit_publish.errors import PublishError, SourceError, StoreError

THREADS = 8


@dataclass(frozen=True)
class _Piece:
    """Bytes ``[start, stop)`` of a file, fetched as one stream."""

    file: RemoteFile
    index: int
    start: int
    stop: int


class ModelCache:
    """One model's directory in the cache.

    Args:
        directory: ``<cache>/<key>``; made where it is missing.
        root: Where the files come from.
        progress: Called with the number of further bytes that are here, one thread at a time.
        give_up_after_s: Seconds without a byte after which a file is given up.
    """

    def __init__(
        self,
        directory: Path,
        root: RemoteRoot,
        progress: Callable[[int], None],
        give_up_after_s: float,
    ) -> None:
        self.directory = directory.absolute()
        self.files_directory = self.directory / "files"
        self._parts = self.directory / "parts"
        self._root = root
        self._progress = progress
        self._give_up_after_s = give_up_after_s
        self._stopped = threading.Event()
        self._counting = threading.Lock()
        self._bytes_downloaded = 0

    def file_path(self, path: str) -> Path:
        """Returns where a whole file lies."""
        return self.files_directory / path

    def fill(self, files: Sequence[RemoteFile]) -> int:
        """Downloads what is missing and returns how many bytes that took.

        Raises:
            SourceError: A file could not be fetched, or is of another length than listed.
            RefusedError: The artifact store wants other credentials.
            StoreError: The disk is full or cannot be written.
        """
        with _disk_errors(self.directory), self._locked():
            missing = [file for file in files if not self._is_whole(file)]
            here = sum(f.size_bytes for f in files) - sum(f.size_bytes for f in missing)
            self._count(here, downloaded=False)
            pieces = {file: self._missing_pieces(file) for file in missing}
            self._check_space(sum(p.stop - p.start for ps in pieces.values() for p in ps))
            self._fetch_all([piece for ps in pieces.values() for piece in ps])
            for file in missing:
                self._finish(file)
        return self._bytes_downloaded

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._parts.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _is_whole(self, file: RemoteFile) -> bool:
        try:
            found = self.file_path(file.path).lstat()
        except OSError:
            return False
        return stat.S_ISREG(found.st_mode) and found.st_size == file.size_bytes

    def _is_split(self, file: RemoteFile) -> bool:
        piece_bytes = self._root.piece_bytes
        return piece_bytes is not None and file.size_bytes > piece_bytes

    def _missing_pieces(self, file: RemoteFile) -> list[_Piece]:
        """Splits a file as its store wants it, less what an earlier pull has left here."""
        if not self._is_split(file):
            part = self._part(file)
            arrived = part.stat().st_size if part.exists() else 0
            if arrived > file.size_bytes:
                part.unlink()
                arrived = 0
            self._count(arrived, downloaded=False)
            # An empty file is asked for too: that its store says the same is part of the check.
            if arrived == file.size_bytes and arrived:
                return []
            return [_Piece(file, 0, arrived, file.size_bytes)]
        pieces = []
        length = self._root.piece_bytes or file.size_bytes
        for index, start in enumerate(range(0, file.size_bytes, length)):
            stop = min(start + length, file.size_bytes)
            if self._done_mark(file, index).exists() and self._part(file).exists():
                self._count(stop - start, downloaded=False)
            else:
                pieces.append(_Piece(file, index, start, stop))
        return pieces

    def _check_space(self, needed_bytes: int) -> None:
        free_bytes = shutil.disk_usage(self.directory).free
        if free_bytes < needed_bytes:
            raise StoreError(
                "The disk has no room for the model.",
                where=self.directory,
                got=f"{free_bytes} bytes free",
                wanted=f"{needed_bytes} bytes",
                next_step="free some space, or put .adroit on another disk, and run it again",
            )

    def _fetch_all(self, pieces: Sequence[_Piece]) -> None:
        pool = ThreadPoolExecutor(THREADS, thread_name_prefix="pull")
        try:
            futures = [pool.submit(self._fetch, piece) for piece in pieces]
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            self._stopped.set()
            failures = [error for future in done if (error := future.exception())]
        finally:
            # Reached by Ctrl-C too: what runs ends at its next chunk, what waits never starts.
            self._stopped.set()
            pool.shutdown(wait=True, cancel_futures=True)
        told = [error for error in failures if not isinstance(error, Stopped)]
        if told:
            # A refusal says more than the network fault that may have come with it.
            raise min(told, key=lambda error: not isinstance(error, PublishError))

    def _fetch(self, piece: _Piece) -> None:
        what = f"The download of {piece.file.path!r}"
        patience = Patience(what, self._give_up_after_s, self._stopped)
        descriptor = os.open(self._part(piece.file), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            at = furthest = piece.start
            while True:
                try:
                    with self._root.read(piece.file, at, piece.stop) as body:
                        for at in self._written(descriptor, piece, body):
                            if at > furthest:
                                self._count(at - furthest, downloaded=True)
                                furthest = at
                                patience.progress()
                    if at == piece.stop:
                        break
                    fault = TransientFault(f"the body ended after {at} of {piece.stop} bytes")
                except TransientFault as error:
                    fault = error
                    if isinstance(error, CorruptBody):
                        at = piece.start
                patience.pause(fault)
        finally:
            os.close(descriptor)
        if self._is_split(piece.file):
            self._done_mark(piece.file, piece.index).touch()

    def _written(self, descriptor: int, piece: _Piece, body: Body) -> Iterator[int]:
        """Writes a body into its part and yields the offset reached after each chunk."""
        at = body.start
        if at == 0 and not self._is_split(piece.file):
            # A whole body replaces what an interrupted pull has left; its length is the bookmark.
            os.ftruncate(descriptor, 0)
        yield at
        for chunk in body.chunks:
            if self._stopped.is_set():
                raise Stopped
            if at + len(chunk) > piece.stop:
                raise SourceError(
                    "The artifact store sends more bytes than it listed.",
                    where=piece.file.path,
                    got=f"more than {piece.stop} bytes",
                    wanted=f"{piece.stop} bytes",
                    next_step="check that nothing writes to the run any more, then run it again",
                )
            view = memoryview(chunk)
            while view:
                count = os.pwrite(descriptor, view, at)
                at += count
                view = view[count:]
            yield at

    def _finish(self, file: RemoteFile) -> None:
        part = self._part(file)
        if part.stat().st_size != file.size_bytes:
            raise SourceError(
                "A download has another length than listed.",
                where=file.path,
                got=f"{part.stat().st_size} bytes",
                wanted=f"{file.size_bytes} bytes",
                next_step="run the same command again",
            )
        final = self.file_path(file.path)
        final.parent.mkdir(parents=True, exist_ok=True)
        part.replace(final)
        for mark in self._parts.glob(f"{part.stem}.*.done"):
            mark.unlink()

    def _count(self, size_bytes: int, *, downloaded: bool) -> None:
        with self._counting:
            if downloaded:
                self._bytes_downloaded += size_bytes
            if size_bytes:
                self._progress(size_bytes)

    def _part(self, file: RemoteFile) -> Path:
        # By digest: a path may be longer than a file name can be.
        name = sha256(f"{file.path}\0{file.size_bytes}".encode()).hexdigest()[:32]
        return self._parts / f"{name}.part"

    def _done_mark(self, file: RemoteFile, index: int) -> Path:
        return self._part(file).with_suffix(f".{index}.done")


@contextmanager
def _disk_errors(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise StoreError(
            "The disk is full." if full else "The cache cannot be written.",
            where=error.filename or directory,
            got=error.strerror or type(error).__name__,
            next_step="free some space, then run the same command again; what arrived is kept"
            if full
            else "check that this directory may be written",
        ) from error
