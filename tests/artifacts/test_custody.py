"""Bytes are believed for their digest, not for their length: on the way, at rest, after a kill."""

from __future__ import annotations

import base64
import hashlib
import os
import pickle
import random
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import requests

from adroit_publish.artifacts import cache as cache_module
from adroit_publish.artifacts import databricks as databricks_artifacts
from adroit_publish.artifacts import s3 as s3_artifacts
from adroit_publish.artifacts.arrival.seal import BY_DIGEST, BY_LENGTH, IN_PLACE, TWICE
from adroit_publish.artifacts.pull import open_root, pull_model
from adroit_publish.errors import PublishError, SourceError, VerificationError
from adroit_publish.mlflow.model import resolve_model
from tests.artifacts.test_artifacts import contents, model_at
from tests.artifacts.test_pull_faults import wait_until
from tests.servers.fake_databricks import TOKEN, FakeDatabricks
from tests.servers.fault_proxy import FaultProxy, cut_answer, flip_answer, rewrite_answer, stall
from tests.servers.mlflow_servers import RUN_ID, HostileServer, log_model, send
from tests.servers.object_servers import ACCESS_KEY, SECRET_KEY, SHARED_BUCKET, seaweed
from tests.support.power import disk

__all__ = ["seaweed"]
pytest_plugins = ["tests.servers.mlflow_servers"]

MIB = 1 << 20
OLD = random.Random(1).randbytes(3 * MIB)
NEW = random.Random(2).randbytes(3 * MIB)
PULL = """
import pickle, sys
from pathlib import Path
from adroit_publish.artifacts import databricks, s3
from adroit_publish.artifacts.pull import pull_model
s3.PIECE_BYTES = databricks.PIECE_BYTES = 1 << 20
pull_model(pickle.loads(Path(sys.argv[1]).read_bytes()), Path(sys.argv[2]))
"""


class TrackingServer:
    """A model behind a real tracking server, seen through a proxy."""

    target = "weights.bin"

    def __init__(self, url):
        self.model_url = None
        self.url = url
        self.run_id, _ = log_model(url, None, "model")
        self.model_url = resolve_model(url, self.run_id, None).artifact_uri

    def put(self, files):
        for path, data in files.items():
            requests.put(f"{self.model_url}/{path}", data=data, timeout=30).raise_for_status()

    def model(self, endpoint):
        # The proxy's port changes from pull to pull; the cache is of one model all the same.
        return replace(resolve_model(endpoint, self.run_id, None), cache_key="key")

    @property
    def upstream(self):
        return self.url


class S3Place:
    """A model in a bucket of a real object store."""

    def __init__(self, server, monkeypatch):
        self._server, self._monkeypatch = server, monkeypatch
        self._place = server.new_place()
        self.put({"MLmodel": b"flavors: {}\n"})

    def put(self, files):
        prefix = self._place.partition("/")[2]
        for path, data in files.items():
            self._server.client().put_object(
                Bucket=SHARED_BUCKET, Key=f"{prefix}/{path}", Body=data
            )

    def model(self, endpoint):
        self._monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
        found = model_at(f"s3://{self._place}")
        return replace(found, files=open_root(found.artifact_uri).list_files())

    @property
    def upstream(self):
        return self._server.endpoint


