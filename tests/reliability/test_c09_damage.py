"""C09: each stored object flipped, cut, deleted or swapped.

``verify`` names exactly the object, and publishing the same run again heals it or refuses.
"""

from __future__ import annotations

import hashlib
import shutil

import pytest

from adroit_publish.bundle.manifest import EMPTY_BLOB
from adroit_publish.checkout import open_checkout
from adroit_publish.custody.check import verify
from adroit_publish.errors import PublishError
from adroit_publish.places import open_store
from adroit_publish.publish.prepare import prepare
from adroit_publish.publish.publish import publish
from adroit_publish.publish.release import PublishOptions
from tests.support.checkouts import make_checkout

DAMAGES = {
    "flipped": lambda data, _: (
        data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]
    ),
    "cut": lambda data, _: data[:-1],
    "deleted": lambda _, __: None,
    "swapped": lambda _, other: other,
}
NEVER_READ = hashlib.sha256(EMPTY_BLOB).hexdigest()  # the empty config that every referrer has


def test_c09_every_damaged_object_is_named_and_healed_or_refused(tmp_path, trained, capsys):
    root = make_checkout(tmp_path / "repo", trained.tracking_uri, {"a": trained.good[0]})
    (job,) = prepare(open_checkout(root, {}), ["a"], PublishOptions(verify="none"))
    release = publish(job)
    place = root / ".adroit" / "bundles"
    whole = tmp_path / "whole"
    shutil.copytree(place, whole)
    objects = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    store = open_store(open_checkout(root, {}).target(None))
    injected = fired = healed = violations = 0
    for path in objects:
        for name, damage in DAMAGES.items():
            shutil.rmtree(place)
            shutil.copytree(whole, place)
            other = (whole / objects[objects.index(path) - 1]).read_bytes()
            data = damage((whole / path).read_bytes(), other)
            (place / path).unlink()
            if data is not None:
                (place / path).write_bytes(data)
            injected += 1
            named = _problems(store, release.version)
            harmless = path.name in (NEVER_READ, "oci-layout")
            # A deleted referrer is a record less: nothing else says that there was one.
            harmless |= path.parent.name == "referrers" and name == "deleted"
            fired += bool(named) or harmless
            is_gone = path.parent.name == "referrers" and name == "deleted"
            at = release.version if is_gone else path.name  # what is gone has no name to tell
            if named and not any(at in problem for problem in named):
                violations += 1
                print(path, name, named)
            try:
                publish(job)
            except PublishError:
                continue
            left = _problems(store, release.version)
            # Records are of one publish each: another publish cannot make them again.
            of_a_record = path in _record_objects(whole, objects)
            healed += not left
            if left and not of_a_record:
                violations += 1
                print(path, name, "was not healed:", left)
    with capsys.disabled():
        print(f"\nC09 injected={injected} fired={fired} healed={healed} violations={violations}")
    assert injected == fired >= 4 * 9
    assert violations == 0


def _problems(store, version):
    try:
        return verify(store, store.get(version)).problems
    except PublishError as error:
        return [f"{error.where}: {error.what} {version}/index.json"]


def _record_objects(whole, objects):
    """The referrer, its manifest and its document."""
    found = set()
    for path in objects:
        if path.parent.name == "referrers":
            found |= {path, path.parents[3] / "blobs" / "sha256" / path.name}
        elif b'"created_utc"' in (whole / path).read_bytes():
            found.add(path)
    return found


@pytest.mark.parametrize("name", DAMAGES)
def test_each_damage_really_changes_bytes(name):
    assert DAMAGES[name](b"data", b"other") != b"data"
