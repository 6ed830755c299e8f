"""Republish: the model of a version with other source, without a byte of the model."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from adroit_publish import publish, republish
from adroit_publish.checkout import open_checkout
from adroit_publish.custody.check import verify
from adroit_publish.errors import ConfigError, RefusedError, StoreError, VerificationError
from adroit_publish.places import open_store
from adroit_publish.stores.records import records
from adroit_publish.version import Version
from tests.support.checkouts import commit, git, make_checkout


@pytest.fixture
def checkout(tmp_path, trained):
    flavors = {"a": trained.weighty, "b": trained.good[0]}
    return make_checkout(tmp_path / "repo", trained.tracking_uri, flavors)


def store_of(root):
    return open_store(open_checkout(root, {}).target(None))


def change_source(root, text="SCALE = 3\n"):
    (root / "projects/doubler/features.py").write_text(text)
    commit(root, "change")


def manifest_in(root, version):
    """Reads a version's manifest with nothing of ours."""
    bundles = root / ".adroit/bundles"
    index = json.loads((bundles / "doubler" / version / "index.json").read_text())
    digest = index["manifests"][0]["digest"].removeprefix("sha256:")
    return json.loads((bundles / "blobs/sha256" / digest).read_text())


def layers_of(manifest, *kinds):
    return [
        layer["digest"]
        for layer in manifest["layers"]
        if layer["annotations"]["adroit.layer"] in kinds
    ]


def test_a_changed_line_makes_a_new_version_with_the_same_weights(checkout):
    first = publish("a", root=checkout)
    change_source(checkout)
    again = republish("a", root=checkout)
    assert again.version != first.version
    assert again.republished_from == first.version
    assert again.changes == ("changed projects/doubler/features.py",)
    before, after = (manifest_in(checkout, v) for v in (first.version, again.version))
    assert len(layers_of(before, "model")) == 2
    assert layers_of(before, "model", "runtime") == layers_of(after, "model", "runtime")
    assert layers_of(before, "source", "record") != layers_of(after, "source", "record")
    store = store_of(checkout)
    assert verify(store, store.get(again.version)).problems == []
    assert f"  version: {again.version}   # of a\n" in (checkout / "flavors.yaml").read_text()


def test_the_receipt_is_what_both_manifests_say(checkout):
    first = publish("a", root=checkout)
    change_source(checkout)
    again = republish("a", root=checkout)
    before, after = (manifest_in(checkout, v) for v in (first.version, again.version))
    carried = [layer.digest for layer in again.layers if layer.carried]
    assert carried == layers_of(before, "model")
    sent = [layer.digest for layer in again.layers if any(layer.sent.values())]
    new = {layer["digest"] for layer in after["layers"]} - {
        layer["digest"] for layer in before["layers"]
    }
    assert set(sent) == new
    place = again.places[0]
    sizes = {layer["digest"]: layer["size"] for layer in after["layers"]}
    assert again.sent_bytes(place) == sum(sizes[digest] for digest in sent) < 100_000
    assert again.sent_bytes(place) + again.reused_bytes(place) == sum(sizes.values())
    assert again.reused_bytes(place) > 20 << 20


def test_publishing_the_run_with_the_new_source_gives_the_very_same_version(checkout, trained):
    publish("a", root=checkout)
    change_source(checkout)
    again = republish("a", root=checkout)
    from_the_run = publish("a", root=checkout, run_id=trained.weighty)
    assert from_the_run.version == again.version


def test_going_back_to_the_old_source_gives_the_old_version(checkout):
    first = publish("a", root=checkout)
    change_source(checkout)
    republish("a", root=checkout)
    change_source(checkout, "SCALE = 2\n")
    assert republish("a", root=checkout).version == first.version


def test_nothing_changed_is_nothing_to_do(checkout):
    first = publish("a", root=checkout)
    before = (checkout / "flavors.yaml").read_bytes()
    again = republish("a", root=checkout)
    assert (again.version, again.news) == (first.version, False)
    assert (checkout / "flavors.yaml").read_bytes() == before


