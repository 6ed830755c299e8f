"""An opened version: what its documents say, each read once; and what it has to answer again."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from adroit_publish.bundle.content import Inline
from adroit_publish.bundle.digest import Descriptor, Digest
from adroit_publish.bundle.document import canonical_json
from adroit_publish.bundle.manifest import MANIFEST_MEDIA_TYPE, RECORD_MEDIA_TYPE
from adroit_publish.errors import VerificationError
from adroit_publish.stores.bundle_store import BundleStore
from adroit_publish.stores.directory import DirectoryObjects
from adroit_publish.version import Version, Versions

CONFIG = {"mediaType": "application/json", "digest": str(Digest.of(b"{}")), "size": 2}


class CountedObjects(DirectoryObjects):
    """A directory that counts what is read of it."""

    def __init__(self, root):
        super().__init__(root)
        self.reads: Counter[str] = Counter()

    def read(self, key, start=0, stop=None):
        self.reads[key] += 1
        return super().read(key, start, stop)


@pytest.fixture
def store(tmp_path):
    return BundleStore(CountedObjects(tmp_path))


def put(store: BundleStore, number: int, *records: dict[str, Any]) -> str:
    """Puts a version that differs by ``number`` and has these verifications on record."""
    data = canonical_json(
        {"schemaVersion": 2, "config": CONFIG, "layers": [], "annotations": {"n": str(number)}}
    )
    manifest = Descriptor(MANIFEST_MEDIA_TYPE, Digest.of(data), len(data))
    version = f"v{'0' * 8}-{manifest.digest.hex[:12]}"
    store.put_blob(manifest, Inline(data))
    for minute, record in enumerate(records):
        document = canonical_json({"schema": 1, "created_utc": f"2026-01-01T00:0{minute}"} | record)
        store.attach("m", version, manifest, RECORD_MEDIA_TYPE, document)
    store.commit("m", version, manifest)
    return version


def verified(outputs: list[int], **replay: object) -> dict[str, Any]:
    seen = {"how": "process", "predicted": True, "outputs": outputs, "outputs_sha256": str(outputs)}
    return {"verification": seen | ({"replay": replay} if replay else {})}


def golden(store: BundleStore, version: str) -> tuple[str, Any] | None:
    versions = Versions(store)
    opened = versions.find("m", version)
    assert opened is not None
    found = versions.golden_outputs(opened)
    return found and (found.version, found.outputs)


def test_each_document_is_read_once_by_however_many_threads(store):
    name = put(store, 1, verified([1]), verified([2]))
    store.objects.reads.clear()
    versions = Versions(store)

    def ask(_number: int) -> Version | None:
        version = versions.find("m", name)
        assert version is not None
        assert version.manifest.layers == ()
        assert [record.verification.outputs for record in version.records] == [[1], [2]]
        return version

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(ask, range(32)))) == 1
    assert set(store.objects.reads.values()) == {1}
    assert versions.find("m", "v00000000-000000000000") is None


def test_damage_is_told_each_time(store):
    version = Versions(store).find("m", put(store, 1))
    assert version is not None
    for _ in range(2):
        with pytest.raises(VerificationError, match="not one that this program writes"):
            _ = version.bundle


def test_the_first_outputs_are_golden_along_a_line_of_republishes(store):
    first = put(store, 1, verified([1]), verified([9]))
    second = put(store, 2, {"republished_from": first} | verified([2], against=first))
    unverified = put(store, 3, {"republished_from": second, "verification": {"how": "none"}})
    assert golden(store, first) == (first, [1])
    assert golden(store, second) == (first, [1])
    assert golden(store, unverified) == (first, [1])


def test_outputs_that_were_accepted_are_golden_from_there_on(store):
    first = put(store, 1, verified([1]))
    moved = put(store, 2, verified([2], against=first, accepted=True))
    after = put(store, 3, verified([2], against=moved))
    assert golden(store, moved) == (moved, [2])
    assert golden(store, after) == (moved, [2])


def test_what_nobody_verified_has_no_golden_outputs(store):
    assert golden(store, put(store, 1, {"verification": {"how": "none"}})) is None
    assert golden(store, put(store, 2)) is None


def test_versions_that_name_each_other_end(store):
    """No program of ours writes these; a store that anybody may write can hold them."""
    one = put(store, 1, verified([1], against="v00000000-000000000000"))
    assert golden(store, one) == (one, [1])
