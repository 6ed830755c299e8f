"""The cache of downloaded models: one directory a model, filled side by side, resumed after a kill.

    <cache>/<key>/files/<path>   finished files
    <cache>/<key>/seals/         what each of them is (``arrival.seal``)
    <cache>/<key>/parts/         what has arrived of files that are not finished (``arrival.part``)

No byte is believed for its length. A file that is here already is used where its digest is the one
of its seal and the store says that it still has these bytes. A download is held to the digest that
the store states; where it states none, a file of at most ``TWICE_BYTES`` is fetched a second time
and compared, and a longer one is noted as vouched for by its length only.

A file gets its final name by a rename, once it is whole and on the disk. One process at a time
fills a model's directory (a lock on the directory, gone with the process); the others wait, and
then find the files there.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from adroit_publish.artifacts.arrival.download import Download
from adroit_publish.artifacts.arrival.seal import (
    BY_DIGEST,
    BY_LENGTH,
    TWICE,
    Seal,
    read_seal,
    seal_path,
    write_seal,
)
from adroit_publish.artifacts.arrival.stated import is_proven
from adroit_publish.artifacts.remote_root import RemoteRoot, persist
from adroit_publish.bundle.listing import RemoteFile
from adroit_publish.edge.patience import Patience
from adroit_publish.edge.threads import Together
from adroit_publish.errors import SourceError, StoreError

THREADS = 8
TWICE_BYTES = 64 << 20
"""The longest file that is fetched a second time where its store states no digest."""
_ATTEMPTS = 3

T = TypeVar("T")


class ModelCache:
    """One model's directory in the cache, ``<cache>/<key>``; made where it is missing.

    Attributes:
        files_directory: Where finished files lie.
        bytes_downloaded: What came over the network; what was fetched twice counts once.
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
        self.bytes_downloaded = 0
        self._parts = self.directory / "parts"
        self._seals = self.directory / "seals"
        self._root = root
        self._progress = progress
        self._give_up_after_s = give_up_after_s
        self._whole = Together(THREADS, "pull")
        self._counting = threading.Lock()

    def fill(self, files: Sequence[RemoteFile]) -> Mapping[str, Seal]:
        """Downloads what is missing and returns every file's seal; raises as ``pull_model``."""
        with _disk_errors(self.directory), self._locked():
            kept_seals = self._side_by_side([partial(self._kept, file) for file in files])
            seals = {file.path: seal for file, seal in zip(files, kept_seals, strict=True) if seal}
            downloads = [
                Download(self._root, self._parts, file, self._patience, self._count)
                for file in files
                if file.path not in seals
            ]
            self._count(sum(seal.size_bytes for seal in seals.values()))
            self._side_by_side([download.plan for download in downloads])
            self._check_space(sum(download.part.unallocated_bytes for download in downloads))
            work = [task for download in downloads for task in self._tasks(download)]
            seals |= dict(filter(None, self._side_by_side(work)))
            self._side_by_side([partial(self._check_current, one, seals) for one in downloads])
            for leftover in self._parts.iterdir():
                leftover.unlink()
        return seals

    @contextmanager
    def _locked(self) -> Iterator[None]:
        for directory in (self.files_directory, self._parts, self._seals):
            directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _side_by_side(self, tasks: Sequence[Callable[[], T]]) -> list[T]:
        """Returns what the tasks return, in their order; where one fails, the others are ended."""
        with Together(THREADS, "pull", beside=self._whole) as threads:
            futures = [threads.start(task) for task in tasks]
        return [future.result() for future in futures]

    def _kept(self, file: RemoteFile) -> Seal | None:
        """Returns the seal of a file that is here and still what the store has, or None."""
        seal = read_seal(seal_path(self._seals, file.path))
        place = self.files_directory / file.path
        if seal is None or seal.size_bytes != file.size_bytes or not seal.fits(place):
            return None
        if file.tag is None and seal.tag is not None:
            ask = partial(self._root.stated, file, seal.tag)
            tag = persist(ask, f"The request for {file.path!r}", self._patience()).tag
        else:
            tag = file.tag
        if tag is None:
            # It is fetched once more and compared, where that is not too much to ask.
            return seal if file.size_bytes > TWICE_BYTES else None
        return seal if tag == seal.tag else None

    def _patience(self) -> Patience:
        return Patience(self._give_up_after_s, self._whole.wait)

    def _count(self, size_bytes: int, *, downloaded: bool = False) -> None:
        self._whole.heed()
        with self._counting:
            if downloaded:
                self.bytes_downloaded += size_bytes
            if size_bytes:
                self._progress(size_bytes)

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

    def _tasks(self, download: Download) -> list[Callable[[], tuple[str, Seal] | None]]:
        if not download.missing:
            return [partial(self._finish, download)]
        return [partial(self._fetch, download, *piece) for piece in download.missing]

    def _fetch(self, download: Download, start: int, stop: int) -> tuple[str, Seal] | None:
        """Fetches a piece of a file; the last one to arrive finishes it."""
        return self._finish(download) if download.fetch(start, stop) else None

    def _finish(self, download: Download) -> tuple[str, Seal]:
        """Gives a file its name, once its bytes are on the disk and vouched for."""
        file, part = download.file, download.part.path
        for _ in range(_ATTEMPTS):
            sha256 = download.sync()
            if vouched := self._vouched(download, sha256):
                break
            download.fetch_anew()
        else:
            raise SourceError(
                "What arrives is not what the artifact store has, however often it is fetched.",
                where=file.path,
                got=f"sha256:{sha256}",
                wanted=download.stated.md5 and f"md5:{download.stated.md5}",
                next_step="check the network and its proxies; log the model again if it stays so",
            )
        final = self.files_directory / file.path
        final.parent.mkdir(parents=True, exist_ok=True)
        part.replace(final)
        seal = Seal.of(final, sha256, vouched, download.stated.tag)
        write_seal(seal_path(self._seals, file.path), seal)
        return file.path, seal

    def _check_current(self, download: Download, seals: Mapping[str, Seal]) -> None:
        """Refuses a file that a single answer brought, where the store has another one now.

        A digest proves an answer, not that it is of today: something on the way may have kept it.
        """
        file, seal = download.file, seals[download.file.path]
        if file.tag or seal.tag is None or seal.vouched != BY_DIGEST or download.is_split:
            return
        tag = persist(partial(self._root.stated, file, seal.tag), f"The check of {file.path!r}").tag
        if tag != seal.tag:
            raise SourceError(
                "A file of the model was replaced while the model was downloaded.",
                where=file.path,
                got=tag,
                wanted=seal.tag,
                next_step="run the same command again once nothing writes to the run",
            )

    def _vouched(self, download: Download, sha256: str) -> str | None:
        """Returns how a file's bytes are vouched for; None where they are not the store's."""
        file, stated = download.file, download.stated
        proven = is_proven(download.part.path, file.size_bytes, stated)
        if proven is not None:
            return BY_DIGEST if proven else None
        former = read_seal(seal_path(self._seals, file.path))
        if former and (former.sha256, former.size_bytes) == (sha256, file.size_bytes):
            return TWICE
        # A digest of parts that fits no usual length of parts is a doubt.
        if file.size_bytes <= TWICE_BYTES or stated.parts_md5:
            return TWICE if download.digest_again() == sha256 else None
        return BY_LENGTH


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
