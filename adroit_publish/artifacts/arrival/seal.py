"""What is known of a finished download: its digest, how that was vouched for, and whose it is.

    <cache>/<key>/seals/<name>.json     next to ``files/<path>``

A file without a seal is not believed. One whose ``stat`` is not what it was when it was sealed is
read again, and one with another digest is fetched again. Everybody else who reads the file compares
as well: see ``pull.LocalFile``.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

BY_DIGEST = "digest"
"""The artifact store states a digest, and the bytes have it."""
TWICE = "fetched twice"
"""The store states none; the file was fetched twice, and the bytes were the same."""
BY_LENGTH = "length only"
"""The store states none, and the file is too large to be fetched twice."""
IN_PLACE = "in place"
"""The file is the store's own, on this machine: nothing was on its way."""


@dataclass(frozen=True)
class Seal:
    """What is known of a finished download.

    Attributes:
        sha256: Hex digest of its bytes.
        vouched: One of the words above.
        tag: The store's tag of the bytes, or None.
        inode, size_bytes, mtime_ns: As ``stat`` had them when the file was sealed.
    """

    sha256: str
    vouched: str
    tag: str | None
    inode: int
    size_bytes: int
    mtime_ns: int

    @classmethod
    def of(cls, file: Path, sha256: str, vouched: str, tag: str | None) -> Seal:
        """Returns the seal of a file that has just been read."""
        status = file.lstat()
        return cls(sha256, vouched, tag, status.st_ino, status.st_size, status.st_mtime_ns)

    def fits(self, file: Path) -> bool:
        """Returns whether a file is the one that was sealed; reads it where ``stat`` differs."""
        try:
            now = Seal.of(file, self.sha256, self.vouched, self.tag)
            return now == self or (
                now.size_bytes == self.size_bytes
                and not file.is_symlink()
                and sha256_of(file) == self.sha256
            )
        except OSError:
            return False


def sha256_of(file: Path) -> str:
    """Returns the hex digest of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def seal_path(directory: Path, path: str) -> Path:
    """Returns where the seal of a model's file lies."""
    return directory / f"{hashlib.sha256(path.encode()).hexdigest()[:32]}.json"


def read_seal(place: Path) -> Seal | None:
    """Returns a seal; None where there is none that can be read."""
    with suppress(OSError, ValueError, TypeError):
        return Seal(**json.loads(place.read_bytes()))
    return None


def write_seal(place: Path, seal: Seal) -> None:
    """Writes a seal; one that is torn by a kill is none."""
    place.parent.mkdir(exist_ok=True)
    place.write_text(json.dumps(asdict(seal)))