def test_the_outputs_are_replayed_and_the_record_says_so(checkout):
    first = publish("a", root=checkout)
    change_source(checkout)
    again = republish("a", root=checkout)
    store = store_of(checkout)
    (record,) = (each.document for each in records(store, store.get(again.version)))
    assert record["verification"]["replay"] == {"against": first.version, "identical": True}
    assert record["republished_from"] == first.version
    assert record["metrics"] == {"accuracy": 0.5}


HANDLER = """\
from adroit.serving.mlflow_handler import MlflowHandler


class Shifted(MlflowHandler):
    def predict(self, data, params=None):
        return super().predict(data, params) + {shift}
"""


def with_handler(root, shift):
    (root / "projects/doubler/handler.py").write_text(HANDLER.format(shift=shift))
    config = root / "projects/doubler/config.yaml"
    config.write_text(
        config.read_text().replace(
            "adroit.serving.mlflow_handler:MlflowHandler", "projects.doubler.handler:Shifted"
        )
    )
    commit(root, f"shift by {shift}")


def test_outputs_that_moved_stop_a_republish_and_leave_everything_as_it_was(checkout):
    first = publish("b", root=checkout)
    with_handler(checkout, 0.5)
    before = (checkout / "flavors.yaml").read_bytes()
    with pytest.raises(VerificationError) as error:
        republish("b", root=checkout)
    assert error.value.exit_code == 6
    assert "row 0, x: 2.0 -> 2.5 (relative 0.2)" in str(error.value)
    assert first.version in str(error.value)
    assert "--accept-output-change" in str(error.value)
    assert (checkout / "flavors.yaml").read_bytes() == before
    assert [p.version for p in store_of(checkout).versions("doubler")] == [first.version]


def test_a_change_of_outputs_can_be_accepted_and_is_what_counts_from_then_on(checkout):
    publish("b", root=checkout)
    with_handler(checkout, 0.5)
    moved = republish("b", root=checkout, accept_output_change=True)
    store = store_of(checkout)
    (record,) = (each.document for each in records(store, store.get(moved.version)))
    assert record["verification"]["replay"]["accepted"] is True
    assert record["verification"]["replay"]["differing"] == 4
    change_source(checkout)
    again = republish("b", root=checkout)
    assert again.verification["replay"] == {"against": moved.version, "identical": True}


def test_outputs_within_rtol_are_the_same(checkout):
    publish("b", root=checkout)
    with_handler(checkout, 1e-9)
    replay = republish("b", root=checkout).verification["replay"]
    assert replay["identical"] is False
    assert replay["differing"] == 0
    assert 0 < replay["worst"] < 1e-6


def test_without_a_verification_the_next_replay_goes_back_to_the_last_one(checkout):
    first = publish("b", root=checkout)
    change_source(checkout)
    blind = republish("b", root=checkout, verify="none")
    assert blind.verification["replay"] == {"skipped": "not verified"}
    change_source(checkout, "SCALE = 4\n")
    assert republish("b", root=checkout).verification["replay"]["against"] == first.version
    with_handler(checkout, 0.5)
    with pytest.raises(VerificationError, match=first.version):
        republish("b", root=checkout)


# The model on this machine.


def test_without_a_verification_no_byte_of_the_model_is_read(checkout, trained):
    first = publish("a", root=checkout)
    for digest in layers_of(manifest_in(checkout, first.version), "model"):
        (checkout / ".adroit/bundles" / blob_key_of(digest)).chmod(0)
    change_source(checkout)
    calls = []
    import adroit_publish.stores.directory as directory

    opened = directory.DirectoryObjects.read

    def read(self, key, *args):
        calls.append(key)
        return opened(self, key, *args)

    directory.DirectoryObjects.read = read
    try:
        republish("a", root=checkout, verify="none")
    finally:
        directory.DirectoryObjects.read = opened
    model = {blob_key_of(d) for d in layers_of(manifest_in(checkout, first.version), "model")}
    assert calls
    assert not model & set(calls)


def blob_key_of(digest):
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def test_a_model_that_lies_where_it_was_published_from_is_not_pulled(checkout):
    publish("a", root=checkout)
    change_source(checkout)
    republish("a", root=checkout)
    assert [p.name for p in (checkout / ".adroit/cache/layers").iterdir() if p.is_dir()] == []


