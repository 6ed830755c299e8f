"""A blob of a bundle store as content, to be sent on to another place: streamed, never kept."""

from __future__ import annotations

from collections.abc import Iterator

from adroit_publish.bundle.digest import Descriptor
from adroit_publish.stores.bundle_store import BundleStore, blob_key


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
