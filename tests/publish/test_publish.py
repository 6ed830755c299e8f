from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from adroit_publish import publish
from adroit_publish.checkout import open_checkout
from adroit_publish.custody.check import verify
from adroit_publish.errors import (
    ConfigError,
    DirtyTree,
    ModelNotFound,
    RefusedError,
    SourceError,
    VerificationError,
)
from adroit_publish.places import open_store
from adroit_publish.publish.prepare import pending, prepare
from adroit_publish.publish.release import Failure, PublishJob, PublishOptions
from adroit_publish.stores.records import records
from tests.support.checkouts import commit, git, make_checkout


@pytest.fixture
def checkout(tmp_path, trained):
    return make_checkout(tmp_path / "repo", trained.tracking_uri, {"a": trained.good[0]})


def store_of(root):
    return open_store(open_checkout(root, {}).target(None))


def visible(root):
    """Everything a user could see of a publish: versions and flavors.yaml."""
    versions = [p.version for p in store_of(root).versions("doubler")]
    return versions, (root / "flavors.yaml").read_bytes()


def test_a_run_becomes_a_version_that_verifies_and_one_line_changes(checkout, trained):
    release = publish("a", root=checkout)
    assert release.version == f"v{trained.good[0][:8]}-{release.manifest_digest[7:19]}"
    assert git(checkout, "diff", "--numstat") == "1\t1\tflavors.yaml"
    assert f"  version: {release.version}   # of a\n" in (checkout / "flavors.yaml").read_text()
    store = store_of(checkout)
    report = verify(store, store.get(release.version))
    assert report.problems == []
    assert report.objects >= 7


def test_the_record_says_who_from_what_and_what_came_out(checkout):
    release = publish("a", root=checkout)
    store = store_of(checkout)
    (record,) = (each.document for each in records(store, store.get(release.version)))
    assert record["who"] == "tester"
    assert record["commit"] == git(checkout, "rev-parse", "HEAD")
    assert record["dirty"] == []
    assert record["verification"]["predicted"] is True
    assert record["verification"]["outputs"] is not None
    assert set(record["seconds"]) >= {"pull model", "upload layers", "verify"}
    assert record["metrics"] == {"accuracy": 0.5}


def test_publishing_the_same_again_is_the_same_version_and_sends_nothing(checkout, trained):
    first = publish("a", root=checkout)
    before = sorted((checkout / ".adroit/bundles").rglob("*"))
    again = publish("a", root=checkout, run_id=trained.good[0])
    assert again.version == first.version
    assert not any(sent for layer in again.layers for sent in layer.sent.values())
    assert sorted((checkout / ".adroit/bundles").rglob("*")) == before


def test_a_published_flavor_with_the_same_source_is_nothing_to_do(checkout):
    first = publish("a", root=checkout)
    again = publish("a", root=checkout)
    assert (again.version, again.news) == (first.version, False)


def test_a_published_flavor_with_changed_source_names_the_files_and_the_command(checkout):
    publish("a", root=checkout)
    (checkout / "projects/doubler/features.py").write_text("SCALE = 3\n")
    (checkout / "projects/doubler/extra.py").write_text("")
    commit(checkout, "change")
    with pytest.raises(RefusedError) as error:
        publish("a", root=checkout)
    assert "changed projects/doubler/features.py" in str(error.value)
    assert "added projects/doubler/extra.py" in str(error.value)
    assert "python republish.py --flavor a" in str(error.value)


def test_a_comment_in_the_config_and_the_training_flow_make_nothing_stale(checkout):
    publish("a", root=checkout)
    with (checkout / "projects/doubler/config.yaml").open("a") as file:
        file.write("# a comment\n")
    (checkout / "projects/doubler/flow.py").write_text("# trains\n")
    (checkout / "README.md").write_text("# read\n")
    commit(checkout, "comments")
    assert publish("a", root=checkout).news is False


