"""``python -m adroit_publish`` as a user runs it, on a really published version."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys

import pytest

from adroit_publish import publish
from tests.support.checkouts import FLOW, make_checkout
from tests.support.requirements import require


@pytest.fixture(scope="module")
def published(tmp_path_factory, trained):
    """A checkout with one published, one pending and one empty flavor; and the release."""
    flavors = {"a": trained.weighty, "waits": trained.good[1], "empty": ""}
    root = make_checkout(tmp_path_factory.mktemp("p") / "repo", trained.tracking_uri, flavors)
    return root, publish("a", root=root)


def run(root, *arguments, check=True):
    done = subprocess.run(
        [sys.executable, "-m", "adroit_publish", *map(str, arguments)],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(FLOW.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    if check:
        assert done.returncode == 0, done.stderr
    return done


def test_versions_lists_what_is_published_and_who_names_it(published):
    root, release = published
    (row,) = json.loads(run(root, "versions", "doubler", "--json").stdout)
    assert (row["version"], row["run_id"]) == (release.version, release.run_id)
    assert (row["who"], row["flavors"]) == ("tester", ["a"])
    assert release.version in run(root, "versions", "doubler").stdout


def test_versions_of_an_unknown_model_names_the_known_ones(published):
    done = run(published[0], "versions", "dobuler", check=False)
    assert done.returncode == 2
    assert "doubler" in done.stderr


def test_show_tells_everything_that_is_known(published):
    root, release = published
    facts = json.loads(run(root, "show", release.version, "--json").stdout)
    assert facts["manifest"]["digest"] == release.manifest_digest
    assert facts["bundle"]["run_id"] == release.run_id
    assert facts["records"][0]["verification"]["predicted"] is True
    text = run(root, "show", release.version).stdout
    assert release.manifest_digest in text
    assert "model/artifacts/weights.bin" in text


def test_status_shows_the_state_of_every_flavor(published):
    rows = {row["flavor"]: row for row in json.loads(run(published[0], "status", "--json").stdout)}
    states = {name: row["state"] for name, row in rows.items()}
    assert states == {"a": "published", "waits": "pending", "empty": "no version"}
    assert rows["a"]["age_days"] < 1


def test_verify_passes_and_then_names_exactly_the_object_that_is_wrong(published, tmp_path):
    root, release = published
    assert "every digest is right" in run(root, "verify", release.version).stdout
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    blobs = copy / ".adroit/bundles/blobs/sha256"
    for blob in sorted(blobs.iterdir()):
        data = blob.read_bytes()
        blob.chmod(0o644)
        blob.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        done = run(copy, "verify", release.version, check=False)
        empty = hashlib.sha256(b"{}").hexdigest()
        if blob.name == empty:  # the empty config of a referrer; nothing ever reads it
            assert done.returncode == 0
        else:
            assert done.returncode == 6, blob.name
            assert blob.name in done.stderr
            others = {path.name for path in blobs.iterdir()} - {blob.name}
            manifest = release.manifest_digest[7:]
            wrong, _, step = done.stderr.partition("  next:   ")
            assert not [name for name in others - {manifest} if name in wrong]
            entries = (blobs.parents[1] / f"doubler/{release.version}/referrers").iterdir()
            others -= {manifest, *(entry.name for entry in entries)}  # what it says to delete
            assert not [name for name in others if name in step]
        blob.write_bytes(data)
    assert run(copy, "verify", release.version).returncode == 0


def test_pull_gives_the_files_as_an_image_has_them(published, tmp_path, trained):
    root, release = published
    run(root, "pull", release.version, tmp_path / "got")
    document = (tmp_path / "got" / "bundle.json").read_bytes()
    assert "sha256:" + hashlib.sha256(document).hexdigest() == release.bundle_id
    listed = {
        f"{kind}/{entry['path']}": entry["size"]
        for kind, entries in json.loads(document)["files"].items()
        for entry in entries
    }
    there = {
        str(path.relative_to(tmp_path / "got")): path.stat().st_size
        for path in (tmp_path / "got").rglob("*")
        if path.is_file() and path.name != "bundle.json"
    }
    assert there == listed
    refused = run(root, "pull", release.version, tmp_path / "got", check=False)
    assert refused.returncode == 4


def test_a_damaged_blob_is_never_pulled(published, tmp_path):
    root, release = published
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    blob = copy / ".adroit/bundles/blobs/sha256" / release.layers[0].digest[7:]
    blob.chmod(0o644)
    with blob.open("r+b") as file:
        file.seek(blob.stat().st_size // 2)
        file.write(b"\xff\x00\xff")
    for way in ([], ["--oci"]):
        done = run(copy, "pull", *way, release.version, tmp_path / "bad", check=False)
        assert done.returncode == 6
        assert not (tmp_path / "bad").exists()


def test_skopeo_reads_the_store_and_umoci_the_export(published, tmp_path):
    root, release = published
    for tool in ("skopeo", "umoci"):
        require(shutil.which(tool), f"{tool} is not installed (a Debian package)")
    store = root / ".adroit/bundles"
    version = release.version
    source = f"oci:{store}/doubler/{version}:{version}"
    shared = ["--src-shared-blob-dir", f"{store}/blobs"]
    subprocess.run(
        ["skopeo", "copy", "-q", "--insecure-policy", *shared, source, f"dir:{tmp_path}/s"],
        check=True,
    )
    manifest = (tmp_path / "s" / "manifest.json").read_bytes()
    assert "sha256:" + hashlib.sha256(manifest).hexdigest() == release.manifest_digest
    assert version.endswith(hashlib.sha256(manifest).hexdigest()[:12])
    run(root, "pull", "--oci", version, tmp_path / "layout")
    image = f"{tmp_path}/layout:{version}"
    subprocess.run(["umoci", "unpack", "--rootless", "--image", image, tmp_path / "u"], check=True)
    adroit = tmp_path / "u" / "rootfs" / "opt" / "adroit"
    assert (adroit / "model" / "artifacts" / "weights.bin").stat().st_size == 20 << 20
    assert (adroit / "bundle.json").is_file()


def test_an_unknown_version_is_one_message_and_exit_2(published):
    done = run(published[0], "show", "v00000000-000000000000", check=False)
    assert done.returncode == 2
    assert "versions MODEL" in done.stderr
    as_json = run(published[0], "show", "v00000000-000000000000", "--json", check=False)
    assert json.loads(as_json.stdout)["exit_code"] == 2


def test_a_reader_that_has_gone_is_no_failure(published):
    root, release = published
    script = (
        f"{sys.executable} -m adroit_publish show {release.version} | true; exit ${{PIPESTATUS[0]}}"
    )
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(FLOW.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("model", ["../bundles/doubler", "doubler/", "..", ""])
def test_a_model_is_a_name_and_no_path(published, model):
    done = run(published[0], "versions", model, "--json", check=False)
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"] == "ConfigError"


def test_outside_of_a_checkout_it_says_what_is_missing(tmp_path):
    done = run(tmp_path, "status", check=False)
    assert done.returncode == 2
    assert "flavors.yaml" in done.stderr
    assert "Traceback" not in done.stderr
