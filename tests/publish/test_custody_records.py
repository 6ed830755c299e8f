"""Records that anyone may write: what a store says was verified is not believed for that."""

from __future__ import annotations

import json
import shutil

import pytest

from adroit_publish import publish
from adroit_publish.bundle.digest import Digest
from adroit_publish.bundle.document import canonical_json
from adroit_publish.bundle.manifest import RECORD_MEDIA_TYPE
from adroit_publish.bundle.record import Verification, parse_record
from adroit_publish.checkout import open_checkout
from adroit_publish.config.targets import parse_targets
from adroit_publish.custody.check import verify
from adroit_publish.errors import VerificationError
from adroit_publish.places import open_store
from adroit_publish.publish.seen_here import note_seen, proven
from adroit_publish.stores.records import records
from tests.support.checkouts import git, make_checkout


@pytest.fixture
def checkout(tmp_path, trained):
    return make_checkout(tmp_path / "repo", trained.tracking_uri, {"a": trained.good[0]})


def store_of(root):
    return open_store(open_checkout(root).target(None))


def again(root, **options):
    """The flavor's run published once more, as by somebody who has not pulled the first version."""
    git(root, "checkout", "-q", "flavors.yaml")
    return publish("a", root=root, **options)


def recorded(root, version):
    store = store_of(root)
    return [record.verification for record in records(store, store.get(version))]


@pytest.mark.parametrize("how", ["bubblewrap", "image"])
def test_a_record_written_by_hand_does_not_stand_for_a_verification(checkout, how):
    first = publish("a", root=checkout, verify="none")
    store = store_of(checkout)
    published = store.get(first.version)
    (mine,) = records(store, published)
    claimed = {"how": how, "predicted": True, "outputs": [1], "outputs_sha256": "0" * 64}
    forged = canonical_json({**mine.document, "verification": claimed})
    store.attach("doubler", first.version, published.manifest, RECORD_MEDIA_TYPE, forged)
    release = again(checkout, verify="process")
    assert release.version == first.version
    assert release.verification["outputs_sha256"] not in (None, "0" * 64)
    assert release.verification["load_seconds"] > 0
    assert len(recorded(checkout, first.version)) == 3


def test_a_claim_is_not_repeated_where_nothing_is_to_be_verified(checkout):
    first = publish("a", root=checkout, verify="none")
    store = store_of(checkout)
    published = store.get(first.version)
    (mine,) = records(store, published)
    forged = canonical_json({**mine.document, "verification": {"how": "image", "predicted": True}})
    store.attach("doubler", first.version, published.manifest, RECORD_MEDIA_TYPE, forged)
    release = again(checkout, verify="none")
    assert release.verification["how"] == "none"
    assert len(recorded(checkout, first.version)) == 2


def test_what_this_machine_saw_is_not_looked_at_again(checkout):
    first = publish("a", root=checkout)
    release = again(checkout)
    assert release.verification == first.verification
    assert release.seconds["verify"] < first.seconds["verify"]
    assert len(recorded(checkout, first.version)) == 1


def test_a_record_that_was_changed_since_is_not_what_this_machine_saw(checkout):
    first = publish("a", root=checkout)
    store = store_of(checkout)
    published = store.get(first.version)
    (mine,) = records(store, published)
    value = json.loads(json.dumps(mine.document))
    value["created_utc"] = "2099-01-01T00:00:00+00:00"
    value["verification"]["outputs_sha256"] = "0" * 64
    forged = canonical_json(value)
    store.attach("doubler", first.version, published.manifest, RECORD_MEDIA_TYPE, forged)
    release = again(checkout)
    assert release.verification == first.verification
    assert len(recorded(checkout, first.version)) == 2


def test_another_machine_looks_for_itself(checkout):
    first = publish("a", root=checkout)
    shutil.rmtree(checkout / ".adroit" / "verified")
    release = again(checkout)
    assert release.version == first.version
    assert len(recorded(checkout, first.version)) == 2


def test_a_record_of_another_version_tells_nothing_of_this_one(checkout, trained):
    first = publish("a", root=checkout, verify="none")
    git(checkout, "checkout", "-q", "flavors.yaml")
    other = publish("a", root=checkout, run_id=trained.good[1], verify="none")
    store = store_of(checkout)
    place = store.objects.root / "doubler"
    for descriptor in (place / other.version / "referrers").iterdir():
        shutil.copy(descriptor, place / first.version / "referrers")
    with pytest.raises(VerificationError, match="another version"):
        records(store, store.get(first.version))
    report = verify(store, store.get(first.version))
    assert any("another version" in problem for problem in report.problems)


@pytest.mark.parametrize(
    ("how", "wanted", "bundles", "enough"),
    [
        ("plain", "process", "file:/b", True),
        ("plain", "process", "s3://bucket/b", False),
        ("bubblewrap", "process", "s3://bucket/b", True),
        ("bubblewrap", "image", "s3://bucket/b", False),
        ("image", "image", "s3://bucket/b", True),
        ("image", "process", "s3://bucket/b", True),
    ],
)
def test_a_weaker_kind_than_the_target_asks_for_is_not_enough(
    tmp_path, how, wanted, bundles, enough
):
    text = f'[targets.t]\ntracking_uri = "sqlite:///m.db"\nbundles = "{bundles}"\n'
    target = parse_targets(text.encode(), "adroit.toml", str(tmp_path)).by_name["t"]
    seen = Verification(how, predicted=True)
    record = parse_record(canonical_json({"verification": seen.as_dict()}), "here")
    manifest = Digest.of(b"manifest")
    note_seen(tmp_path, manifest, seen)
    assert (proven([record], tmp_path, manifest, wanted, target) == seen) is enough
    assert proven([record], tmp_path, Digest.of(b"another"), wanted, target) is None
