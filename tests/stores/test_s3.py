from __future__ import annotations

import random
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import pytest

from adroit_publish.aws import session as aws
from adroit_publish.bundle.content import Inline
from adroit_publish.bundle.digest import Descriptor, Digest
from adroit_publish.edge.patience import Patience
from adroit_publish.errors import (
    ConfigError,
    PublishError,
    RefusedError,
    StoreError,
    VerificationError,
)
from adroit_publish.stores.bundle_store import BundleStore
from adroit_publish.stores.contract import KeyTaken
from adroit_publish.stores.s3 import http as s3_http
from adroit_publish.stores.s3 import objects as s3
from adroit_publish.stores.s3 import parts as s3_parts
from adroit_publish.stores.s3 import session as s3_session
from adroit_publish.stores.s3.objects import S3Objects
from adroit_publish.stores.s3.problem import S3Problem
from tests.servers.fault_proxy import (
    FaultProxy,
    answer,
    cut,
    cut_answer,
    cut_body,
    flip_answer,
    flip_body,
    lose_answer,
    rewrite_answer,
    s3_error,
    stall,
)
from tests.servers.object_servers import ACCESS_KEY, SECRET_KEY
from tests.support.objects_contract import *  # noqa: F403
from tests.support.objects_contract import Broken, create, read_all

pytest_plugins = ["tests.servers.object_servers"]
ACCOUNT = "123456789012"
PART = 5 << 20