def test_another_conda_env_is_a_change_and_an_unknown_one_an_error(checkout):
    publish("a", root=checkout, verify="none")
    flavors, envs = checkout / "flavors.yaml", checkout / "conda_envs.yaml"
    flavors.write_text(flavors.read_text().replace("conda_env: plain", "conda_env: plane"))
    with pytest.raises(ConfigError, match="plane"):
        publish("a", root=checkout)
    envs.write_text(envs.read_text() + "plane:\n  environment: environment.yml\n")
    commit(checkout, "another env")
    with pytest.raises(RefusedError, match="conda env, which was plain"):
        publish("a", root=checkout)


def test_the_same_content_from_anywhere_is_the_same_version(checkout, tmp_path, trained):
    here = publish("a", root=checkout).version
    other = tmp_path / "elsewhere" / "clone"
    git(tmp_path, "clone", "-q", str(checkout), str(other))
    git(other, "checkout", "-q", "--", "flavors.yaml")
    script = (
        "import os, sys; os.umask(0o077); from adroit_publish import publish; "
        "print(publish('a', verify='none').version)"
    )
    environment = os.environ | {
        "TZ": "Asia/Kathmandu",
        "LC_ALL": "C",
        "PYTHONHASHSEED": "7",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "USER": "somebody-else",
    }
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=other / "projects",
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip().splitlines()[-1] == here


def test_large_files_are_layers_of_their_own_and_shared_between_versions(tmp_path, trained):
    root = make_checkout(tmp_path / "repo", trained.tracking_uri, {"a": trained.weighty})
    release = publish("a", root=root, verify="none")
    assert [layer.kind for layer in release.layers] == [
        "model",
        "model",
        "runtime",
        "source",
        "record",
    ]
    (root / "projects/doubler/features.py").write_text("SCALE = 5\n")
    commit(root, "change")
    again = publish("a", root=root, run_id=trained.weighty, verify="none")
    assert again.version != release.version
    sent = [layer.kind for layer in again.layers if any(layer.sent.values())]
    assert sent == ["source", "record"]


def test_a_model_without_an_input_example_is_published_with_a_warning(checkout, trained):
    release = publish("a", root=checkout, run_id=trained.without_example)
    assert "no input example" in release.warnings[0]
    assert release.verification["predicted"] is False


def test_a_model_that_reads_a_credential_sees_none_and_nothing_becomes_visible(
    checkout, trained, monkeypatch
):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-of-the-publisher")
    before = visible(checkout)
    with pytest.raises(VerificationError) as error:
        publish("a", root=checkout, target="local", run_id=trained.spy)
    assert "AWS_SECRET_ACCESS_KEY" in str(error.value)
    assert "canary-of-the-publisher" not in str(error.value)
    assert visible(checkout) == before == ([], before[1])


def test_a_bundle_that_was_not_verified_is_verified_when_asked_again(checkout):
    first = publish("a", root=checkout, verify="none")
    git(checkout, "checkout", "-q", "flavors.yaml")
    again = publish("a", root=checkout)
    assert again.version == first.version
    store = store_of(checkout)
    looked = [r.verification.looked for r in records(store, store.get(first.version))]
    assert sorted(looked) == [False, True]


def test_a_rotted_blob_is_named_by_verify_and_healed_by_publishing_again(checkout, trained):
    release = publish("a", root=checkout, verify="none")
    blob = checkout / ".adroit/bundles/blobs/sha256" / release.layers[0].digest[7:]
    blob.chmod(0o644)
    data = blob.read_bytes()
    blob.write_bytes(data[:5000] + bytes([data[5000] ^ 1]) + data[5001:])
    store = store_of(checkout)
    report = verify(store, store.get(release.version))
    assert len(report.problems) >= 1
    assert all(blob.name in problem or "model/" in problem for problem in report.problems)
    publish("a", root=checkout, run_id=trained.good[0], verify="none")
    assert verify(store, store.get(release.version)).problems == []


