"""Where the files of published model layers are on this machine, by the layer's digest.

    .adroit/cache/layers/<hex>.json        the layer's files, as they were when they were hashed
    .adroit/cache/layers/<hex>/<path>      the files themselves, where they were pulled for this

Nothing is copied when a model is published: the index says where its files lay (in the tracking
server's store, in the cache of downloads) and how ``stat`` described them. They are the layer's
files for as long as ``stat`` says the same; whoever used them asks once more afterwards.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from adroit_publish.artifacts.pull import LocalFile
from adroit_publish.bundle.digest import Descriptor
from adroit_publish.bundle.layer import ROOT, Layer, PackedFile
from adroit_publish.bundle.tar_reader import TarReader
from adroit_publish.errors import StoreError, VerificationError
from adroit_publish.stores.blobs import blob_key
from adroit_publish.stores.bundle_store import BundleStore
from adroit_publish.stores.contract import Progress, unheard

Identity = tuple[int, int, int, int]
"""Device, inode, length in bytes and mtime in ns of a file."""


@dataclass(frozen=True)
class SeenFile(LocalFile):
    """A file that is the one that was hashed for as long as its ``stat`` says so."""

    identity: Identity

    def open(self) -> BinaryIO:
        """Opens the file; raises as ``check``, and as ``LocalFile.open``."""
        self.check()
        return super().open()

    def check(self) -> None:
        """Raises VerificationError where it is another file now, or a changed one."""
        if _identity(self.path) != self.identity:
            raise VerificationError(
                "A file of the model changed while it was used.",
                where=self.path,
                next_step="run the same command again",
            )


class ModelFiles:
    """The files of model layers on this machine, below a checkout."""

    def __init__(self, root: Path) -> None:
        self._directory = root / ".adroit" / "cache" / "layers"

    def seen(self, files: Iterable[PackedFile]) -> tuple[PackedFile, ...]:
        """Returns files that are about to be hashed, with what ``stat`` says of them now."""
        return tuple(_seen(file) for file in files)

    def remember(self, layers: Iterable[Layer]) -> None:
        """Notes where the files of layers are that have just been hashed."""
        for layer in layers:
            if not all(isinstance(file.content, SeenFile) for file in layer.files):
                continue
            rows = {
                file.path: [file.content.path, *file.content.identity, file.executable]
                for file in layer.files
                if isinstance(file.content, SeenFile)
            }
            with suppress(OSError):  # it is a cache
                self._write(layer.descriptor, rows)

    def find(self, layer: Layer) -> Layer | None:
        """Returns a carried layer with its files, or None where they are not all here."""
        try:
            rows = json.loads(self._index(layer.descriptor).read_text())
            files = tuple(
                PackedFile(path, SeenFile(row[0], row[3], tuple(row[1:5])), row[5:] == [True])
                for path, row in rows.items()
            )
        except (OSError, ValueError, TypeError, LookupError, AttributeError):
            return None
        wanted = {(f"{ROOT}/model/{entry.path}", entry.size_bytes) for entry in layer.entries}
        if {(file.path, file.content.size_bytes) for file in files} != wanted:
            return None
        if any(_identity(f.content.path) != f.content.identity for f in files):  # type: ignore[attr-defined]
            return None
        return replace(layer, files=files)

    def pull(self, layer: Layer, store: BundleStore, progress: Progress = unheard) -> Layer:
        """Returns a carried layer with its files, which are pulled out of the store.

        Raises:
            StoreError: The store, or the disk, failed.
            VerificationError: The layer's bytes are not what its digest says.
        """
        hex_digest = layer.descriptor.digest.hex
        final = self._directory / hex_digest
        with _disk_errors(self._directory):
            self._directory.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(prefix=f".{hex_digest[:12]}.", dir=self._directory))
            try:
                scratch.chmod(0o755)
                rows = dict(self._unpacked(layer.descriptor, store, scratch, final, progress))
                shutil.rmtree(final, ignore_errors=True)
                scratch.rename(final)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
            self._write(layer.descriptor, rows)
        unpacked = self.find(layer)
        if unpacked is None:
            raise VerificationError(
                "A model layer holds other files than its bundle.json says.",
                where=f"{store.location}/{blob_key(layer.descriptor.digest)}",
            )
        return unpacked

    def _unpacked(
        self,
        descriptor: Descriptor,
        store: BundleStore,
        scratch: Path,
        final: Path,
        progress: Progress,
    ) -> Iterator[tuple[str, list[object]]]:
        """Writes a layer's files and yields their rows, with the paths they are to have."""
        where = f"{store.location}/{blob_key(descriptor.digest)}"
        reader = TarReader(store.read_blob(descriptor), where)
        for member in reader.members():
            path = scratch / member.path.removeprefix(ROOT).lstrip("/")
            if member.directory:
                path.mkdir(exist_ok=True)
                continue
            with path.open("xb") as file:
                for piece in reader.content():
                    file.write(piece)
                    progress(len(piece))
            path.chmod(0o755 if member.executable else 0o644)
            identity = _identity(str(path))
            assert identity is not None
            place = str(final / path.relative_to(scratch))
            yield member.path, [place, *identity, member.executable]

    def _write(self, descriptor: Descriptor, rows: object) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        scratch = self._directory / f".{descriptor.digest.hex[:12]}.{os.getpid()}.json"
        scratch.write_text(json.dumps(rows))
        scratch.replace(self._index(descriptor))

    def _index(self, descriptor: Descriptor) -> Path:
        return self._directory / f"{descriptor.digest.hex}.json"


def _seen(file: PackedFile) -> PackedFile:
    content = file.content
    if not isinstance(content, LocalFile):
        return file
    identity = _identity(content.path)
    if identity is None or identity[2] != content.size_bytes:
        return file  # whoever hashes it will say what is wrong
    return replace(file, content=SeenFile(**vars(content), identity=identity))


def _identity(path: str) -> Identity | None:
    try:
        status = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


@contextmanager
def _disk_errors(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            "The model could not be put into the cache.",
            where=error.filename or directory,
            got=error.strerror,
            next_step="make room there, then run the same command again",
        ) from error
