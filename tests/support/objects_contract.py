"""What every place of objects has to pass; test modules bring the place as the fixture ``objects``.

One suite for all of them: ``from tests.support.objects_contract import *`` in a module that
defines it.
"""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from adroit_publish.bundle.content import Inline
from adroit_publish.bundle.digest import Digest
from adroit_publish.errors import PublishError, StoreError, VerificationError
from adroit_publish.stores.contract import KeyTaken


def read_all(objects, key):
    return b"".join(bytes(chunk) for chunk in objects.read(key))


def create(objects, key, data, **options):
    objects.create(key, Inline(data), Digest.of(data), **options)


class Broken:
    """Content that ends, or fails, before its length."""

    size_bytes = 3 << 20

    def __init__(self, error=None):
        self.error = error

    def chunks(self, start=0, stop=None):
        yield bytes(1 << 20)
        if self.error:
            raise self.error


def test_what_was_created_is_read_back_whole(objects):
    for name, data in {"empty": b"", "small": b"abc", "big": bytes(range(256)) * 9000}.items():
        create(objects, f"a/{name}", data)
        assert read_all(objects, f"a/{name}") == data
        assert objects.stat(f"a/{name}").size_bytes == len(data)


def test_a_range_is_read_alone(objects):
    data = bytes(range(256)) * 9000
    create(objects, "ranged", data)
    for start, stop in ((0, 1), (5, 9), (1 << 20, (2 << 20) + 3), (7, None), (0, len(data))):
        pieces = objects.read("ranged", start, stop)
        assert b"".join(bytes(piece) for piece in pieces) == data[start:stop]


def test_nothing_is_known_of_a_key_that_was_never_created(objects):
    assert objects.stat("no/such") is None
    with pytest.raises(StoreError) as error:
        read_all(objects, "no/such")
    assert not error.value.transient


def test_a_taken_key_is_refused_and_keeps_its_bytes(objects):
    create(objects, "k", b"first")
    with pytest.raises(KeyTaken):
        create(objects, "k", b"other")
    assert read_all(objects, "k") == b"first"


def test_of_many_creators_exactly_one_succeeds(objects):
    barrier = threading.Barrier(8)

    def race(number):
        barrier.wait()
        try:
            create(objects, "raced", b"%d" % number * 1000)
        except KeyTaken:
            return None
        return number

    with ThreadPoolExecutor(8) as pool:
        winners = [number for number in pool.map(race, range(8)) if number is not None]
    assert len(winners) == 1
    assert read_all(objects, "raced") == b"%d" % winners[0] * 1000


def test_bytes_that_are_not_the_digest_are_not_stored(objects):
    if not getattr(objects, "enforces_checksums", True):  # a server that tests have to put up with
        objects.create("wrong", Inline(b"got"), Digest.of(b"wanted"))
        assert read_all(objects, "wrong") == b"got", "it does by now: correct the trait"
        return
    with pytest.raises(VerificationError):
        objects.create("wrong", Inline(b"got"), Digest.of(b"wanted"))
    assert objects.stat("wrong") is None


@pytest.mark.parametrize("error", [None, StoreError("the disk went away")])
def test_content_that_breaks_off_leaves_nothing(objects, error):
    whole = "sha256:" + hashlib.sha256(bytes(3 << 20)).hexdigest()
    with pytest.raises(PublishError):
        objects.create("cut", Broken(error), Digest(whole))
    assert objects.stat("cut") is None
    assert list(objects.keys("")) == []


def test_a_checksum_that_is_vouched_for_is_the_true_one(objects):
    create(objects, "k", b"data")
    found = objects.stat("k", checksum=True)
    assert found.sha256 == (Digest.of(b"data") if getattr(objects, "vouches", True) else None)


def test_replacing_needs_the_object_that_was_seen(objects):
    create(objects, "k", b"one")
    seen = objects.stat("k")
    objects.replace("k", Inline(b"two"), Digest.of(b"two"), seen)
    with pytest.raises(KeyTaken):
        objects.replace("k", Inline(b"three"), Digest.of(b"three"), seen)
    assert read_all(objects, "k") == b"two"


def test_keys_and_children_are_sorted_and_complete(objects):
    keys = ["b/2/x", "b/10/x", "b/10/y/z", "a", "bb/1"]
    for key in keys:
        create(objects, key, key.encode())
    assert list(objects.keys("")) == sorted(keys)
    assert list(objects.keys("b/")) == ["b/10/x", "b/10/y/z", "b/2/x"]
    assert list(objects.keys("b/1")) == ["b/10/x", "b/10/y/z"]
    assert list(objects.children("")) == ["a", "b", "bb"]
    assert list(objects.children("b/")) == ["10", "2"]
    assert list(objects.children("nothing/")) == []


def test_deleting_is_final_and_can_be_repeated(objects):
    create(objects, "k", b"data")
    objects.delete("k")
    objects.delete("k")
    assert objects.stat("k") is None


def test_progress_adds_up_to_the_length(objects):
    heard = []
    data = bytes(5 << 20)
    create(objects, "k", data, progress=heard.append)
    assert sum(heard) == len(data)