@pytest.mark.parametrize("link", [True, False])
def test_only_a_layout_that_may_link_shares_bytes_with_the_model(tmp_path, link):
    from adroit_publish.artifacts.pull import LocalFile
    from adroit_publish.bundle.layer import PackedFile
    from adroit_publish.gates.layout import lay_out

    model = tmp_path / "weights"
    model.write_bytes(b"weights")
    file = PackedFile("opt/adroit/model/weights", LocalFile(str(model), 7))
    lay_out([file], tmp_path / "layout", link=link)
    laid_out = tmp_path / "layout" / "model" / "weights"
    assert laid_out.read_bytes() == b"weights"
    assert laid_out.samefile(model) is link


def test_what_was_seen_to_predict_is_what_was_stored(checkout, trained, monkeypatch):
    """A file that changes between the upload and the sandbox is no verification."""
    from adroit_publish.publish import verification

    lay_out = verification.lay_out

    def changed_meanwhile(files, directory, **options):
        (code,) = [file for file in files if file.path.endswith(".py") and "/model/" in file.path]
        text = Path(code.content.path).read_text()
        Path(code.content.path).write_text(text.replace("* 2", "* 3"))
        restore.append((code.content.path, text))
        lay_out(files, directory, **options)

    restore: list[tuple[str, str]] = []
    monkeypatch.setattr(verification, "lay_out", changed_meanwhile)
    try:
        with pytest.raises(VerificationError, match="changed while it was used"):
            publish("a", root=checkout)
    finally:
        for path, text in restore:
            Path(path).write_text(text)
    assert visible(checkout)[0] == []


# What is refused, each with one message; nothing changes.


def refused(root, kind, *, match, flavor="a", **options):
    before = (root / "flavors.yaml").read_bytes(), sorted(root.glob(".adroit/**/*"))
    with pytest.raises(kind, match=match) as error:
        publish(flavor, root=root, **options)
    assert ((root / "flavors.yaml").read_bytes(), sorted(root.glob(".adroit/**/*"))) == before
    return str(error.value)


def test_an_unknown_flavor_shows_the_nearest_names(checkout):
    (checkout / "flavors.yaml").write_text(
        (checkout / "flavors.yaml").read_text().replace("a:\n", "ranker:\n", 1)
    )
    assert "ranker" in refused(checkout, ConfigError, match="rankr", flavor="rankr")


def test_an_unknown_target_and_an_unheld_profile_list_the_targets(checkout, monkeypatch):
    assert "local" in refused(checkout, ConfigError, match="lokal", target="lokal")
    monkeypatch.setenv("AWS_PROFILE", "nobodys")
    assert "local" in refused(checkout, ConfigError, match="nobodys")


def test_a_flavor_without_a_version_says_what_to_do(tmp_path, trained):
    root = make_checkout(tmp_path / "repo", trained.tracking_uri, {"a": ""})
    assert "--mlflow-run-id" in refused(root, ConfigError, match="no version")


def test_a_missing_config_is_an_error_that_names_it(checkout):
    (checkout / "projects/doubler/config.yaml").unlink()
    refused(checkout, ConfigError, match=r"projects/doubler/config\.yaml")


def test_a_run_that_does_not_exist_is_a_source_error(checkout):
    refused(checkout, SourceError, match="f" * 32, run_id="f" * 32)


def test_an_artifact_that_the_run_lacks_names_what_it_has(checkout):
    text = (checkout / "flavors.yaml").read_text()
    (checkout / "flavors.yaml").write_text(
        text.replace("  version", "  artifact: other\n  version")
    )
    assert "model" in refused(checkout, ModelNotFound, match="other")


def test_uncommitted_source_is_refused_by_name_unless_it_is_allowed(checkout):
    clean = publish("a", root=checkout, verify="none").version
    git(checkout, "checkout", "-q", "flavors.yaml")
    (checkout / "projects/doubler/features.py").write_text("SCALE = 4\n")
    refused(checkout, DirtyTree, match=r"features\.py")
    release = publish("a", root=checkout, allow_dirty=True, verify="none")
    assert release.dirty == ("projects/doubler/features.py",)
    assert release.version != clean