def test_a_model_that_is_nowhere_here_is_pulled_for_the_replay_once(checkout):
    publish("a", root=checkout)
    for index in (checkout / ".adroit/cache/layers").glob("*.json"):
        index.unlink()
    change_source(checkout)
    again = republish("a", root=checkout)
    assert again.verification["replay"]["identical"] is True
    pulled = [p for p in (checkout / ".adroit/cache/layers").iterdir() if p.is_dir()]
    assert len(pulled) == 2
    before = {p: p.stat().st_mtime_ns for p in pulled}
    change_source(checkout, "SCALE = 4\n")
    republish("a", root=checkout)
    assert {p: p.stat().st_mtime_ns for p in pulled} == before


def test_a_pulled_file_that_someone_changed_is_pulled_again(checkout):
    publish("b", root=checkout)
    for index in (checkout / ".adroit/cache/layers").glob("*.json"):
        index.unlink()
    change_source(checkout)
    republish("b", root=checkout)
    (code,) = (checkout / ".adroit/cache/layers").glob("*/model/code*.py")
    code.write_text("raise SystemExit('tampered with')\n")
    change_source(checkout, "SCALE = 4\n")
    assert republish("b", root=checkout).verification["replay"]["identical"] is True


# What is refused.


def test_model_layers_that_are_gone_from_the_store_are_named(checkout):
    first = publish("a", root=checkout)
    change_source(checkout)
    digest = layers_of(manifest_in(checkout, first.version), "model")[0]
    (checkout / ".adroit/bundles" / blob_key_of(digest)).unlink()
    with pytest.raises(StoreError, match="gone from the store") as error:
        republish("a", root=checkout)
    assert digest in str(error.value)
    assert "--mlflow-run-id" in str(error.value)


def test_a_flavor_that_is_not_published_is_told_how_to_be(checkout):
    with pytest.raises(ConfigError, match="not published yet") as error:
        republish("a", root=checkout)
    assert "publish_mlflow_model_flow.py run --flavor=a --target=local" in str(error.value)
    flavors = checkout / "flavors.yaml"
    flavors.write_text(re.sub("version: [0-9a-f]{32}", "version:", flavors.read_text()))
    with pytest.raises(ConfigError, match="not published yet") as error:
        republish("a", root=checkout)
    assert "run --flavor=a --mlflow-run-id=RUN_ID --target=local" in str(error.value)


def test_a_version_of_another_model_is_named(checkout):
    release = publish("b", root=checkout)
    other = checkout / "projects/tripler"
    other.mkdir()
    config = (checkout / "projects/doubler/config.yaml").read_text()
    (other / "config.yaml").write_text(config.replace("doubler", "tripler"))
    flavors = checkout / "flavors.yaml"
    flavors.write_text(flavors.read_text().replace("projects/doubler", "projects/tripler"))
    commit(checkout, "another project")
    with pytest.raises(ConfigError, match="of another model") as error:
        republish("b", root=checkout)
    assert release.version in str(error.value)


def test_a_handler_that_the_new_source_lacks_is_refused(checkout):
    publish("b", root=checkout)
    with_handler(checkout, 0.0)
    (checkout / "projects/doubler/handler.py").unlink()
    commit(checkout, "gone")
    before = (checkout / "flavors.yaml").read_bytes()
    with pytest.raises(VerificationError, match=r"projects\.doubler\.handler"):
        republish("b", root=checkout)
    assert (checkout / "flavors.yaml").read_bytes() == before


def test_a_bundle_of_a_newer_program_is_told_apart(checkout, monkeypatch):
    from adroit_publish.bundle import document

    monkeypatch.setattr(document, "SCHEMA", 2)
    publish("b", root=checkout, verify="none")
    monkeypatch.undo()
    change_source(checkout)
    with pytest.raises(VerificationError, match="another version of this program"):
        republish("b", root=checkout)


def test_a_held_flavor_is_left_alone(checkout):
    publish("b", root=checkout)
    flavors = checkout / "flavors.yaml"
    flavors.write_text(flavors.read_text().replace("b:\n", "b:\n  hold: rolled back\n"))
    change_source(checkout)
    with pytest.raises(RefusedError, match="held"):
        republish("b", root=checkout)


# What makes a flavor stale, and what does not.


