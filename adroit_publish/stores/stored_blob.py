"""What a place holds, read again: a blob to be sent on, streamed; some files of a layer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from adroit_publish.bundle.digest import Descriptor
from adroit_publish.bundle.layer import ROOT
from adroit_publish.bundle.tar_reader import TarReader
from adroit_publish.stores.blobs import blob_key
from adroit_publish.stores.bundle_store import BundleStore, Published


class BlobReader(Protocol):
    """A bundle store, or a repository of a registry."""

    def read_blob(self, descriptor: Descriptor) -> Iterator[memoryview | bytes]: ...

    def read_range(
        self, descriptor: Descriptor, start: int, stop: int
    ) -> Iterator[memoryview | bytes]: ...


class StoredBlob:
    """A blob that is read from its place as often as it is asked for; a ``bundle.content.Content``.

    Read as a whole it is verified. Of a range nobody can say whether it is right: who asks for
    ranges (an upload in parts) hashes the whole as well.
    """

    def __init__(self, place: BlobReader, descriptor: Descriptor) -> None:
        self.place = place
        self.descriptor = descriptor

    @property
    def size_bytes(self) -> int:
        return self.descriptor.size_bytes

    def chunks(self, start: int = 0, stop: int | None = None) -> Iterator[memoryview | bytes]:
        stop = self.size_bytes if stop is None else stop
        if (start, stop) == (0, self.size_bytes):
            return self.place.read_blob(self.descriptor)
        return self.place.read_range(self.descriptor, start, stop)


def stored_files(
    store: BundleStore, published: Published, kind: str, paths: Iterable[str]
) -> dict[str, bytes]:
    """Returns some files of a version, verified, by path below their kind's directory.

    Only layers of that kind are read, and those to their end. Raises as ``BundleStore.read_blob``.
    """
    prefix = f"{ROOT}/{kind}/"
    wanted, files = {prefix + path for path in paths}, dict[str, bytes]()
    for layer in store.manifest(published).layers_of(kind):
        if len(files) < len(wanted):
            where = f"{store.location}/{blob_key(layer.digest)}"
            files |= TarReader(store.read_blob(layer), where).files(wanted)
    return {path.removeprefix(prefix): data for path, data in files.items()}
