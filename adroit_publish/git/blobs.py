"""Blobs of a git repository as readable files.

One ``git cat-file --batch`` a repository and process hands out the small ones, so that a thousand
source files do not cost a thousand processes. A blob too large for memory goes through an unnamed
temporary file. (GitPython's own pipe takes two to four times as long, mixes up the answers of
threads, and knows no SHA-256.)
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, cast

from adroit_publish.errors import SourceError
from adroit_publish.git.repository import start_git

IN_MEMORY_BYTES = 4 << 20


@dataclass(frozen=True)
class GitBlob:
    """One blob by reference; a ``bundle.content.Readable``.

    Attributes:
        repository: Absolute path of a directory inside the repository.
        oid: The blob's object id in hex.
        size_bytes: Its length.
    """

    repository: str
    oid: str
    size_bytes: int

    def open(self) -> BinaryIO:
        """Opens the blob at its first byte.

        Raises:
            SourceError: The repository is gone, or no longer holds the blob.
        """
        if self.size_bytes <= IN_MEMORY_BYTES:
            # By process id: a forked child must not talk to its parent's git.
            return BytesIO(_batch(self.repository, os.getpid()).read(self))
        return _spooled(self)


def _spooled(blob: GitBlob) -> BinaryIO:
    process = start_git(Path(blob.repository), "cat-file", "blob", blob.oid)
    stream = tempfile.TemporaryFile()  # noqa: SIM115 - handed to the caller
    try:
        shutil.copyfileobj(process.stdout, stream, 1 << 20)
        _, complaint = process.communicate()
        if process.returncode != 0 or stream.tell() != blob.size_bytes:
            raise _no_blob(blob, complaint.decode(errors="replace").strip())
        stream.seek(0)
    except BaseException:
        stream.close()
        raise
    return cast(BinaryIO, stream)


class _Batch:
    """One running ``git cat-file --batch``; any thread may ask it."""

    def __init__(self, repository: str) -> None:
        self._process = start_git(Path(repository), "cat-file", "--batch")
        self._one_at_a_time = threading.Lock()

    def read(self, blob: GitBlob) -> bytes:
        with self._one_at_a_time:
            try:
                return self._ask(blob)
            except BaseException as error:
                # Half an answer may be left in the pipe: this process is of no more use.
                self._process.kill()
                _batch.cache_clear()
                if isinstance(error, OSError):
                    raise _no_blob(blob, "git ended early") from error
                raise

    def _ask(self, blob: GitBlob) -> bytes:
        self._process.stdin.write(blob.oid.encode() + b"\n")
        self._process.stdin.flush()
        header = self._process.stdout.readline().decode(errors="replace").split()
        if header != [blob.oid, "blob", str(blob.size_bytes)]:
            raise _no_blob(blob, " ".join(header))
        data: bytes = self._process.stdout.read(blob.size_bytes + 1)
        if len(data) != blob.size_bytes + 1:
            raise _no_blob(blob, "git ended early")
        return data[:-1]


@lru_cache(maxsize=4)
def _batch(repository: str, process_id: int) -> _Batch:
    return _Batch(repository)


def _no_blob(blob: GitBlob, got: str) -> SourceError:
    return SourceError(
        "The repository does not give a file of the commit.",
        where=blob.repository,
        got=got or "git ended early",
        wanted=f"blob {blob.oid} of {blob.size_bytes} bytes",
        next_step="git fsck; in a partial clone, git fetch first",
    )
