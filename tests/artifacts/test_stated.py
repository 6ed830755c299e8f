"""What stores say of bytes: which tag, which digest, and what is none."""

from __future__ import annotations

import base64
import hashlib
import zlib
from dataclasses import replace

import pytest

from adroit_publish.artifacts import s3 as s3_artifacts
from adroit_publish.artifacts.arrival.seal import BY_DIGEST
from adroit_publish.artifacts.arrival.stated import Stated, is_proven, stated_by
from adroit_publish.artifacts.pull import open_root, pull_model
from tests.artifacts.test_artifacts import contents, model_at
from tests.servers.fake_databricks import serving
from tests.servers.mlflow_servers import send

DATA = bytes(range(256)) * 40
MD5 = hashlib.md5(DATA).hexdigest()
KMS = {"x-amz-server-side-encryption": "aws:kms"}


def b64(value):
    return base64.b64encode(value).decode()


CHECKSUMS = {
    "x-amz-checksum-sha256": b64(hashlib.sha256(DATA).digest()),
    "x-amz-checksum-sha1": b64(hashlib.sha1(DATA).digest()),
    "x-amz-checksum-crc32": b64(zlib.crc32(DATA).to_bytes(4, "big")),
}


@pytest.mark.parametrize(
    ("headers", "whole", "proven"),
    [
        ({"ETag": f'"{MD5}"'}, False, True),
        ({"ETag": f'"{MD5[::-1]}"'}, True, False),
        ({"ETag": f'"{MD5[::-1]}"', **KMS}, True, None),
        ({"ETag": f'"{MD5[::-1]}"', "x-amz-server-side-encryption": "aws:kms:dsse"}, True, None),
        (
            {"ETag": '"0x8D"', "x-amz-server-side-encryption-customer-algorithm": "AES256"},
            True,
            None,
        ),
        ({"ETag": f'"{MD5}"', "x-amz-server-side-encryption": "AES256"}, True, True),
        ({"Content-MD5": b64(bytes.fromhex(MD5))}, True, True),
        ({"Content-MD5": b64(bytes.fromhex(MD5))}, False, None),
        ({"Content-MD5": "not base64"}, True, None),
        ({"x-ms-blob-content-md5": b64(bytes.fromhex(MD5))}, False, True),
        ({"x-goog-hash": f"crc32c=AAAAAA==,md5={b64(bytes.fromhex(MD5))}"}, False, True),
        ({"x-goog-hash": "crc32c=AAAAAA=="}, True, None),
        ({}, True, None),
        *[({**KMS, name: value}, True, True) for name, value in CHECKSUMS.items()],
        *[({**KMS, name: value}, False, None) for name, value in CHECKSUMS.items()],
        ({**KMS, "x-amz-checksum-crc32": "AAAAAA=="}, True, False),
        ({**KMS, "x-amz-checksum-crc32": CHECKSUMS["x-amz-checksum-crc32"] + "-3"}, True, None),
    ],
)
def test_a_stated_digest_is_compared_and_what_is_none_is_not(tmp_path, headers, whole, proven):
    (tmp_path / "file").write_bytes(DATA)
    stated = stated_by(headers, whole=whole, etag_is_md5=True)
    assert is_proven(tmp_path / "file", len(DATA), stated) is proven


@pytest.mark.parametrize("part_bytes", [1000, 5 << 20])
def test_a_digest_of_parts_proves_where_their_length_is_known(tmp_path, part_bytes):
    parts = [DATA[start : start + part_bytes] for start in range(0, len(DATA), part_bytes)]
    whole = hashlib.md5(b"".join(hashlib.md5(part).digest() for part in parts)).hexdigest()
    (tmp_path / "file").write_bytes(DATA)
    stated = stated_by({"ETag": f'"{whole}-{len(parts)}"'}, whole=True, etag_is_md5=True)
    known = replace(stated, part_bytes=part_bytes)
    assert is_proven(tmp_path / "file", len(DATA), known)
    (tmp_path / "file").write_bytes(DATA[:-1] + b"!")
    assert is_proven(tmp_path / "file", len(DATA), known) is False


@pytest.mark.parametrize(
    ("headers", "tag"),
    [
        ({"ETag": '"v1"'}, '"v1"'),
        ({"ETag": 'W/"v1"'}, None),
        ({"Last-Modified": "Thu, 26 Nov 2026 10:00:00 GMT"}, None),
        (
            {
                "Last-Modified": "Thu, 26 Nov 2026 10:00:00 GMT",
                "Date": "Thu, 26 Nov 2026 10:02:00 GMT",
            },
            "Thu, 26 Nov 2026 10:00:00 GMT",
        ),
        (
            {
                "Last-Modified": "Thu, 26 Nov 2026 10:00:00 GMT",
                "Date": "Thu, 26 Nov 2026 10:00:01 GMT",
            },
            None,
        ),
        ({"Last-Modified": "yesterday", "Date": "today"}, None),
    ],
)
def test_a_tag_is_what_changes_whenever_the_bytes_do(headers, tag):
    assert stated_by(headers, whole=True) == Stated(tag)


@pytest.mark.parametrize("checksum", CHECKSUMS)
def test_an_object_encrypted_with_a_key_is_held_to_its_checksum(tmp_path, monkeypatch, checksum):
    """A bucket by API shape: no server here keeps keys. Its first answer has a flipped bit."""
    flipped = [bytes([DATA[0] ^ 1]) + DATA[1:]]
    facts = {**KMS, "ETag": '"0123456789abcdef0123456789abcdef"'}

    def bucket(asked, handler):
        if "list-type" in asked.query:
            row = f"<Contents><Key>a/MLmodel</Key><Size>{len(DATA)}</Size><ETag>{facts['ETag']}"
            page = f"<ListBucketResult>{row}</ETag></Contents></ListBucketResult>"
            return send(handler, 200, page.encode(), "application/xml")
        if asked.method == "HEAD":
            handler.send_response(200)
            for name, value in {**facts, checksum: CHECKSUMS[checksum]}.items():
                handler.send_header(name, value)
            handler.send_header("Content-Length", str(len(DATA)))
            return handler.end_headers()
        start, stop = map(int, asked.headers["range"].removeprefix("bytes=").split("-"))
        data = flipped.pop() if flipped and start == 0 else DATA
        placed = f"bytes {start}-{stop}/{len(DATA)}"
        return send(handler, 206, data[start : stop + 1], "x/y", Content_Range=placed, **facts)

    monkeypatch.setattr(s3_artifacts, "PIECE_BYTES", 4096)
    monkeypatch.setattr("adroit_publish.artifacts.cache.TWICE_BYTES", 1)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with serving(bucket) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", url)
        model = replace(model_at("s3://bucket/a"), files=open_root("s3://bucket/a").list_files())
        pulled = pull_model(model, tmp_path)
    assert contents(pulled) == {"MLmodel": DATA}
    assert pulled.vouched == {"MLmodel": BY_DIGEST}
    assert not flipped