def test_comments_other_projects_and_documents_make_nothing_stale(checkout):
    publish("b", root=checkout)
    config = checkout / "projects/doubler/config.yaml"
    config.write_text("# a comment\n" + config.read_text())
    (checkout / "README.md").write_text("# read\n")
    (checkout / "projects/doubler/NOTES.md").write_text("# notes\n")
    (checkout / "projects/other").mkdir()
    (checkout / "projects/other/x.py").write_text("")
    commit(checkout, "nothing that is served")
    assert republish("b", root=checkout).news is False


def test_a_changed_include_makes_a_flavor_stale(checkout):
    config = checkout / "projects/doubler/config.yaml"
    config.write_text(config.read_text() + "source:\n  include: [projects/common]\n")
    (checkout / "projects/common").mkdir()
    shared = checkout / "projects/common/shared.py"
    shared.write_text("A = 1\n")
    commit(checkout, "shared")
    publish("b", root=checkout)
    shared.write_text("A = 2\n")
    commit(checkout, "shared changed")
    again = republish("b", root=checkout)
    assert again.changes == ("changed projects/common/shared.py",)


def test_another_runtime_is_no_reason_unless_it_is_asked_for(checkout, monkeypatch):
    publish("b", root=checkout)
    from adroit_publish.bundle.content import InlineFile
    from adroit_publish.bundle.layer import LayerRecipe, PackedFile
    from adroit_publish.publish import source

    real = source.runtime_recipe()

    def changed():
        extra = PackedFile("opt/adroit/runtime/adroit/serving/extra.py", InlineFile(b""))
        return LayerRecipe("runtime", (*real.files, extra))

    monkeypatch.setattr(source, "runtime_recipe", changed)
    assert republish("b", root=checkout).news is False
    again = republish("b", root=checkout, runtime=True)
    assert again.changes == ("the runtime (adroit/) differs in 1 files",)
    assert "runtime" in [layer.kind for layer in again.layers if any(layer.sent.values())]


def test_a_moved_env_is_taken_over_on_purpose_only(checkout):
    first = publish("b", root=checkout)
    (checkout / "environment.yml").write_text("dependencies: [python=3.11, left-pad]\n")
    change_source(checkout)
    again = republish("b", root=checkout)
    assert again.conda_env_digest == first.conda_env_digest
    moved = republish("b", root=checkout, take_env=True)
    assert moved.conda_env_digest not in (None, first.conda_env_digest)
    assert moved.changes == (f"changed the env plain to {moved.conda_env_digest}",)
    assert republish("b", root=checkout, take_env=True).news is False


def test_another_env_by_name_is_a_change(checkout):
    publish("b", root=checkout)
    envs, flavors = checkout / "conda_envs.yaml", checkout / "flavors.yaml"
    envs.write_text(envs.read_text() + "other:\n  environment: environment.yml\n")
    flavors.write_text(flavors.read_text().replace("conda_env: plain", "conda_env: other"))
    commit(checkout, "another env")
    again = republish("b", root=checkout)
    assert again.conda_env == "other"
    assert again.changes == ("changed the conda env, which was plain",)


def test_uncommitted_source_is_refused_by_name(checkout):
    publish("b", root=checkout)
    (checkout / "projects/doubler/features.py").write_text("SCALE = 9\n")
    with pytest.raises(Exception, match=r"features\.py"):
        republish("b", root=checkout)
    assert republish("b", root=checkout, allow_dirty=True).dirty == (
        "projects/doubler/features.py",
    )
    assert "features.py" in git(checkout, "status", "--short")


def test_a_changed_serve_section_is_a_change_and_reaches_the_bundle(checkout):
    publish("b", root=checkout)
    config = checkout / "projects/doubler/config.yaml"
    line = "      model_name: doubler\n"
    config.write_text(config.read_text().replace(line, f"{line}      log_features_percent: 0.5\n"))
    commit(checkout, "log more")
    again = republish("b", root=checkout)
    assert again.changes == ("changed the serve section of config.yaml",)
    store = store_of(checkout)
    record = Version(store, store.get(again.version)).bundle
    assert record.serve["handler"]["kwargs"]["log_features_percent"] == 0.5
    assert Path(checkout).is_dir()
