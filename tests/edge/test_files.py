from __future__ import annotations

import os
import socket

import pytest

from adroit_publish.edge.files import locked, read_file
from adroit_publish.errors import RefusedError


def replaced(path, data):
    with locked(path) as file:
        return file.replace(data, seen=file.read())


def test_a_file_is_replaced_as_a_whole_and_keeps_its_mode(tmp_path):
    path = tmp_path / "f"
    assert replaced(path, b"one")
    path.chmod(0o640)
    assert replaced(path, b"two")
    assert read_file(path) == b"two"
    assert path.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["f"]


def test_a_writer_without_the_lock_is_not_overwritten(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"one")
    with locked(path) as file:
        seen = file.read()
        path.write_bytes(b"an editor's")
        assert not file.replace(b"two", seen=seen)
        path.unlink()
        assert not file.replace(b"two", seen=seen)
    assert os.listdir(tmp_path) == []


def test_a_file_that_begins_as_the_one_that_was_seen_is_another(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"one")
    with locked(path) as file:
        seen = file.read()
        path.write_bytes(b"one and more")
        assert not file.replace(b"two", seen=seen)
    assert path.read_bytes() == b"one and more"


@pytest.mark.parametrize("kind", ["directory", "pipe", "socket", "device", "link to a device"])
def test_what_is_not_a_regular_file_is_refused_unread_and_left_alone(tmp_path, kind):
    path = tmp_path / "f"
    listener = socket.socket(socket.AF_UNIX)
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        listener.bind(str(path))
    elif kind == "device":
        path = type(path)("/dev/null")
    else:
        path.symlink_to("/dev/zero")
    before = path.lstat()
    with pytest.raises(RefusedError, match="regular file"):
        replaced(path, b"data")
    with pytest.raises(RefusedError, match="regular file"):
        read_file(path)
    assert (path.lstat().st_ino, path.lstat().st_mode) == (before.st_ino, before.st_mode)
    listener.close()


def test_something_that_takes_the_files_place_under_the_lock_is_not_replaced(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"one")
    with locked(path) as file:
        seen = file.read()
        path.unlink()
        path.mkdir()
        with pytest.raises(RefusedError, match="a directory"):
            file.replace(b"two", seen=seen)
    assert os.listdir(tmp_path) == ["f"]
