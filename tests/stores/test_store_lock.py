"""The lock in a store, over a directory and over a real S3 server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from adroit_publish.bundle.content import Inline
from adroit_publish.bundle.digest import Digest
from adroit_publish.errors import RefusedError, VerificationError
from adroit_publish.stores.directory import DirectoryObjects
from adroit_publish.stores.lock import HOLD_S, SKEW_S, hold
from adroit_publish.stores.s3.objects import S3Objects
from tests.servers.object_servers import ACCESS_KEY, SECRET_KEY

pytest_plugins = ["tests.servers.object_servers"]
KEY = "sitevars/m/lock"


@pytest.fixture(params=["directory", "seaweed"])
def objects(request, tmp_path, monkeypatch):
    if request.param == "directory":
        return DirectoryObjects(tmp_path / "store")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    server = request.getfixturevalue("seaweed")
    return S3Objects(f"s3://{server.new_place()}", endpoint=server.endpoint)


def content(objects):
    return json.loads(b"".join(bytes(chunk) for chunk in objects.read(KEY)))


def test_of_many_that_want_it_one_holds_it_at_a_time(objects):
    inside, most, total = 0, 0, 0
    counting = threading.Lock()

    def work():
        nonlocal inside, most, total
        with hold(objects, KEY, "tester"):
            with counting:
                inside += 1
                most, total = max(most, inside), total + 1
            content(objects)  # long enough for another to come in
            with counting:
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, total) == (1, 6)


def test_a_lock_that_is_kept_is_refused_with_its_holder(objects):
    with hold(objects, KEY, "alice"):
        with pytest.raises(RefusedError) as caught, hold(objects, KEY, "bob", patience_s=0):
            pytest.fail("two hold it")
        assert "alice" in str(caught.value.got)
        assert content(objects)["who"] == "alice"


def test_a_lock_is_given_back_also_where_the_work_failed(objects):
    with pytest.raises(ZeroDivisionError), hold(objects, KEY, "alice"):
        raise ZeroDivisionError
    with hold(objects, KEY, "bob", patience_s=0) as held:
        assert HOLD_S - SKEW_S - 30 < held.left_s() <= HOLD_S - SKEW_S


def test_the_lock_of_a_killed_holder_is_taken_when_it_has_expired_and_not_before(tmp_path):
    script = """
import os, signal, sys
from pathlib import Path
from adroit_publish.stores.lock import hold
from adroit_publish.stores.directory import DirectoryObjects
with hold(DirectoryObjects(Path(sys.argv[1])), sys.argv[2], "killed"):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), KEY],
        check=False,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
    )
    assert done.returncode == -signal.SIGKILL
    objects = DirectoryObjects(tmp_path)
    until_s = content(objects)["until_s"]
    for early_s in (until_s - 1, until_s + SKEW_S - 1):
        with (
            pytest.raises(RefusedError, match="killed"),
            hold(objects, KEY, "next", patience_s=0, clock=lambda now=early_s: now),
        ):
            pytest.fail("it was still held")
    with hold(objects, KEY, "next", patience_s=0, clock=lambda: until_s + SKEW_S + 1):
        assert content(objects)["who"] == "next"


def test_who_overstayed_does_not_free_the_lock_of_the_next_holder(objects):
    late = time.time() + HOLD_S + SKEW_S + 1
    with hold(objects, KEY, "slow") as slow:  # noqa: SIM117  one after the other is what is tested
        with hold(objects, KEY, "next", patience_s=0, clock=lambda: late):
            object.__setattr__(slow, "clock", lambda: late)
            assert slow.left_s() < 0
    with hold(objects, KEY, "slow") as slow, hold(objects, KEY, "x", clock=lambda: late):
        pass
    keeper = hold(objects, KEY, "keeper", clock=lambda: late + HOLD_S + 2 * SKEW_S)
    overstayed = hold(objects, KEY, "overstayed", patience_s=5)
    with overstayed:
        keeper.__enter__()
    assert content(objects)["who"] == "keeper"
    assert content(objects)["token"]
    keeper.__exit__(None, None, None)


def test_an_object_that_is_no_lock_is_named(objects):
    data = b'{"token": 1}'
    objects.create(KEY, Inline(data), Digest.of(data))
    with pytest.raises(VerificationError, match=KEY), hold(objects, KEY, "x"):
        pytest.fail("it was held")


SAMPLES = Path(__file__).parent / "samples"


def put(objects, data):
    objects.create(KEY, Inline(data), Digest.of(data))


def test_a_lock_of_the_first_release_is_held_and_free_as_it_says(tmp_path):
    held, free = DirectoryObjects(tmp_path / "held"), DirectoryObjects(tmp_path / "free")
    data = (SAMPLES / "lock_held.json").read_bytes()
    until_s = json.loads(data)["until_s"]
    put(held, data)
    put(free, (SAMPLES / "lock_free.json").read_bytes())
    with (
        pytest.raises(RefusedError, match="ada@here"),
        hold(held, KEY, "bob", patience_s=0, clock=lambda: until_s - 1),
    ):
        pass
    with hold(free, KEY, "bob", patience_s=0):
        pass


def test_a_lock_of_a_newer_number_is_left_alone(tmp_path):
    objects = DirectoryObjects(tmp_path)
    put(objects, b'{"schema":2,"token":"","until_s":0.0,"who":"ada"}')
    with (
        pytest.raises(VerificationError, match="newer version"),
        hold(objects, KEY, "bob", patience_s=0),
    ):
        pass
