"""How many layers are hashed at once."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from io import BytesIO

import pytest

from adroit_publish.bundle.layer import LayerRecipe, PackedFile
from adroit_publish.publish import upload
from adroit_publish.stores.bundle_store import BundleStore
from adroit_publish.stores.directory import DirectoryObjects


@dataclass
class Waiting:
    """A file that is first read once as many are as the barrier waits for."""

    barrier: threading.Barrier
    size_bytes: int = 4
    was_read: bool = False

    def open(self) -> BytesIO:
        if not self.was_read:
            self.was_read = True
            self.barrier.wait()
        return BytesIO(b"data")


@pytest.mark.parametrize(("cores", "at_once"), [(1, 2), (2, 2), (6, 6), (16, 16), (96, 16)])
def test_as_many_layers_are_hashed_at_once_as_there_are_cores(
    tmp_path, monkeypatch, cores, at_once
):
    places = [BundleStore(DirectoryObjects(tmp_path))]
    monkeypatch.setattr(upload, "cores", lambda: cores)

    def hashed(count):
        barrier = threading.Barrier(count, timeout=2)
        recipes = [
            LayerRecipe("weights", (PackedFile("opt/adroit/model/data", Waiting(barrier)),))
            for _ in range(count)
        ]
        return upload.hash_and_upload(recipes, places, lambda _place: lambda _size_bytes: None)

    layers, receipts = hashed(at_once)
    assert len(layers) == len(receipts) == at_once
    with pytest.raises(threading.BrokenBarrierError):
        hashed(at_once + 1)