@pytest.fixture(params=["tracking server", "s3"])
def place(request, monkeypatch):
    """Where a model is, and a way to change it there."""
    if request.param == "tracking server":
        return TrackingServer(request.getfixturevalue("proxied_server"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr(s3_artifacts, "PIECE_BYTES", MIB)
    return S3Place(request.getfixturevalue("seaweed"), monkeypatch)


def killed_pull(model, directory, is_far_enough):
    """Pulls in a process of its own and kills it; returns the cache."""
    (directory / "model").write_bytes(pickle.dumps(model))
    cache = directory / "cache"
    child = subprocess.Popen([sys.executable, "-c", PULL, directory / "model", cache])
    try:
        wait_until(lambda: is_far_enough(cache))
    finally:
        child.kill()
        child.wait()
    return cache


def test_a_file_replaced_between_a_kill_and_the_next_pull_is_never_mixed(place, tmp_path):
    place.put({"weights.bin": OLD})
    with FaultProxy(place.upstream) as proxy:
        model = place.model(proxy.endpoint)
        # The tracking server's one stream breaks and stalls; of S3's pieces one arrives.
        proxy.inject(cut_answer(1_500_000), "GET", "weights.bin", times=1)
        stalled = proxy.inject(stall, "GET", "weights.bin", times=99)
        cache = killed_pull(
            model, tmp_path, lambda cache: stalled.fired and list(cache.glob("*/parts/*.part"))
        )
    place.put({"weights.bin": NEW})
    pulled = pull_model(place.model(place.upstream), cache)
    assert contents(pulled)["weights.bin"] == NEW


def test_a_model_replaced_between_a_kill_and_the_next_pull_is_never_mixed(place, tmp_path):
    """Files that had arrived whole are of the old model too."""
    place.put({"first.bin": OLD[:MIB], "second.bin": OLD[MIB:]})
    with FaultProxy(place.upstream) as proxy:
        stalled = proxy.inject(stall, "GET", "second.bin", times=99)
        cache = killed_pull(
            place.model(proxy.endpoint),
            tmp_path,
            lambda cache: stalled.fired and list(cache.glob("*/files/first.bin")),
        )
    place.put({"first.bin": NEW[:MIB], "second.bin": NEW[MIB:]})
    pulled = contents(pull_model(place.model(place.upstream), cache))
    assert pulled["first.bin"] + pulled["second.bin"] == NEW


def test_a_download_that_was_killed_goes_on_where_the_file_is_the_same(place, one_stream, tmp_path):
    place.put({"weights.bin": OLD})
    with FaultProxy(place.upstream) as proxy:
        broken = proxy.inject(cut_answer(MIB - 7), "GET", "weights.bin", times=1, skip=1)
        model = place.model(proxy.endpoint)
        with pytest.raises(KeyboardInterrupt):
            pull_model(model, tmp_path, progress=interrupted_after(2 * MIB))
        pulled = pull_model(model, tmp_path)
    assert contents(pulled)["weights.bin"] == OLD
    assert pulled.bytes_cached > MIB
    assert broken.fired <= 1


@pytest.fixture
def one_stream(monkeypatch):
    """Pieces come one after the other: after two MiB and a byte, two whole ones are here."""
    monkeypatch.setattr(cache_module, "THREADS", 1)


def interrupted_after(size_bytes):
    seen = []

    def progress(count):
        seen.append(count)
        if sum(seen) > size_bytes:
            raise KeyboardInterrupt

    return progress


@pytest.mark.parametrize("at_byte", [0, 12345, 3 * MIB - 1])
def test_a_flipped_bit_on_the_way_is_never_taken_for_the_file(place, tmp_path, at_byte):
    place.put({"weights.bin": OLD})
    with FaultProxy(place.upstream) as proxy:
        fault = proxy.inject(flip_answer(min(at_byte, MIB - 1)), "GET", "weights.bin")
        pulled = pull_model(place.model(proxy.endpoint), tmp_path)
    assert fault.fired == 1
    assert contents(pulled)["weights.bin"] == OLD
    assert pulled.vouched["weights.bin"] == (BY_DIGEST if isinstance(place, S3Place) else TWICE)


@pytest.mark.parametrize("place", ["s3"], indirect=True)
def test_a_store_whose_bytes_are_never_those_it_states_is_refused(place, tmp_path):
    place.put({"weights.bin": OLD[:1000]})
    with FaultProxy(place.upstream) as proxy:
        model = place.model(proxy.endpoint)
        proxy.inject(flip_answer(5), "GET", "weights.bin", times=99)
        with pytest.raises(SourceError):
            pull_model(model, tmp_path, give_up_after_s=2)
    assert not list(tmp_path.glob("*/files/weights.bin"))


@pytest.mark.parametrize("keeps_mtime", [False, True])
def test_a_byte_that_flips_in_the_cache_is_never_published(place, tmp_path, keeps_mtime):
    place.put({"weights.bin": OLD})
    model = place.model(place.upstream)
    pull_model(model, tmp_path)
    (cached,) = tmp_path.glob("*/files/weights.bin")
    status = cached.stat()
    with cached.open("r+b") as stream:
        stream.seek(MIB)
        stream.write(bytes([OLD[MIB] ^ 1]))
    if keeps_mtime:  # a disk that rots tells nobody
        os.utime(cached, ns=(status.st_atime_ns, status.st_mtime_ns))
        with pytest.raises(VerificationError, match="not what was downloaded") as wrong:
            contents(pull_model(model, tmp_path))
        assert "run the same command again" in wrong.value.next_step
    assert contents(pull_model(model, tmp_path))["weights.bin"] == OLD


def test_what_a_program_before_seals_left_in_the_cache_is_not_believed(place, tmp_path):
    place.put({"weights.bin": NEW})
    model = place.model(place.upstream)
    (tmp_path / "key/files").mkdir(parents=True)
    (tmp_path / "key/parts").mkdir(parents=True)
    (tmp_path / "key/files/weights.bin").write_bytes(OLD)
    assert contents(pull_model(model, tmp_path))["weights.bin"] == NEW


def test_marks_that_lie_about_their_stretch_are_not_believed(place, one_stream, tmp_path):
    place.put({"weights.bin": OLD})
    model = place.model(place.upstream)
    with pytest.raises(KeyboardInterrupt):
        pull_model(model, tmp_path, progress=interrupted_after(2 * MIB))
    (part,) = [part for part in tmp_path.glob("*/parts/*.part") if part.stat().st_size > MIB]
    with part.open("r+b") as stream:  # what a power cut makes of bytes that were not synced
        stream.write(bytes(MIB))
    assert contents(pull_model(model, tmp_path))["weights.bin"] == OLD


def test_a_mark_is_written_once_its_stretch_is_on_the_disk(
    place, one_stream, tmp_path, monkeypatch
):
    place.put({"weights.bin": OLD})
    events = []
    real_sync, real_write = os.fdatasync, Path.write_text

    def sync(descriptor):
        real_sync(descriptor)
        events.append(("synced", os.fstat(descriptor).st_ino))

    def write_text(path, *arguments, **options):
        if path.parent.name == "parts":
            part = path.with_name(path.name.partition(".")[0] + ".part")
            events.append(("marked", part.stat().st_ino))
        return real_write(path, *arguments, **options)

    monkeypatch.setattr(os, "fdatasync", sync)
    monkeypatch.setattr(Path, "write_text", write_text)
    with pytest.raises(KeyboardInterrupt):
        pull_model(place.model(place.upstream), tmp_path, progress=interrupted_after(2 * MIB))
    marked = [inode for kind, inode in events if kind == "marked"]
    assert marked
    for index, (kind, inode) in enumerate(events):
        assert kind == "synced" or ("synced", inode) in events[:index]


def test_a_power_cut_never_makes_zeros_of_a_model(place, tmp_path):
    place.put({"weights.bin": OLD, "small.bin": OLD[:99]})
    with disk(tmp_path / "disk", "ext4") as cache_disk:
        model = place.model(place.upstream)
        with pytest.raises(KeyboardInterrupt):
            pull_model(model, cache_disk.root, progress=interrupted_after(2 * MIB))
        cache_disk.cut_power()
        cache_disk.restart()
        assert contents(pull_model(model, cache_disk.root))["weights.bin"] == OLD
        cache_disk.cut_power()
        cache_disk.restart()
        pulled = contents(pull_model(model, cache_disk.root))
    assert (pulled["weights.bin"], pulled["small.bin"]) == (OLD, OLD[:99])


# Where nothing vouches


def test_a_file_too_large_to_be_fetched_twice_is_noted_as_vouched_for_by_its_length(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("adroit_publish.artifacts.cache.TWICE_BYTES", 1000)
    server = HostileServer(files={"MLmodel": b"x", "big.bin": OLD})
    with server.running():
        pulled = pull_model(resolve_model(server.url, RUN_ID, None), tmp_path)
    assert pulled.vouched == {"MLmodel": TWICE, "big.bin": BY_LENGTH}
    asked = [path.rpartition("/")[2] for path, _ in server.requests]
    assert (asked.count("MLmodel"), asked.count("big.bin")) == (2, 1)


def test_a_server_that_tells_nothing_of_its_files_is_asked_for_small_ones_at_each_pull(tmp_path):
    server = HostileServer(files={"MLmodel": b"old", "data.bin": b"same"})
    with server.running():
        model = resolve_model(server.url, RUN_ID, None)
        assert contents(pull_model(model, tmp_path))["MLmodel"] == b"old"
        server.files["MLmodel"] = b"new"
        pulled = pull_model(model, tmp_path)
    assert contents(pulled) == {"MLmodel": b"new", "data.bin": b"same"}


@pytest.mark.parametrize("place", ["tracking server", "s3"], indirect=True)
def test_small_files_are_fetched_once_where_the_store_states_their_digest_and_else_twice(
    place, tmp_path
):
    files = {f"data/{number}.bin": OLD[number : number + 999] for number in range(20)}
    place.put(files)
    with FaultProxy(place.upstream) as proxy:
        pulled = pull_model(place.model(proxy.endpoint), tmp_path)
        asked = {path: proxy.count("GET", rf"/{path}(\?|$)") for path in pulled.files}
        assert asked == dict.fromkeys(asked, 1 if isinstance(place, S3Place) else 2)
        assert files.keys() < asked.keys()
        proxy.requests.clear()
        pull_model(place.model(proxy.endpoint), tmp_path)
        again = sum(proxy.count("GET", rf"/{path}(\?|$)") for path in pulled.files)
        assert again == (0 if isinstance(place, S3Place) else len(asked))


def test_an_answer_whose_headers_were_cut_is_fetched_again_or_an_error(place, tmp_path):
    place.put({"weights.bin": OLD})
    with FaultProxy(place.upstream) as proxy:
        model = place.model(proxy.endpoint)
        without_headers = rewrite_answer(lambda whole: replace(whole, lines=whole.lines[:1]))
        proxy.inject(without_headers, "GET", "weights.bin")
        with suppress(PublishError):
            assert contents(pull_model(model, tmp_path))["weights.bin"] == OLD
        assert contents(pull_model(model, tmp_path))["weights.bin"] == OLD


def test_a_file_of_this_machine_is_in_place(tmp_path):
    (tmp_path / "MLmodel").write_bytes(b"1234")
    pulled = pull_model(model_at(tmp_path.as_uri(), MLmodel=4), tmp_path / "cache")
    assert pulled.vouched == {"MLmodel": IN_PLACE}


# Objects that were uploaded in parts, and by other clients


def upload_in_parts(client, key, data, part_bytes):
    made = client.create_multipart_upload(Bucket=SHARED_BUCKET, Key=key)
    common = {"Bucket": SHARED_BUCKET, "Key": key, "UploadId": made["UploadId"]}
    parts = []
    for number, start in enumerate(range(0, len(data), part_bytes), 1):
        sent = client.upload_part(
            **common, PartNumber=number, Body=data[start : start + part_bytes]
        )
        parts.append({"PartNumber": number, "ETag": sent["ETag"]})
    client.complete_multipart_upload(**common, MultipartUpload={"Parts": parts})


@pytest.mark.parametrize("part_mib", [5, 7, 8])
def test_an_object_uploaded_in_parts_is_held_to_its_etag(seaweed, tmp_path, monkeypatch, part_mib):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr(s3_artifacts, "PIECE_BYTES", 4 * MIB)
    monkeypatch.setattr("adroit_publish.artifacts.cache.TWICE_BYTES", 1000)
    place = S3Place(seaweed, monkeypatch)
    data = random.Random(4).randbytes(18 * MIB)
    prefix = place._place.partition("/")[2]
    upload_in_parts(seaweed.client(), f"{prefix}/weights.bin", data, part_mib * MIB)
    with FaultProxy(place.upstream) as proxy:
        model = place.model(proxy.endpoint)
        assert {file.path: file.tag for file in model.files}["weights.bin"][-3] == "-"
        fault = proxy.inject(flip_answer(77), "GET", "weights.bin", skip=2)
        pulled = pull_model(model, tmp_path)
    assert fault.fired == 1
    assert contents(pulled)["weights.bin"] == data
    assert pulled.vouched["weights.bin"] in (BY_DIGEST, TWICE)


# Databricks


@pytest.fixture
def log_in(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(databricks_artifacts, "PIECE_BYTES", MIB)

    def to(workspace):
        monkeypatch.setenv("DATABRICKS_HOST", workspace.url)
        monkeypatch.setenv("DATABRICKS_TOKEN", TOKEN)

    return to


@pytest.mark.parametrize("kind", ["run", "model", "volume"])
def test_databricks_files_replaced_after_an_interrupted_pull_are_never_mixed(
    tmp_path, log_in, kind
):
    files = {"MLmodel": b"flavors: {}\n", "first.bin": OLD[:1000], "weights.bin": OLD}
    with FakeDatabricks(kind=kind, files=dict(files)).running() as workspace:
        log_in(workspace)
        model = resolve_model("databricks", RUN_ID, None)
        with pytest.raises(KeyboardInterrupt):
            pull_model(model, tmp_path / "cache", progress=interrupted_after(2 * MIB))
        workspace.files |= {"first.bin": NEW[:1000], "weights.bin": NEW}
        pulled = pull_model(model, tmp_path / "cache")
    assert contents(pulled) == workspace.files


@pytest.mark.parametrize("kind", ["run", "model", "volume"])
def test_a_flipped_bit_from_databricks_is_never_taken_for_the_file(tmp_path, log_in, kind):
    files = {"MLmodel": b"flavors: {}\n", "weights.bin": OLD}
    fake = FakeDatabricks(kind=kind, files=files)
    with fake.running() as workspace:
        side = workspace.url if kind == "volume" else workspace.storage
        with FaultProxy(side) as proxy:
            if kind == "volume":
                workspace.url = proxy.endpoint
            else:
                workspace.storage = proxy.endpoint
            log_in(workspace)
            fault = proxy.inject(flip_answer(MIB // 2), "GET", "weights.bin")
            pulled = pull_model(resolve_model("databricks", RUN_ID, None), tmp_path / "cache")
    assert fault.fired == 1
    assert contents(pulled) == files


@pytest.mark.parametrize(
    "headers",
    [
        {"x_ms_blob_content_md5": "MD5"},
        {"x_goog_hash": "crc32c=AAAAAA==,md5=MD5"},
    ],
)
def test_the_digest_of_azure_and_google_is_compared(tmp_path, log_in, headers):
    data = b"weights"
    md5 = base64.b64encode(hashlib.md5(data).digest()).decode()
    stated = {name: value.replace("MD5", md5) for name, value in headers.items()}
    answers = [b"weighty", b"weights"]

    def spoil(asked, handler):
        if not asked.path.endswith("weights.bin"):
            return False
        if "if-none-match" in asked.headers:
            send(handler, 304, b"", ETag='"0x8D"')
        else:
            send(handler, 200, answers.pop(0), "x/y", ETag='"0x8D"', **stated)
        return True

    files = {"MLmodel": b"flavors: {}\n", "weights.bin": data}
    with FakeDatabricks(files=files, spoil_storage=spoil).running() as workspace:
        log_in(workspace)
        pulled = pull_model(resolve_model("databricks", RUN_ID, None), tmp_path / "cache")
    assert contents(pulled) == files
    assert pulled.vouched["weights.bin"] == BY_DIGEST
    assert not answers