def test_a_version_of_another_target_says_where_and_from_which_run(checkout, trained):
    with (checkout / "adroit.toml").open("a") as file:
        file.write(
            f'\n[targets.other]\ntracking_uri = "{trained.tracking_uri}"\n'
            'bundles = "file:.adroit/other"\n'
        )
    publish("a", root=checkout, target="other", verify="none")
    message = refused(checkout, RefusedError, match="another target")
    assert "target other" in message
    assert f"--mlflow-run-id={trained.good[0]}" in message


def test_a_held_flavor_is_refused_with_its_reason(checkout):
    with (checkout / "flavors.yaml").open("a") as file:
        file.write("  hold: rolled back on Monday\n")
    refused(checkout, RefusedError, match="rolled back on Monday")


def test_a_handler_that_the_bundle_lacks_is_named(checkout):
    config = checkout / "projects/doubler/config.yaml"
    config.write_text(
        config.read_text().replace(
            "adroit.serving.mlflow_handler:MlflowHandler", "projects.doubler.handler:MyHandler"
        )
    )
    commit(checkout, "a handler that is not there")
    with pytest.raises(VerificationError, match=r"projects\.doubler\.handler"):
        publish("a", root=checkout)
    assert visible(checkout)[0] == []


# Several flavors.


def test_one_broken_flavor_does_not_stop_the_preparation_of_the_others(tmp_path, trained):
    versions = {"a": trained.good[0], "b": "e" * 32, "c": trained.good[1]}
    root = make_checkout(tmp_path / "repo", trained.tracking_uri, versions)
    checkout = open_checkout(root, {})
    assert pending(checkout) == ("a", "b", "c")
    a, b, c = prepare(checkout, ["a", "b", "c"], PublishOptions())
    assert (type(a), type(b), type(c)) == (PublishJob, Failure, PublishJob)
    assert b.flavor == "b"


def test_everything_the_flow_passes_between_its_steps_can_be_pickled_and_is_small(
    checkout, trained
):
    import pickle

    jobs = prepare(open_checkout(checkout, {}), ["a"], PublishOptions())
    assert len(pickle.dumps(jobs)) < 20_000
    assert pickle.loads(pickle.dumps(jobs)) == jobs
    release = publish("a", root=checkout, verify="none")
    assert pickle.loads(pickle.dumps(release)) == release
    json.dumps(release.as_dict())


def test_what_a_model_may_run_stays_so_and_what_a_bundle_does_not_keep_is_named(tmp_path):
    from adroit_publish.versions.pull import pull
    from tests.servers.mlflow_servers import log_model

    tracking_uri = f"sqlite:///{tmp_path}/mlflow.db"
    run_id, _ = log_model(tracking_uri, tmp_path / "artifacts", "model")
    (model,) = [path.parent for path in tmp_path.glob("artifacts/**/MLmodel")]
    (model / "bin").mkdir()
    (model / "bin" / "tool").write_text("#!/bin/sh\n")
    (model / "bin" / "tool").chmod(0o755)
    (model / "scratch" / "empty").mkdir(parents=True)
    root = make_checkout(tmp_path / "repo", tracking_uri, {"a": run_id})
    release = publish("a", root=root, verify="none")

    assert [line for line in release.warnings if "scratch/empty" in line]
    assert release.vouched == {"in place": sum(path.is_file() for path in model.rglob("*"))}
    store = store_of(root)
    pull(store, store.get(release.version), tmp_path / "pulled")
    (tool,) = tmp_path.glob("pulled/**/bin/tool")
    (mlmodel,) = tmp_path.glob("pulled/**/model/MLmodel")
    assert (os.access(tool, os.X_OK), mlmodel.stat().st_mode & 0o111) == (True, 0)
    (record,) = records(store, store.get(release.version))
    assert record.document["vouched"] == release.vouched
