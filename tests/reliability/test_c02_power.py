"""C02: the power is cut at the calls that make a publish or a pull durable: fsync, rename, link.

A forked child publishes to a directory on a disk of its own and writes the version back, or pulls a
model from S3 into a cache there; the power goes at its nth such call, before or after it, or once
it has printed success. Then the disk is mounted again, what it holds is judged, and the same
command has to mend it. I1, I2, I4, I6.
"""

from __future__ import annotations

import os
import pickle
import random
import signal
import subprocess
import traceback
from pathlib import Path

import pytest

from adroit_publish.artifacts.pull import pull_model
from adroit_publish.checkout import open_checkout
from adroit_publish.custody.check import verify
from adroit_publish.places import open_store
from adroit_publish.publish.prepare import prepare
from adroit_publish.publish.publish import publish
from adroit_publish.publish.release import PublishOptions, Release
from tests.artifacts.test_pull_faults import FILES, contents, model
from tests.support.checkouts import make_checkout
from tests.support.git_clones import write_versions
from tests.support.power import disk

__all__ = ["model"]

FLOOR = 100 if os.environ.get("ADROIT_FULL") == "1" else 4  # each on two file systems
CALLS = ("fsync", "fdatasync", "rename", "replace", "link", "unlink", "pwrite")


def publish_once(root: Path):
    """Publishes flavor ``a`` and writes it back; returns the release."""
    (prepared,) = prepare(open_checkout(root, {}), ["a"], PublishOptions(verify="none"))
    if isinstance(prepared, Release):
        return prepared  # there is nothing to do
    release = publish(prepared)
    write_versions(root / "flavors.yaml", {"a": (prepared.flavor.version, release.version)})
    return release


def whole(root: Path):
    """Returns flavors.yaml, and the problems of every version that the store names."""
    store = open_store(open_checkout(root, {}).target(None))
    problems = [
        problem
        for published in store.versions("doubler")
        for problem in verify(store, published).problems
    ]
    return (root / "flavors.yaml").read_bytes(), problems


def in_child(work, *arguments):
    """Returns what ``work`` returns in a fork, which keeps no file of the disk open here.

    None where the fork was killed.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            with os.fdopen(writing, "wb") as pipe:
                pickle.dump(work(*arguments), pipe)
            os._exit(0)
        except BaseException as error:  # noqa: BLE001  nothing may get back into pytest
            os.write(2, "".join(traceback.format_exception(error)).encode())
            os._exit(99)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        sent = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return None
    assert os.WEXITSTATUS(status) == 0, "the child failed by itself"
    return pickle.loads(sent)


def begin_anew(machine, origin):
    """Puts a durable copy of the checkout ``origin`` on an empty disk."""
    machine.format()
    subprocess.run(["cp", "-aT", str(origin), str(machine.root)], check=True)
    machine.sync()


def until_the_power_goes(work, machine, cut_at, after):
    """Returns what ``work`` returns on the disk, and how many calls of ``CALLS`` it took.

    The power goes at the ``cut_at``-th of them, before or after it; else once all is done.
    """
    calls = 0

    def cut():
        machine.cut_power()
        os.kill(os.getpid(), signal.SIGKILL)

    def fragile(call):
        def wrapped(*arguments, **options):
            nonlocal calls
            calls += 1
            if calls == cut_at and not after:
                cut()
            result = call(*arguments, **options)
            if calls == cut_at:
                cut()
            return result

        return wrapped

    for name in CALLS:
        setattr(os, name, fragile(getattr(os, name)))
    result = work(machine.root)
    machine.cut_power()
    return result, calls


def stray_files(root: Path):
    return [*(root / ".adroit/bundles/tmp").iterdir(), *root.glob(".flavors*")]


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_c02_a_power_cut_loses_nothing_that_was_promised(kind, tmp_path, trained, capsys):
    origin = make_checkout(tmp_path / "origin", trained.tracking_uri, {"a": trained.good[0]})
    old = (origin / "flavors.yaml").read_bytes()
    randomness = random.Random(2)
    injected = fired = 0
    violations = []
    with disk(tmp_path / kind, kind) as machine:
        begin_anew(machine, origin)
        expected, calls = in_child(until_the_power_goes, publish_once, machine, 0, False)
        machine.restart()
        new, problems = in_child(whole, machine.root)
        assert (problems, new == old) == ([], False), "success was printed, and is not durable"
        while fired < FLOOR:
            begin_anew(machine, origin)
            cut_at, after = randomness.randint(1, calls), randomness.random() < 0.5
            injected += 1
            left = in_child(until_the_power_goes, publish_once, machine, cut_at, after)
            fired += left is None
            machine.restart()
            text, problems = in_child(whole, machine.root)
            again = in_child(publish_once, machine.root)
            wrong = [*problems, *map(str, in_child(stray_files, machine.root))]
            if text not in (old, new):
                wrong.append("flavors.yaml is torn")
            if again.version != expected.version or in_child(whole, machine.root) != (new, []):
                wrong.append("the same command does not mend it")
            violations += [f"{kind}, call {cut_at}: {problem}" for problem in wrong]
    with capsys.disabled():
        print(f"\nC02 {kind} injected={injected} fired={fired} violations={len(violations)}")
    assert fired >= FLOOR
    assert not violations


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_c02_no_byte_of_a_cache_is_believed_that_a_power_cut_took(kind, model, tmp_path, capsys):
    def pull(root):
        return contents(pull_model(model, root / "cache"))

    randomness = random.Random(2)
    injected = fired = violations = 0
    with disk(tmp_path / kind, kind) as machine:
        machine.format()
        files, calls = in_child(until_the_power_goes, pull, machine, 0, False)
        assert files == FILES
        while fired < FLOOR:
            machine.restart()
            injected += 1
            cut_at, after = randomness.randint(1, calls), randomness.random() < 0.5
            fired += in_child(until_the_power_goes, pull, machine, cut_at, after) is None
            machine.restart()
            violations += in_child(pull, machine.root) != FILES
            machine.format()
    with capsys.disabled():
        print(f"\nC02 cache, {kind} injected={injected} fired={fired} violations={violations}")
    assert fired >= FLOOR
    assert violations == 0
