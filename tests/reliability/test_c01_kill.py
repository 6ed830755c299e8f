"""C01: SIGKILL at every call that changes the disk, in a publish to a directory.

A forked child publishes one prepared job and writes the version back; its nth mutating call kills
it, before or after the call. Then the same publish runs again, and I1 to I6 must hold.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
from pathlib import Path

from adroit_publish.checkout import open_checkout
from adroit_publish.config.flavors import parse_flavors
from adroit_publish.custody.check import verify
from adroit_publish.places import open_store
from adroit_publish.publish.prepare import prepare
from adroit_publish.publish.publish import publish
from adroit_publish.publish.release import PublishOptions
from tests.support.checkouts import make_checkout
from tests.support.git_clones import write_versions

FLOOR = 1000 if os.environ.get("ADROIT_FULL") == "1" else 60
MUTATING = ("open", "write", "link", "rename", "replace", "unlink", "fsync", "fchmod", "mkdir")


def run_once(job, root):
    release = publish(job)
    write_versions(root / "flavors.yaml", {"a": (job.flavor.version, release.version)})
    return release


def in_child(job, root, kill_at, after):
    """Runs a publish in a fork that dies at its ``kill_at``-th mutating call; tells if it did."""
    child = os.fork()
    if child == 0:
        seen = 0

        def deadly(call):
            def wrapped(*arguments, **options):
                nonlocal seen
                seen += 1
                if seen == kill_at and not after:
                    os.kill(os.getpid(), signal.SIGKILL)
                result = call(*arguments, **options)
                if seen == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return result

            return wrapped

        for name in MUTATING:
            setattr(os, name, deadly(getattr(os, name)))
        try:
            run_once(job, root)
        except BaseException:  # noqa: BLE001  nothing may get back into pytest
            os._exit(99)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) == 0, "the child failed by itself"
    return os.WIFSIGNALED(status)


def blobs(root):
    return {p.name for p in root.glob(".adroit/bundles/blobs/sha256/*")}


def test_c01_a_publish_killed_anywhere_is_mended_by_the_same_command(tmp_path, trained, capsys):
    root = make_checkout(tmp_path / "repo", trained.tracking_uri, {"a": trained.weighty})
    (job,) = prepare(open_checkout(root, {}), ["a"], PublishOptions(verify="none"))
    old = (root / "flavors.yaml").read_bytes()
    expected = run_once(job, root)
    new = (root / "flavors.yaml").read_bytes()
    randomness = random.Random(1)
    injected = fired = violations = 0
    kill_at, after, calls = 1, False, 0
    while fired < FLOOR:
        _reset(root, old)
        injected += 1
        died = in_child(job, root, kill_at, after)
        fired += died
        wrong = _wrong_after_the_kill(root, old, new, expected)
        stored = blobs(root)
        again = run_once(job, root)
        wrong += _wrong_after_the_mend(root, new, expected, again, stored)
        if wrong:
            print(f"call {kill_at} ({'after' if after else 'before'}): {', '.join(wrong)}")
        violations += len(wrong)
        if not died:
            calls, kill_at = kill_at, 0
            after = not after
        kill_at = kill_at + 1 if not calls else randomness.randint(1, calls - 1)
    with capsys.disabled():
        print(f"\nC01 injected={injected} fired={fired} violations={violations}")
    assert fired >= FLOOR
    assert violations == 0


def _reset(root: Path, flavors: bytes) -> None:
    shutil.rmtree(root / ".adroit", ignore_errors=True)
    (root / "flavors.yaml").write_bytes(flavors)


def _wrong_after_the_kill(root, old, new, expected):
    """I1: the old file or the new one. I2: what is named is whole. I3: nothing else is named."""
    text = (root / "flavors.yaml").read_bytes()
    store = open_store(open_checkout(root, {}).target(None))
    wrong = [] if text in (old, new) else ["flavors.yaml is torn"]
    for published in store.versions("doubler"):
        if published.version != expected.version:
            wrong.append(f"{published.version} is named")
        wrong += verify(store, published).problems
    named = parse_flavors(text)["a"].version
    if named == expected.version and store.find("doubler", named) is None:
        wrong.append("flavors.yaml names what is not published")
    return wrong


def _wrong_after_the_mend(root, new, expected, again, stored):
    """I4: the same end as a clean run, no stored layer sent twice, and nothing left over."""
    sent = {layer.digest[7:] for layer in again.layers if any(layer.sent.values())}
    checks = {
        "another version": again.version == expected.version,
        "a stored layer was sent again": not sent & stored,
        "flavors.yaml is not the new one": (root / "flavors.yaml").read_bytes() == new,
        "layers are missing": {layer.digest[7:] for layer in expected.layers} <= blobs(root),
        "temporary files in the store": not any((root / ".adroit/bundles/tmp").iterdir()),
        "temporary files beside flavors.yaml": not [*root.glob(".flavors*")],
    }
    return [what for what, right in checks.items() if not right]