@pytest.fixture(autouse=True)
def credentials(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


@pytest.fixture(params=["seaweed", "moto_server"])
def objects(request):
    server = request.getfixturevalue(request.param)
    objects = S3Objects(f"s3://{server.new_place()}", endpoint=server.endpoint)
    objects.vouches = server.vouches
    objects.enforces_checksums = server.enforces_checksums
    return objects


@pytest.fixture
def proxy(seaweed):
    with FaultProxy(seaweed.endpoint, bucket_owner=ACCOUNT) as proxy:
        yield proxy


@pytest.fixture
def place(seaweed):
    return seaweed.new_place()


@pytest.fixture
def behind(proxy, place):
    """The store as it is reached through the proxy."""
    return S3Objects(f"s3://{place}", account=ACCOUNT, endpoint=proxy.endpoint)


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(s3, "SINGLE_PUT_BYTES", PART)
    monkeypatch.setattr(s3_parts, "PART_BYTES", PART)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(s3_http, "GIVE_UP_S", 0.5)


def test_content_that_ends_early_is_not_the_stores_fault(behind, proxy):
    with pytest.raises(VerificationError, match="wrong length"):
        behind.create("cut", Broken(), Digest.of(b""))
    assert proxy.count("PUT") == 1
    assert behind.stat("cut") is None


# What may pass: the command goes on, and nobody notices.


@pytest.mark.parametrize(
    "fault",
    [
        answer(503, {"Retry-After": "0"}),
        answer(429),
        answer(500, body=b"<html>oops"),
        s3_error(503, "SlowDown"),
        s3_error(400, "RequestTimeout"),
        s3_error(409, "ConditionalRequestConflict"),
        s3_error(200, "InternalError"),
        cut,
        cut_body(1 << 20),
        lose_answer,
        flip_body(1 << 20),
    ],
    ids=lambda fault: getattr(fault, "__qualname__", "").partition(".")[0],
)
def test_a_put_that_fails_once_is_made_by_the_next_try(behind, proxy, fault):
    data = bytes(range(256)) * (3 << 12)
    heard: list[int] = []
    injected = proxy.inject(fault, "PUT")
    create(behind, "k", data, progress=heard.append)
    assert injected.fired == 1
    assert proxy.count("PUT") == 2
    assert read_all(behind, "k") == data
    assert sum(heard) == len(data)


@pytest.mark.parametrize("fault", [answer(503), cut, lose_answer])
@pytest.mark.parametrize("method", ["HEAD", "GET", "DELETE"])
def test_every_other_request_is_tried_again_too(behind, proxy, method, fault):
    create(behind, "a/k", b"data")
    injected = proxy.inject(fault, method, times=2)
    assert behind.stat("a/k").size_bytes == 4
    assert list(behind.keys("")) == ["a/k"]
    behind.delete("a/k")
    assert behind.stat("a/k") is None
    assert injected.fired == 2


def test_half_of_all_requests_may_fail(behind, proxy):
    failing = proxy.inject(answer(503), times=1000, chance=0.5)
    for number in range(10):
        create(behind, f"k{number}", b"data")
    assert len(list(behind.keys(""))) == 10
    assert failing.fired >= 5
    assert proxy.count() == 11 + failing.fired


def test_the_servers_pause_is_kept_and_a_long_one_is_told_to_the_user(behind, proxy):
    waited_s = []
    patience = Patience(s3_http.GIVE_UP_S, waited_s.append)
    asked = S3Problem.of_answer(503, {"retry-after": "7"}, b"")
    patience.wait_or_raise(asked.error("k", None), asked.retry_after_s)
    assert 7 <= waited_s[0] <= 7.2
    proxy.inject(answer(503, {"Retry-After": "3600"}), "PUT")
    with pytest.raises(StoreError, match="again in 3600 s") as error:
        create(behind, "k", b"data")
    assert error.value.transient
    assert proxy.count("PUT") == 1


@pytest.mark.parametrize("timeout_s", [aws.CONNECT_TIMEOUT_S, aws.READ_TIMEOUT_S, 0.001])
def test_a_silent_peer_is_given_up_within_a_minute(monkeypatch, timeout_s):
    clock_s = [0.0]
    monkeypatch.setattr("adroit_publish.edge.patience.time.monotonic", lambda: clock_s[0])

    def passes(seconds):
        clock_s[0] += seconds

    patience = Patience(s3_http.GIVE_UP_S, passes)
    silent = S3Problem(0, "ReadTimeoutError").error("k", None)

    def attempt():
        patience.begin()
        passes(timeout_s)
        patience.wait_or_raise(silent)

    with pytest.raises(StoreError, match="could not be reached"):
        list(iter(attempt, "an answer"))
    assert s3_http.GIVE_UP_S <= clock_s[0] + 1 < 60


def test_a_peer_that_stalls_is_a_transient_error(behind, proxy, monkeypatch, impatient):
    monkeypatch.setattr(aws, "READ_TIMEOUT_S", 0.6)  # one silence is as long as all the patience
    stalled = proxy.inject(stall, times=9)
    with pytest.raises(StoreError, match="could not be reached") as error:
        behind.stat("k")
    assert error.value.transient
    assert stalled.fired == 1


def test_a_peer_that_stalls_once_is_asked_again(behind, proxy, monkeypatch):
    monkeypatch.setattr(aws, "READ_TIMEOUT_S", 0.6)
    create(behind, "k", b"data")
    stalled = proxy.inject(stall, times=2)
    assert behind.stat("k")
    assert stalled.fired == 2


def test_a_server_that_never_recovers_is_a_transient_error(behind, proxy, impatient):
    proxy.inject(s3_error(503, "SlowDown"), times=1000)
    with pytest.raises(StoreError, match="SlowDown") as error:
        create(behind, "k", b"data")
    assert error.value.transient


# Lost answers: the writer's own mark decides.


def test_a_lost_answer_to_a_refusal_is_still_a_taken_key(behind, proxy):
    create(behind, "k", b"first")
    proxy.inject(lose_answer, "PUT")
    with pytest.raises(KeyTaken):
        create(behind, "k", b"first")
    assert read_all(behind, "k") == b"first"


def test_a_lost_answer_to_a_replacement_is_success(behind, proxy):
    create(behind, "k", b"one")
    lost = proxy.inject(lose_answer, "PUT")
    behind.replace("k", Inline(b"two"), Digest.of(b"two"), behind.stat("k"))
    assert lost.fired == 1
    assert read_all(behind, "k") == b"two"


def test_what_is_gone_cannot_be_replaced(objects):
    create(objects, "k", b"one")
    seen = objects.stat("k")
    objects.delete("k")
    with pytest.raises(KeyTaken):
        objects.replace("k", Inline(b"two"), Digest.of(b"two"), seen)


def test_a_listing_that_is_cut_is_asked_for_again(behind, proxy):
    create(behind, "a/k", b"data")
    fault = proxy.inject(cut_answer(100), "GET")
    assert list(behind.keys("")) == ["a/k"]
    assert fault.fired == 1


def test_a_listing_of_another_prefix_is_not_the_answer(behind, proxy, seaweed):
    create(behind, "referrers/ours", b"x")
    other = S3Objects(f"s3://{seaweed.new_place()}", endpoint=proxy.endpoint)
    create(other, "referrers/theirs", b"x")
    proxy.keeps_messages = True
    assert [*other.children("referrers/")] == ["theirs"]
    (kept,) = proxy.matching("GET", "list-type")
    proxy.inject(rewrite_answer(lambda _: kept.answer), "GET", "list-type", times=2)
    for listing in (behind.children("referrers/"), behind.keys("referrers/")):
        with pytest.raises(StoreError, match="another listing"):
            list(listing)
    assert [*behind.children("referrers/")] == ["ours"]


@pytest.mark.parametrize(
    ("method", "target"), [("HEAD", ""), ("POST", "uploads"), ("PUT", "partNumber=2"), ("GET", "")]
)
def test_an_answer_whose_headers_were_cut_is_an_error_to_try_again(
    behind, proxy, small_parts, method, target
):
    """http.client takes the headers that came before a connection was cut for all of them."""
    data = random.Random(0).randbytes(2 * PART)
    create(behind, "before", data)
    proxy.inject(
        rewrite_answer(lambda whole: replace(whole, lines=whole.lines[:1], body=b"")),
        method,
        target,
    )
    asked = {"HEAD": partial(behind.stat, "before"), "GET": partial(read_all, behind, "before")}
    ask = asked.get(method, partial(create, behind, "parts", data))
    with pytest.raises(StoreError) as error:
        ask()
    assert error.value.transient
    assert read_all(behind, "before") == data


def test_what_is_not_s3_is_said_to_be_so(behind, proxy, impatient):
    proxy.inject(answer(200, {}, b"<!DOCTYPE html>Log in to the Wi-Fi"), "GET", times=1000)
    with pytest.raises(StoreError, match="not S3"):
        list(behind.children(""))


# What does not pass: refused once, in the user's words.


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (s3_error(403, "AccessDenied"), "belong to account 123456789012"),
        (s3_error(403, "InvalidAccessKeyId"), "does not accept the credentials"),
        (s3_error(403, "RequestTimeTooSkewed"), "clock is wrong"),
        (s3_error(404, "NoSuchBucket"), "no such bucket"),
        (s3_error(301, "PermanentRedirect", {"x-amz-bucket-region": "eu-west-1"}), "eu-west-1"),
        (
            s3_error(400, "AuthorizationHeaderMalformed", facts="<Region>eu-west-2</Region>"),
            "eu-west-2",
        ),
    ],
)
def test_a_refusal_says_what_is_wrong_and_is_not_repeated(behind, proxy, fault, words):
    proxy.inject(fault, "PUT", times=9)
    with pytest.raises(RefusedError, match=words) as error:
        create(behind, "k", b"data")
    assert proxy.count("PUT") == 1
    assert SECRET_KEY not in str(error.value)
    assert "Signature=" not in str(error.value)


