"""A file on its way: what has arrived of it, and the marks that say which bytes are proven.

    <name>.part            the file's length is no claim: any stretch of it may be a hole
    <name>.<start>.done    ``[start, stop)`` arrived: its digest, and the tag of what it is part of

A mark is written once its stretch is on the disk. It is believed only where the stretch still has
its digest, and the store still has bytes of the same tag: a kill, a power cut or a file replaced on
the server then cost a download, never a mixture.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from adroit_publish.bundle.listing import RemoteFile

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Arrived:
    """What an earlier pull left of a file: ``(start, stop)`` of its proven stretches, in order."""

    tag: str
    stretches: tuple[tuple[int, int], ...]


class Part:
    """One file's bytes on their way, below a directory of parts and marks."""

    def __init__(self, directory: Path, file: RemoteFile) -> None:
        # By digest: a path may be longer than a file name can be.
        name = hashlib.sha256(f"{file.path}\0{file.size_bytes}".encode()).hexdigest()[:32]
        self.path = directory / f"{name}.part"
        self._size_bytes = file.size_bytes
        self._directory = directory
        self._name = name
        self._is_marked = self.path.is_file()  # a listing of the directory less for each new file

    @contextmanager
    def open(self) -> Iterator[int]:
        """Gives a descriptor to read and write it."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    @property
    def unallocated_bytes(self) -> int:
        """How much room on the disk it still takes, proven bytes or not."""
        try:
            allocated_bytes = self.path.stat().st_blocks * 512
        except FileNotFoundError:
            allocated_bytes = 0
        return max(0, self._size_bytes - allocated_bytes)

    def arrived(self) -> Arrived | None:
        """Returns what is proven of it, once every marked stretch has been read; None for nothing.

        Stretches of more than one tag are of more than one file: none of them is believed.
        """
        if not self._is_marked:
            return None
        marks = sorted(filter(None, map(_read_mark, self._marks())))
        tags = {tag for _, _, tag, _ in marks}
        if len(tags) != 1:
            return None
        with self.path.open("rb") as stream:
            descriptor = stream.fileno()
            stretches = tuple(
                (start, stop)
                for start, stop, _, sha256 in marks
                if _sha256(descriptor, start, stop) == sha256
            )
        return Arrived(tags.pop(), stretches) if stretches else None

    def mark(self, descriptor: int, start: int, stop: int, tag: str | None) -> None:
        """Notes that ``[start, stop)`` has arrived; of bytes without a tag nothing is noted."""
        if tag is None or stop <= start:
            return
        self._is_marked = True
        os.fdatasync(descriptor)
        facts = {"start": start, "stop": stop, "tag": tag}
        facts["sha256"] = _sha256(descriptor, start, stop)
        mark = self._directory / f"{self._name}.{start}.done"
        torn = mark.with_suffix(".torn")
        torn.write_text(json.dumps(facts))
        torn.replace(mark)

    def forget(self) -> None:
        """Removes its marks: nothing of it is proven any more."""
        for mark in self._marks() if self._is_marked else ():
            mark.unlink(missing_ok=True)

    def _marks(self) -> list[Path]:
        return list(self._directory.glob(f"{self._name}.*.done"))


def _read_mark(path: Path) -> tuple[int, int, str, str] | None:
    with suppress(OSError, ValueError, TypeError, KeyError):  # torn, or of an older program
        facts = json.loads(path.read_text())
        return int(facts["start"]), int(facts["stop"]), str(facts["tag"]), str(facts["sha256"])
    return None


def _sha256(descriptor: int, start: int, stop: int) -> str:
    hasher = hashlib.sha256()
    for at in range(start, stop, _CHUNK_BYTES):
        hasher.update(os.pread(descriptor, min(_CHUNK_BYTES, stop - at), at))
    return hasher.hexdigest()
