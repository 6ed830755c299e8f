"""Brings a model's files within reach: in place where they are on this machine, else in a cache.

MLflow's own client takes a cut body for a whole one, and a flipped bit for the file. Here a length
is held to the listing, and bytes to a digest wherever one is known (``cache.py``).
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast
from urllib.parse import unquote, urlsplit

from adroit_publish.artifacts.arrival.seal import BY_LENGTH, IN_PLACE
from adroit_publish.artifacts.remote_root import RemoteRoot
from adroit_publish.bundle.listing import MAX_DEPTH, MAX_FILES, RemoteFile
from adroit_publish.edge.patience import GIVE_UP_S
from adroit_publish.errors import ModelNotFound, SourceError, VerificationError

if TYPE_CHECKING:
    from adroit_publish.artifacts.resolved_model import ResolvedModel


@dataclass(frozen=True)
class LocalFile:
    """A file of this machine, by reference; a ``bundle.content.Readable``.

    Attributes:
        sha256: Hex digest that its bytes have to have, where that is known: of a download.
        executable: Whether its owner may run it.
    """

    path: str
    size_bytes: int
    sha256: str | None = field(default=None, kw_only=True)
    executable: bool = field(default=False, kw_only=True)

    def open(self) -> BinaryIO:
        """Opens the file at its first byte, unbuffered; a symlink is not followed.

        Where its digest is known, whoever reads to the end has compared it.

        Raises:
            SourceError: It is gone, unreadable, or has become something else than a file.
        """
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            file = _Compared(descriptor, self) if self.sha256 else FileIO(descriptor, "rb")
            return cast(BinaryIO, file)
        except OSError as error:
            raise _unreadable(self.path, error) from error


class _Compared(FileIO):
    """A file that is hashed as it is read from its first byte to its last, and then compared.

    One that is wrong is removed, so that the next pull fetches it again: it is a download's.
    """

    def __init__(self, descriptor: int, file: LocalFile) -> None:
        super().__init__(descriptor, "rb")
        self._file = file
        self._hasher = hashlib.sha256()
        self._hashed_bytes = 0

    def readinto(self, buffer: Any) -> int:
        at = self.tell()
        count = super().readinto(buffer) or 0
        if at == self._hashed_bytes:  # else somebody reads a range
            self._hasher.update(memoryview(buffer).cast("B")[:count])
            self._hashed_bytes += count
            if count and self._hashed_bytes == self._file.size_bytes:
                self._compare()
        return count

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0:
            return self.readall()
        buffer = bytearray(size)
        return bytes(buffer[: self.readinto(buffer)])

    def readall(self) -> bytes:
        return b"".join(iter(lambda: self.read(1 << 20), b""))

    def _compare(self) -> None:
        if self._hasher.hexdigest() == self._file.sha256:
            return
        with suppress(OSError):
            os.unlink(self._file.path)
        raise VerificationError(
            "A file of the cache is not what was downloaded.",
            where=self._file.path,
            got=f"sha256:{self._hasher.hexdigest()}",
            wanted=f"sha256:{self._file.sha256}",
            next_step="run the same command again: the file is fetched again. Check the disk if "
            "it happens twice",
        )


@dataclass(frozen=True)
class PulledModel:
    """A model whose every file can be opened.

    Attributes:
        files: By path relative to the model's root.
        bytes_downloaded: What came over the network this time.
        directory: Where the files are; they may be read only.
        empty_folders: Folders without a file, which no bundle keeps; their paths.
        vouched: How each file's bytes are vouched for, by path: a word of ``arrival.seal``.
    """

    files: Mapping[str, LocalFile]
    bytes_downloaded: int
    bytes_cached: int
    directory: str
    vouched: Mapping[str, str]
    empty_folders: tuple[str, ...] = ()


@dataclass(frozen=True)
class LocalRoot:
    """A model's directory on this machine, an absolute path: plain files and folders, no others."""

    directory: Path

    def list_files(self) -> tuple[RemoteFile, ...]:
        """Returns every file below the directory, in no particular order.

        Raises:
            ModelNotFound: The directory is not there.
            SourceError: It, or anything in it, is a symlink or a special file, or unreadable.
        """
        try:
            mode = self.directory.lstat().st_mode
        except FileNotFoundError as error:
            raise ModelNotFound(
                "The model's files are gone.",
                where=self.directory,
                next_step="restore them, or name another run",
            ) from error
        if not stat.S_ISDIR(mode):
            raise _not_plain(self.directory, "is not a directory")
        return tuple(entry for entry in self._entries("") if isinstance(entry, RemoteFile))

    def empty_folders(self) -> tuple[str, ...]:
        """Returns the paths of folders that hold nothing; raises as ``list_files`` does."""
        return tuple(entry for entry in self._entries("") if isinstance(entry, str))

    def _entries(self, prefix: str) -> list[RemoteFile | str]:
        """Returns the files below a folder, and the paths of empty folders."""
        if prefix.count("/") >= MAX_DEPTH:
            raise _too_large(self.directory)
        entries_below: list[RemoteFile | str] = []
        try:
            with os.scandir(self.directory / prefix) as entries:
                for entry in entries:
                    path = prefix + entry.name
                    if entry.is_dir(follow_symlinks=False):
                        entries_below += self._entries(path + "/") or [path]
                    elif entry.is_file(follow_symlinks=False):
                        status = entry.stat(follow_symlinks=False)
                        executable = bool(status.st_mode & stat.S_IXUSR)
                        entries_below.append(
                            RemoteFile(path, status.st_size, executable=executable)
                        )
                    else:
                        kind = "symlink" if entry.is_symlink() else "special file"
                        raise _not_plain(entry.path, f"is a {kind}")
        except OSError as error:
            raise _unreadable(self.directory / prefix, error) from error
        if len(entries_below) > MAX_FILES:
            raise _too_large(self.directory)
        return entries_below


