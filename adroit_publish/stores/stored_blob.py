"""What a bundle store holds, read again: a blob to be sent on, streamed; some files of a layer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from adroit_publish.bundle.digest import Descriptor
from adroit_publish.bundle.layer import ROOT
from adroit_publish.bundle.tar_reader import TarReader
from adroit_publish.stores.blobs import blob_key
from adroit_publish.stores.bundle_store import BundleStore, Published


class StoredBlob:
    """A blob that is read from its store as often as it is asked for; a ``bundle.content.Content``.

    Read as a whole it is verified. Of a range nobody can say whether it is right: who asks for
    ranges (an upload in parts) hashes the whole as well.

    Args:
        store: Where it is.
        descriptor: Its digest and length.
    """

    def __init__(self, store: BundleStore, descriptor: Descriptor) -> None:
        self.store = store
        self.descriptor = descriptor

    @property
    def size_bytes(self) -> int:
        return self.descriptor.size_bytes

    def chunks(self, start: int = 0, stop: int | None = None) -> Iterator[memoryview | bytes]:
        if start == 0 and stop in (None, self.size_bytes):
            yield from self.store.read_blob(self.descriptor)
        else:
            yield from self.store.objects.read(blob_key(self.descriptor.digest), start, stop)


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