def test_an_archived_object_is_not_called_denied(behind, proxy):
    create(behind, "k", b"data")
    proxy.inject(s3_error(403, "InvalidObjectState"), "GET", times=9)
    with pytest.raises(RefusedError, match="archived"):
        read_all(behind, "k")


def test_what_a_server_does_not_know_is_not_asked_for_again(behind, proxy):
    proxy.inject(s3_error(501, "NotImplemented"), "PUT", times=9)
    with pytest.raises(StoreError, match="NotImplemented") as error:
        create(behind, "k", b"data")
    assert not error.value.transient
    assert proxy.count("PUT") == 1


def test_a_head_that_is_refused_without_a_reason_is_explained(behind, proxy):
    proxy.inject(answer(400), "HEAD", times=9)
    proxy.inject(s3_error(400, "InvalidToken"), "GET", times=9)
    with pytest.raises(RefusedError, match="InvalidToken"):
        behind.stat("k")


def test_the_bucket_of_another_account_gets_no_byte(proxy, place):
    other = S3Objects(f"s3://{place}", account="999999999999", endpoint=proxy.endpoint)
    for attempt in (other.check, lambda: create(other, "k", bytes(2 << 20))):
        with pytest.raises(RefusedError, match="account 999999999999"):
            attempt()
    assert proxy.body_bytes() == 0
    assert not [seen for seen in proxy.requests if seen.passed]


def test_every_request_names_the_owner_and_every_write_its_condition(behind, proxy, small_parts):
    create(behind, "k", b"data")
    create(behind, "big", bytes(PART + 1))
    behind.stat("k", checksum=True)
    read_all(behind, "k")
    list(behind.children(""))
    list(behind.unfinished())
    behind.delete("k")
    assert {seen.headers.get("x-amz-expected-bucket-owner") for seen in proxy.requests} == {ACCOUNT}
    whole = proxy.matching("PUT", r"/k$") + proxy.matching("POST", "uploadId")
    assert [seen.headers["if-none-match"] for seen in whole] == ["*", "*"]
    checksums = [
        seen.headers.get("x-amz-checksum-sha256") or seen.headers.get("x-amz-checksum-crc32")
        for seen in proxy.matching("PUT")
    ]
    assert len(checksums) == 3
    assert all(checksums)