def open_root(
    artifact_uri: str, source_profile: str | None = None, files: Sequence[RemoteFile] = ()
) -> LocalRoot | RemoteRoot:
    """Returns the artifact store of a location that ``location.artifact_location`` gave.

    ``source_profile`` is the AWS profile that reads S3 (None: boto3's default); ``files`` are going
    to be read, as they were listed.
    """
    scheme = urlsplit(artifact_uri).scheme
    if scheme == "file":
        return LocalRoot(Path(unquote(urlsplit(artifact_uri).path)))
    if scheme == "s3":
        from adroit_publish.artifacts.s3 import S3Root

        return S3Root(artifact_uri, source_profile)
    if scheme == "dbfs":
        from adroit_publish.artifacts.databricks import open_databricks

        return open_databricks(artifact_uri, files)
    from adroit_publish.artifacts.http import HttpRoot

    return HttpRoot(artifact_uri)


def pull_model(
    model: ResolvedModel,
    cache: Path,
    *,
    progress: Callable[[int], None] = lambda size_bytes: None,
    source_profile: str | None = None,
    give_up_after_s: float = GIVE_UP_S,
) -> PulledModel:
    """Makes every file of a model readable from this machine, each of exactly its listed length.

    Files of this machine are used where they are. Others are downloaded side by side into the
    cache, where an interrupted pull goes on from what has arrived of the same bytes.

    Args:
        cache: A directory for downloads; made where it is missing.
        progress: Called with the number of further bytes that are here, from one thread at a time.
        source_profile: The AWS profile that reads S3; None for boto3's default.
        give_up_after_s: Seconds without a byte after which a file is given up.

    Raises:
        SourceError: A file is gone, of another length than listed, could not be fetched, or what
            arrives is not what the store states.
        RefusedError: The artifact store wants other credentials.
        StoreError: The cache's disk is full or cannot be written.
    """
    root = open_root(model.artifact_uri, source_profile, model.files)
    if isinstance(root, LocalRoot):
        return _in_place(model, root, progress)
    from adroit_publish.artifacts.cache import ModelCache

    directory = cache / model.cache_key
    cached = ModelCache(directory, root, progress, give_up_after_s)
    seals = cached.fill(model.files)
    return PulledModel(
        files={
            path: LocalFile(str(cached.files_directory / path), seal.size_bytes, sha256=seal.sha256)
            for path, seal in seals.items()
        },
        bytes_downloaded=cached.bytes_downloaded,
        bytes_cached=model.size_bytes - cached.bytes_downloaded,
        directory=str(cached.files_directory),
        vouched={path: seal.vouched for path, seal in seals.items()},
    )


def losses(model: PulledModel) -> list[str]:
    """Returns what has to be known of a model that was pulled, a line each."""
    unproven = [path for path, how in model.vouched.items() if how == BY_LENGTH]
    lines = []
    if unproven:
        lines.append(
            "no digest vouches for what was downloaded, only the length that the artifact store "
            f"states: {_some(unproven)}"
        )
    if model.empty_folders:
        lines.append(f"a bundle keeps no empty folders: {_some(model.empty_folders)}")
    return lines


def _some(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - 5} more" if len(paths) > 5 else ""
    return ", ".join(paths[:5]) + more


def _in_place(
    model: ResolvedModel, root: LocalRoot, progress: Callable[[int], None]
) -> PulledModel:
    sizes_bytes = {file.path: file.size_bytes for file in root.list_files()}
    for file in model.files:
        if (size_bytes := sizes_bytes.get(file.path)) != file.size_bytes:
            raise SourceError(
                "A file of the model changed since it was listed.",
                where=root.directory / file.path,
                got="nothing" if size_bytes is None else f"{size_bytes} bytes",
                wanted=f"{file.size_bytes} bytes",
                next_step="run the same command again once nothing writes there",
            )
        progress(file.size_bytes)
    return PulledModel(
        files={
            file.path: LocalFile(
                str(root.directory / file.path), file.size_bytes, executable=file.executable
            )
            for file in model.files
        },
        bytes_downloaded=0,
        bytes_cached=model.size_bytes,
        directory=str(root.directory),
        vouched={file.path: IN_PLACE for file in model.files},
        empty_folders=root.empty_folders(),
    )


def _too_large(directory: Path) -> SourceError:
    return SourceError("The model's directory is too deep or too large.", where=directory)


def _not_plain(place: object, why: str) -> SourceError:
    return SourceError(
        f"A model's directory holds something else than files: it {why}.",
        where=place,
        wanted="plain files and directories",
        next_step="log the model again, with the file itself",
    )


def _unreadable(place: object, error: OSError) -> SourceError:
    return SourceError(
        "A file of the source cannot be read.",
        where=place,
        got=error.strerror or type(error).__name__,
        next_step="check that it exists and may be read, then run the same command again",
    )
