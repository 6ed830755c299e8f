"""A pull that is killed, and one whose disk fills up, go on from what has arrived."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from adroit_publish.artifacts import s3 as s3_artifacts
from adroit_publish.artifacts.pull import open_root, pull_model
from adroit_publish.errors import StoreError
from tests.artifacts.test_artifacts import model_at
from tests.servers.fault_proxy import FaultProxy, stall
from tests.servers.object_servers import ACCESS_KEY, SECRET_KEY, SHARED_BUCKET, seaweed
from tests.support.requirements import require

__all__ = ["seaweed"]

MIB = 1 << 20
FILES = {"MLmodel": b"flavors: {}\n", "big.bin": random.Random(2).randbytes(12 * MIB)}
PULL = """
import pickle, sys
from pathlib import Path
from adroit_publish.artifacts import s3 as s3_artifacts
from adroit_publish.artifacts.pull import pull_model
s3_artifacts.PIECE_BYTES = 1 << 20
pull_model(pickle.loads(Path(sys.argv[1]).read_bytes()), Path(sys.argv[2]))
"""


@pytest.fixture
def model(seaweed, monkeypatch):
    """A model in S3, cut into pieces of 1 MiB when it is pulled."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", seaweed.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr(s3_artifacts, "PIECE_BYTES", MIB)
    place = seaweed.new_place()
    for path, data in FILES.items():
        key = f"{place.partition('/')[2]}/{path}"
        seaweed.client().put_object(Bucket=SHARED_BUCKET, Key=key, Body=data)
    found = model_at(f"s3://{place}")
    return replace(found, files=open_root(found.artifact_uri).list_files())


def contents(pulled):
    return {path: Path(file.path).read_bytes() for path, file in pulled.files.items()}


def test_a_pull_that_is_killed_goes_on_with_the_pieces_it_has_not(
    model, seaweed, tmp_path, monkeypatch
):
    import pickle

    (tmp_path / "model").write_bytes(pickle.dumps(model))
    cache = tmp_path / "cache"
    with FaultProxy(seaweed.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
        stalled = proxy.inject(stall, "GET", "big.bin", times=99, skip=5)
        child = subprocess.Popen([sys.executable, "-c", PULL, tmp_path / "model", cache])
        try:
            wait_until(lambda: len(list(cache.glob("*/parts/*.done"))) == 5 and stalled.fired)
        finally:
            child.kill()
            child.wait()
    with FaultProxy(seaweed.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
        pulled = pull_model(model, cache)
        asked = proxy.count("GET", "big.bin")
    assert contents(pulled) == FILES
    assert asked == 7
    assert pulled.bytes_cached >= 5 * MIB
    assert not list(cache.glob("*/parts/*"))


def wait_until(condition, timeout_s=60):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@contextmanager
def small_disk(directory, size):
    """A file system of its own, as large as ``size`` says."""
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    require(done.returncode == 0, f"a tmpfs cannot be mounted: {done.stderr.strip()}")
    try:
        yield directory
    finally:
        subprocess.run(["umount", str(directory)], check=True)


def test_a_disk_that_fills_up_in_the_middle_is_one_message_and_what_arrived_is_kept(
    model, tmp_path
):
    with small_disk(tmp_path / "disk", "20m") as disk:
        seen = []

        def fill_up(size_bytes):
            seen.append(size_bytes)
            if sum(seen) > 4 * MIB and not (disk / "filler").exists():
                fill(disk / "filler")

        with pytest.raises(StoreError, match="disk is full") as full:
            pull_model(model, disk / "cache", progress=fill_up)
        assert full.value.exit_code == 5
        assert "free some space" in full.value.next_step
        assert not list(disk.glob("cache/*/files/**/big.bin"))

        (disk / "filler").unlink()
        pulled = pull_model(model, disk / "cache")
        assert contents(pulled) == FILES
        assert pulled.bytes_cached > 0


def fill(file):
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT)
    try:
        while True:
            os.write(descriptor, bytes(1 << 16))
    except OSError:
        pass
    finally:
        os.close(descriptor)


def test_a_disk_that_is_too_small_is_told_before_the_first_byte(model, tmp_path):
    seen = []
    with small_disk(tmp_path / "disk", "4m") as disk:
        with pytest.raises(StoreError, match="no room"):
            pull_model(model, disk / "cache", progress=seen.append)
        assert sum(seen) == 0