def test_a_missing_bucket_is_refused(seaweed):
    missing = S3Objects("s3://no-such-bucket/b", endpoint=seaweed.endpoint)
    with pytest.raises(RefusedError, match="no such bucket"):
        missing.check()
    with pytest.raises(RefusedError, match="no such bucket"):
        create(missing, "k", b"data")


def test_a_reader_may_not_write(seaweed, place, monkeypatch):
    create(S3Objects(f"s3://{place}", endpoint=seaweed.endpoint), "k", b"data")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAREADERREADERREAD")
    reader = S3Objects(f"s3://{place}", endpoint=seaweed.endpoint)
    reader.check()
    assert read_all(reader, "k") == b"data"
    with pytest.raises(RefusedError, match="s3:PutObject"):
        create(reader, "other", b"data")


def test_wrong_credentials_are_refused(seaweed, place, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    with pytest.raises(RefusedError, match="SignatureDoesNotMatch"):
        S3Objects(f"s3://{place}", endpoint=seaweed.endpoint).stat("k")


def test_no_credentials_are_one_clear_line(seaweed, place, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(RefusedError, match="no AWS credentials"):
        S3Objects(f"s3://{place}", endpoint=seaweed.endpoint).check()


def test_credentials_that_expire_are_looked_for_once_more(behind, proxy, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIASTALESTALESTALES")
    renewed = partial(monkeypatch.setenv, "AWS_ACCESS_KEY_ID", ACCESS_KEY)
    expired = proxy.inject(s3_error(400, "ExpiredToken"), "PUT", then=renewed)
    create(behind, "k", b"data")
    assert expired.fired == 1
    used = [seen.headers["authorization"] for seen in proxy.matching("PUT")]
    assert "AKIASTALE" in used[0]
    assert ACCESS_KEY in used[1]


def test_credentials_that_stay_expired_are_refused(behind, proxy):
    proxy.inject(s3_error(400, "ExpiredToken"), times=9)
    with pytest.raises(RefusedError, match="log in again"):
        create(behind, "k", b"data")
    assert proxy.count("PUT") == 2


@pytest.mark.parametrize(
    ("bucket", "region", "address"),
    [
        ("my-bucket", "us-east-1", "https://my-bucket.s3.us-east-1.amazonaws.com"),
        ("my-bucket", "eu-west-1", "https://my-bucket.s3.eu-west-1.amazonaws.com"),
        ("my.bucket", "eu-west-1", "https://s3.eu-west-1.amazonaws.com/my.bucket"),
        ("my-bucket", "cn-north-1", "https://my-bucket.s3.cn-north-1.amazonaws.com.cn"),
    ],
)
def test_a_bucket_is_reached_where_boto3_reaches_it(bucket, region, address):
    client = aws.session(None, region).client("s3", config=s3_session.client_config())
    assert s3_session.address_of(client, bucket) == address


@pytest.mark.parametrize("location", ["s3://", "s3://b", "file:x", "s3://user:secret@bucket-a/b"])
def test_what_is_no_bucket_is_said_before_work(location):
    with pytest.raises(ConfigError, match="address of a bucket") as error:
        S3Objects(location)
    assert "secret" not in str(error.value)


# Reading.


def test_a_read_that_is_cut_goes_on_from_the_byte_it_reached(behind, proxy):
    data = bytes(range(256)) * (4 << 12)
    create(behind, "k", data)
    proxy.inject(cut_answer(3 << 20), "GET")
    proxy.inject(cut_answer(100), "GET")
    assert read_all(behind, "k") == data
    ranges = [seen.headers.get("range") for seen in proxy.matching("GET")]
    assert ranges[0] is None
    reached = [int(text.removeprefix("bytes=").rstrip("-")) for text in ranges[1:]]
    assert reached == sorted(reached)
    assert reached[0] >= 1 << 20


def test_an_object_that_changes_while_it_is_read_is_noticed(behind, proxy):
    create(behind, "k", bytes(4 << 20))
    chunks = behind.read("k")
    proxy.inject(cut_answer(2 << 20), "GET")
    next(chunks)
    behind.replace("k", Inline(b"\1" * (4 << 20)), Digest.of(b"\1" * (4 << 20)), behind.stat("k"))
    with pytest.raises(StoreError, match="changed while") as error:
        b"".join(chunks)
    assert error.value.transient


def test_a_bit_that_flips_on_the_way_back_is_caught(behind, proxy):
    data = bytes(1000)
    blob = Descriptor("application/octet-stream", Digest.of(data), len(data))
    BundleStore(behind).put_blob(blob, Inline(data))
    proxy.inject(flip_answer(500), "GET")
    with pytest.raises(VerificationError):
        b"".join(BundleStore(behind).read_blob(blob))


def test_a_listing_is_complete_over_several_pages(moto_server, monkeypatch):
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "3")
    place = moto_server.new_place()
    objects = S3Objects(f"s3://{place}/deep/er", endpoint=moto_server.endpoint)
    names = [f"{number:04}/ä +&%" for number in range(10)]
    for name in names:
        create(objects, name, b"")
    create(S3Objects(f"s3://{place}", endpoint=moto_server.endpoint), "deep/error", b"")
    assert list(objects.keys("")) == names
    assert list(objects.children("")) == [name.partition("/")[0] for name in names]
    assert list(objects.children("0000/")) == ["ä +&%"]


# Parts.


def patterned(size_bytes):
    return random.Random(0).randbytes(size_bytes)


class Rereadable(Inline):
    """Content that other bytes are read from, from a given time on."""

    def __init__(self, data, other, after):
        super().__init__(data)
        self.other, self.left = other, after

    def chunks(self, start=0, stop=None):
        self.left -= 1
        yield from Inline(self.other if self.left < 0 else self.data).chunks(start, stop)


def test_a_large_object_is_sent_in_parts_and_known_by_its_digest(behind, proxy, small_parts):
    data, heard = patterned(2 * PART + 7), []
    create(behind, "big", data, progress=heard.append)
    assert proxy.count("PUT", "partNumber=") == 3
    assert read_all(behind, "big") == data
    assert behind.stat("big", checksum=True).sha256 == Digest.of(data)
    assert sum(heard) == len(data)
    with pytest.raises(KeyTaken):
        create(behind, "big", data, progress=heard.append)
    assert sum(heard) == len(data)
    assert list(behind.unfinished()) == []


def test_parts_that_are_known_to_be_right_are_not_hashed_again(behind, proxy, small_parts):
    data = patterned(2 * PART)
    content = Inline(data)
    content.part_crc32s = [s3_parts.crc32_of(content, start, start + PART) for start in (0, PART)]
    reads = []
    content.chunks = lambda *range: reads.append(range) or Inline.chunks(content, *range)
    behind.create("big", content, Digest.of(data))
    assert sorted(reads) == [(0, PART), (PART, 2 * PART)]
    content.part_crc32s = content.part_crc32s[::-1]
    with pytest.raises(VerificationError):
        behind.create("other", content, Digest.of(data))
    assert behind.stat("other") is None


def test_a_cut_in_the_middle_sends_only_the_missing_part_again(behind, proxy, small_parts):
    data = patterned(6 * PART)
    fault = proxy.inject(cut_body(PART // 2), "PUT", "partNumber=3&")
    create(behind, "big", data)
    assert fault.fired == 1
    assert proxy.body_bytes("PUT") == 6 * PART + PART // 2
    assert read_all(behind, "big") == data


@pytest.mark.parametrize(
    "fault",
    [lose_answer, answer(503), cut, flip_body(9)],
    ids=["lost", "503", "cut", "flipped"],
)
@pytest.mark.parametrize(
    ("method", "target"), [("PUT", "partNumber=2&"), ("POST", "uploads"), ("POST", "uploadId=")]
)
def test_each_request_of_an_upload_in_parts_may_fail(
    behind, proxy, small_parts, method, target, fault
):
    data = patterned(2 * PART + 1)
    injected = proxy.inject(fault, method, target)
    create(behind, "big", data)
    assert injected.fired == 1
    assert read_all(behind, "big") == data


def test_many_creators_of_one_blob_in_parts_leave_it_whole_and_nothing_else(
    seaweed,
    place,
    small_parts,
):
    # Exactly one may succeed on S3; SeaweedFS lets several, and their bytes are the same.
    objects = S3Objects(f"s3://{place}", endpoint=seaweed.endpoint)
    data, barrier = patterned(PART + 1), threading.Barrier(4)

    def race(_):
        barrier.wait()
        try:
            create(objects, "raced", data)
        except KeyTaken:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert any(pool.map(race, range(4)))
    assert read_all(objects, "raced") == data
    assert list(objects.unfinished()) == []


@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_content_that_changes_while_it_is_sent_makes_no_object(behind, small_parts, after):
    data = patterned(2 * PART)
    content = Rereadable(data, data[:-1] + b"!", after)
    with pytest.raises(VerificationError):
        behind.create("big", content, Digest.of(data))
    assert behind.stat("big") is None
    assert list(behind.unfinished()) == []


def test_a_part_that_is_refused_stops_and_removes_the_others(behind, proxy, small_parts):
    proxy.inject(s3_error(403, "AccessDenied"), "PUT", "partNumber=2&", times=9)
    with pytest.raises(RefusedError):
        create(behind, "big", patterned(8 * PART))
    assert behind.stat("big") is None
    assert list(behind.unfinished()) == []


def test_a_caller_that_stops_leaves_nothing(behind, small_parts):
    class Enough(Exception):
        pass

    def heard(size_bytes):
        raise Enough

    for size_bytes in (1000, 2 * PART):
        with pytest.raises(Enough):
            create(behind, "k", patterned(size_bytes), progress=heard)
    assert list(behind.keys("")) == []
    assert list(behind.unfinished()) == []


def test_parts_of_a_killed_writer_are_listed_and_can_be_thrown_away(behind, seaweed, place):
    bucket, prefix = place.split("/")
    seaweed.client().create_multipart_upload(Bucket=bucket, Key=f"{prefix}/blobs/x")
    [left] = behind.unfinished()
    assert left.key == f"{prefix}/blobs/x"
    behind.abort(left)
    behind.abort(left)
    assert list(behind.unfinished()) == []


def test_parts_grow_where_there_would_be_too_many():
    assert s3_parts.part_size_bytes(1 << 30) == 64 << 20
    assert s3_parts.part_size_bytes((64 << 20) * 10_000) == 64 << 20
    assert s3_parts.part_size_bytes((64 << 20) * 10_000 + 1) == 128 << 20


# What it costs.

MEMORY = """
import hashlib, resource, sys
from adroit_publish.bundle.digest import Digest
from adroit_publish.stores.s3.objects import S3Objects
class Zeros:
    size_bytes = 1 << 30
    def chunks(self, start=0, stop=None):
        block = bytes(1 << 20)
        at = start
        stop = self.size_bytes if stop is None else stop
        while at < stop:
            yield memoryview(block)[: min(len(block), stop - at)]
            at += len(block)
hasher = hashlib.sha256()
for chunk in Zeros().chunks():
    hasher.update(chunk)
objects = S3Objects("s3://bucket/b", endpoint=sys.argv[1])
objects.stat("k")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
objects.create("k", Zeros(), Digest("sha256:" + hasher.hexdigest()))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_large_put_needs_little_memory(proxy):
    started = b"<R><UploadId>u</UploadId></R>"
    proxy.inject(answer(404), "HEAD")
    proxy.inject(answer(200, {}, started), "POST", "uploads")
    proxy.inject(answer(200, {"ETag": '"e"'}), "PUT", times=16)
    proxy.inject(answer(200, {}, b"<R></R>"), "POST", "uploadId=")
    run = subprocess.run(
        [sys.executable, "-c", MEMORY, proxy.endpoint], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert proxy.body_bytes("PUT") == 1 << 30
    assert int(run.stdout) < 32 << 10  # KiB


def test_boto3_is_not_imported_before_it_is_needed():
    script = (
        "import sys, adroit_publish.stores.s3.objects as s; s.S3Objects('s3://abc'); "
        "print(*sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"boto3", "botocore", "urllib3"} & set(run.stdout.split())


# Sessions.


def test_the_callers_account_is_what_sts_says(moto_server, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_server.endpoint)
    assert aws.caller_account(aws.session(None)) == ACCOUNT


def test_an_account_that_cannot_be_asked_for_is_an_error_of_ours(proxy, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    expired = b"<ErrorResponse><Error><Code>ExpiredToken</Code></Error></ErrorResponse>"
    proxy.inject(answer(403, {}, expired))
    with pytest.raises(RefusedError, match="expired"):
        aws.caller_account(aws.session(None))
    proxy.inject(cut, times=9)
    with pytest.raises(StoreError) as error:
        aws.caller_account(aws.session(None))
    assert error.value.transient
    with pytest.raises(ConfigError, match="nobody"):
        aws.session("nobody")
    assert isinstance(error.value, PublishError)
