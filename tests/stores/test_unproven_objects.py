"""Objects of the right length and wrong bytes, by whatever way they came into the bucket."""

from __future__ import annotations

import base64
import zlib

import pytest

from adroit_publish.bundle.content import Inline
from adroit_publish.bundle.digest import Descriptor, Digest
from adroit_publish.stores.blobs import blob_key
from adroit_publish.stores.bundle_store import BundleStore
from adroit_publish.stores.s3 import objects as s3
from adroit_publish.stores.s3 import parts as s3_parts
from adroit_publish.stores.s3.objects import S3Objects
from tests.servers.object_servers import ACCESS_KEY, SECRET_KEY

PART = 5 << 20
SMALL = bytes(range(256)) * 100
LARGE = bytes(range(256)) * (2 * PART // 256) + b"end"


@pytest.fixture(autouse=True)
def credentials(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr(s3, "SINGLE_PUT_BYTES", PART)
    monkeypatch.setattr(s3_parts, "PART_BYTES", PART)


@pytest.fixture(params=["seaweed", "moto_server"])
def server(request):
    return request.getfixturevalue(request.param)


class Place:
    """A bundle store, and a client that puts objects into it behind its back."""

    def __init__(self, server):
        self.place = server.new_place()
        self.client = server.client()
        self.store = BundleStore(S3Objects(f"s3://{self.place}", endpoint=server.endpoint))

    def named(self, digest):
        bucket, prefix = self.place.split("/")
        return {"Bucket": bucket, "Key": f"{prefix}/{blob_key(digest)}"}

    def put(self, digest, data, **options):
        self.client.put_object(**self.named(digest), Body=data, **options)

    def put_parts(self, digest, data, metadata):
        named = self.named(digest)
        upload = self.client.create_multipart_upload(
            **named, Metadata=metadata, ChecksumAlgorithm="CRC32", ChecksumType="COMPOSITE"
        )["UploadId"]
        parts = []
        for number, start in enumerate(range(0, len(data), PART), 1):
            piece = data[start : start + PART]
            checksum = base64.b64encode(zlib.crc32(piece).to_bytes(4, "big")).decode()
            part = {"PartNumber": number, "ChecksumCRC32": checksum}
            sent = self.client.upload_part(**named, **part, UploadId=upload, Body=piece)
            parts.append(part | {"ETag": sent["ETag"]})
        self.client.complete_multipart_upload(
            **named, UploadId=upload, MultipartUpload={"Parts": parts}
        )

    def copy(self, digest, data, metadata):
        bucket, prefix = self.place.split("/")
        source = {"Bucket": bucket, "Key": f"{prefix}/elsewhere"}
        self.client.put_object(**source, Body=data)
        self.client.copy_object(
            **self.named(digest), CopySource=source, Metadata=metadata, MetadataDirective="REPLACE"
        )

    def holds(self, digest):
        return self.client.get_object(**self.named(digest))["Body"].read()


@pytest.fixture
def place(server):
    return Place(server)


def blob_of(data):
    return Descriptor("application/octet-stream", Digest.of(data), len(data))


def with_crc32s(data):
    content = Inline(data)
    starts = range(0, len(data), PART)
    content.part_crc32s = [zlib.crc32(data[start : start + PART]) for start in starts]
    return content


def wrong(data):
    return data[:-1] + bytes([data[-1] ^ 1])


WAYS = {
    "plain": lambda place, digest, data: place.put(digest, data),
    "CRC alone": lambda place, digest, data: place.put(digest, data, ChecksumAlgorithm="CRC32"),
    "our words": lambda place, digest, data: place.put(
        digest, data, Metadata={"adroit-sha256": digest.hex, "adroit-writer": "0" * 32}
    ),
    "copied with our words": lambda place, digest, data: place.copy(
        digest, data, {"adroit-sha256": digest.hex}
    ),
    "parts": lambda place, digest, data: place.put_parts(digest, data, {}),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
def test_an_object_that_nothing_vouches_for_is_read_and_healed(place, way, data):
    blob = blob_of(data)
    WAYS[way](place, blob.digest, wrong(data))
    assert not place.store.has_blob(blob)
    assert place.store.put_blob(blob, Inline(data)) is True
    assert place.holds(blob.digest) == data
    assert place.store.has_blob(blob)


def test_an_encrypted_object_is_read_like_any_other(moto_server):  # SeaweedFS has no keys
    place, blob = Place(moto_server), blob_of(SMALL)
    place.put(blob.digest, wrong(SMALL), ServerSideEncryption="AES256")
    assert place.store.put_blob(blob, Inline(SMALL)) is True
    assert place.holds(blob.digest) == SMALL


@pytest.mark.parametrize("way", WAYS)
def test_an_object_of_the_right_bytes_is_left_alone_whoever_put_it(place, way):
    blob = blob_of(SMALL)
    WAYS[way](place, blob.digest, SMALL)
    before = place.client.head_object(**place.named(blob.digest))
    assert place.store.put_blob(blob, Inline(SMALL)) is False
    after = place.client.head_object(**place.named(blob.digest))
    assert (after["ETag"], after["LastModified"]) == (before["ETag"], before["LastModified"])


def test_parts_that_claim_a_digest_are_held_against_the_checksums_of_ours(place):
    blob = blob_of(LARGE)
    place.put_parts(blob.digest, wrong(LARGE), {"adroit-sha256": blob.digest.hex})
    assert place.store.put_blob(blob, with_crc32s(LARGE)) is True
    assert place.holds(blob.digest) == LARGE


def test_parts_of_our_own_are_known_by_their_checksums_and_not_read(place, monkeypatch, server):
    blob = blob_of(LARGE)
    assert place.store.put_blob(blob, with_crc32s(LARGE)) is True
    if server.vouches:
        monkeypatch.setattr(place.store.objects, "read", None)
    assert place.store.put_blob(blob, with_crc32s(LARGE)) is False


def test_what_took_an_objects_place_meanwhile_is_not_overwritten(place, monkeypatch):
    blob = blob_of(SMALL)
    place.put(blob.digest, wrong(SMALL))
    real_read = place.store.objects.read

    def read_and_lose(key, *args):
        yield from real_read(key, *args)
        place.put(blob.digest, SMALL)  # another writer heals it first

    monkeypatch.setattr(place.store.objects, "read", read_and_lose)
    assert place.store.put_blob(blob, Inline(SMALL)) is False
    assert place.holds(blob.digest) == SMALL
