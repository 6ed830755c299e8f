from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from adroit_publish.bundle.content import Inline
from adroit_publish.bundle.digest import Descriptor, Digest
from adroit_publish.errors import RefusedError, StoreError
from adroit_publish.stores.bundle_store import BundleStore
from adroit_publish.stores.directory import DirectoryObjects
from tests.support.objects_contract import *  # noqa: F403
from tests.support.objects_contract import create, read_all
from tests.support.requirements import require


@pytest.fixture
def objects(tmp_path):
    return DirectoryObjects(tmp_path / "store")


def test_the_temporary_of_a_killed_writer_is_removed_by_the_next_one(tmp_path):
    root = tmp_path / "store"
    script = """
import os, signal, sys
from pathlib import Path
from adroit_publish.bundle.digest import Digest
from adroit_publish.stores.directory import DirectoryObjects
class Killed:
    size_bytes = 2 << 20
    def chunks(self, start=0, stop=None):
        yield bytes(1 << 20)
        os.kill(os.getpid(), signal.SIGKILL)
DirectoryObjects(Path(sys.argv[1])).create("k", Killed(), Digest("sha256:" + "0" * 64))
"""
    killed = subprocess.run([sys.executable, "-c", script, str(root)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(os.listdir(root / "tmp")) == 1
    create(DirectoryObjects(root), "k", b"data")
    assert os.listdir(root / "tmp") == []


def test_a_living_writer_keeps_its_temporary(tmp_path):
    root = tmp_path / "store"

    class Nested:
        size_bytes = 4

        def chunks(self, start=0, stop=None):
            yield b"ab"
            create(DirectoryObjects(root), "other", b"x")
            yield b"cd"

    DirectoryObjects(root).create("k", Nested(), Digest.of(b"abcd"))
    assert read_all(DirectoryObjects(root), "k") == b"abcd"


def test_a_rotted_blob_is_healed_by_putting_it_again(tmp_path):
    objects = DirectoryObjects(tmp_path / "store")
    store = BundleStore(objects)
    data = bytes(100_000)
    blob = Descriptor("application/octet-stream", Digest.of(data), len(data))
    assert store.put_blob(blob, Inline(data)) is True
    assert store.put_blob(blob, Inline(data)) is False
    path = objects.path_of(f"blobs/sha256/{blob.digest.hex}")
    path.chmod(0o644)
    path.write_bytes(data[:-1] + b"\x01")
    assert store.put_blob(blob, Inline(data)) is True
    assert path.read_bytes() == data


def test_a_full_disk_is_one_clear_line_and_leaves_nothing(tmp_path):
    require(os.geteuid() == 0, "mounting a small file system needs root")
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", small], capture_output=True, check=False
    )
    require(mounted.returncode == 0, f"cannot mount: {mounted.stderr.decode()}")
    try:
        objects = DirectoryObjects(small / "store")
        with pytest.raises(StoreError, match="no room left"):
            create(objects, "big", bytes(8 << 20))
        assert list(objects.keys("")) == []
        assert os.listdir(small / "store" / "tmp") == []
        create(objects, "small", b"fits")
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_directory_that_may_not_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises((RefusedError, StoreError), match="file"):
        create(DirectoryObjects(tmp_path / "file" / "store"), "k", b"")
