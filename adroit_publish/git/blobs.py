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
from adroit_publish.git.repository import OFFLINE, start_git

IN_MEMORY_BYTES = 4 << 20


@dataclass(frozen=True)
class GitBlob:
    """One blob by reference; a ``bundle.content.Readable``.

    ``repository`` is the absolute path of a directory inside it.
    """

    repository: str
    oid: str
    size_bytes: int

    def open(self) -> BinaryIO:
        """Opens the blob at its first byte; SourceError where the repository no longer holds it."""
        if self.size_bytes <= IN_MEMORY_BYTES:
            # By process id: a forked child must not talk to its parent's git.
            data = _batch(self.repository, os.getpid()).blob(self.oid)
            if data is None or len(data) != self.size_bytes:
                raise _no_blob(self, "nothing" if data is None else f"{len(data)} bytes")
            return BytesIO(data)
        return _spooled(self)


def committed_bytes(root: Path, path: str) -> bytes | None:
    """Returns a file's bytes as HEAD has them, or None; SourceError where git cannot read it."""
    return _batch(str(root), os.getpid()).blob(f"HEAD:./{path}")


def _spooled(blob: GitBlob) -> BinaryIO:
    process = start_git(Path(blob.repository), "cat-file", "blob", blob.oid, variables=OFFLINE)
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
        self._repository = repository
        self._process = start_git(Path(repository), "cat-file", "--batch", variables=OFFLINE)
        self._one_at_a_time = threading.Lock()

    def blob(self, name: str) -> bytes | None:
        """Returns the bytes of a blob; None where there is no such object, or it is no blob."""
        with self._one_at_a_time:
            try:
                return self._ask(name)
            except BaseException as error:
                # Half an answer may be left in the pipe: this process is of no more use.
                self._process.kill()
                _batch.cache_clear()
                if isinstance(error, OSError | EOFError):
                    raise SourceError(
                        "git ended early.", where=self._repository, next_step="git fsck"
                    ) from error
                raise

    def _ask(self, name: str) -> bytes | None:
        self._process.stdin.write(name.encode() + b"\n")
        self._process.stdin.flush()
        header = self._process.stdout.readline().decode(errors="replace")
        if header == f"{name} missing\n":
            return None
        _, kind, size = header.split() or ("", "", "0")
        data: bytes = self._process.stdout.read(int(size) + 1)
        if len(data) != int(size) + 1:
            raise EOFError
        return data[:-1] if kind == "blob" else None


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
