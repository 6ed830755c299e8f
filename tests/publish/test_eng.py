"""A publish to the Eng account: S3 and ECR, one digest in both."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from adroit_publish import publish
from adroit_publish.bundle.digest import Digest
from adroit_publish.bundle.manifest import RECORD_MEDIA_TYPE, parse_manifest
from adroit_publish.checkout import open_checkout
from adroit_publish.custody.check import verify
from adroit_publish.errors import ConfigError, RefusedError
from adroit_publish.places import open_places, open_store
from adroit_publish.publish.prepare import prepare
from adroit_publish.publish.release import PublishOptions
from adroit_publish.registry import referrers as registry_referrers
from adroit_publish.registry.image_reference import Tag
from tests.servers.eng_account import BASE, eng_account, images, push_base
from tests.servers.mlflow_servers import log_model, mlflow_server
from tests.support.checkouts import FLOW, commit, make_checkout
from tests.support.requirements import require


@pytest.fixture(scope="module")
def eng(tmp_path_factory, trained):
    with eng_account(tmp_path_factory.mktemp("eng"), trained.tracking_uri) as account:
        yield account


@pytest.fixture
def checkout(tmp_path, trained, eng, monkeypatch):
    for name, value in eng.environ.items():
        monkeypatch.setenv(name, value)
    flavors = {"a": trained.weighty, "b": trained.good[0]}
    root = make_checkout(
        tmp_path / "repo", trained.tracking_uri, flavors, target_lines=eng.target_lines
    )
    envs = f"plain:\n  image: {BASE}\n  environment: environment.yml\n"
    (root / "conda_envs.yaml").write_text(envs)
    commit(root, "an image for the env")
    return root


def target_of(root):
    return open_checkout(root, {}).target("eng")


def requests_to(server, *methods):
    """The mutating requests in a registry's log."""
    lines = server.log.read_text().splitlines()
    found = [
        re.search(r'http\.request\.method=(\w+) .*http\.request\.uri="?([^" ]+)', x) for x in lines
    ]
    return [
        (m[1], m[2]) for m in found if m and m[1] in methods and "response completed" in m.string
    ]


def test_the_flow_publishes_one_digest_to_both_places(checkout, eng):
    done = subprocess.run(
        [sys.executable, str(FLOW), "run", "--flavor=a", "--verify=none"],
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    version = open_checkout(checkout).flavors["a"].version
    places = open_places(target_of(checkout), "doubler")
    published = places.store.get(version)
    tagged = places.images.resolve(Tag(version))
    assert tagged.descriptor.digest == published.manifest.digest
    assert tagged.descriptor.digest.hex[:12] == version[-12:]
    assert tagged.data == places.store.document(published.manifest)
    assert verify(places.store, published).problems == []
    in_registry = list(
        registry_referrers.attached(places.images, tagged.descriptor.digest, RECORD_MEDIA_TYPE)
    )
    assert in_registry == list(places.store.attached(published, RECORD_MEDIA_TYPE))


def test_the_env_is_pinned_by_digest_and_its_layers_lie_beneath_ours(checkout, eng):
    base = images(eng.registry, "adroit-env/plain").resolve(Tag("2026.11"))
    release = publish("b", root=checkout, verify="none")
    assert release.conda_env_digest == base.descriptor.digest
    places = open_places(target_of(checkout), "doubler")
    tagged = places.images.resolve(Tag(release.version))
    manifest = parse_manifest(tagged.data, "here")
    wanted = [layer.digest for layer in parse_manifest(base.data, "here").layers]
    assert [layer.digest for layer in manifest.base_layers] == wanted
    assert all(places.images.has_blob(layer) for layer in manifest.layers)
    assert not any(places.store.has_blob(layer) for layer in manifest.base_layers)


def test_a_second_flavor_sends_no_weights(checkout, eng, trained):
    first = publish("a", root=checkout, verify="none")
    (checkout / "projects/doubler/features.py").write_text("SCALE = 9\n")
    commit(checkout, "change")
    mark = len(requests_to(eng.registry, "PUT", "PATCH"))
    again = publish("a", root=checkout, run_id=trained.weighty, verify="none")
    assert again.version != first.version
    for place in again.places:
        sent = [layer.kind for layer in again.layers if layer.sent[place]]
        assert sent == ["source", "record"]
        assert again.sent_bytes(place) < 20_000
    uploads = [
        uri for _, uri in requests_to(eng.registry, "PUT", "PATCH")[mark:] if "/uploads/" in uri
    ]
    assert len(uploads) <= 6  # source, record, config, and the publish record's parts


def test_the_same_again_sends_nothing_to_either_place(checkout, eng, trained):
    publish("b", root=checkout, verify="none")
    mark = len(requests_to(eng.registry, "PUT", "POST", "PATCH", "DELETE"))
    again = publish("b", root=checkout, run_id=trained.good[0], verify="none")
    assert not any(sent for layer in again.layers for sent in layer.sent.values())
    assert requests_to(eng.registry, "PUT", "POST", "PATCH", "DELETE")[mark:] == []


def test_skopeo_pulls_the_image_by_digest(checkout, eng, tmp_path):
    require(shutil.which("skopeo"), "skopeo is not installed (a Debian package)")
    release = publish("b", root=checkout, verify="none")
    source = f"docker://{eng.registry.host}/adroit/doubler@{release.manifest_digest}"
    options = ("-q", "--insecure-policy", "--src-tls-verify=false")
    subprocess.run(["skopeo", "copy", *options, source, f"dir:{tmp_path}/image"], check=True)
    manifest = (tmp_path / "image" / "manifest.json").read_bytes()
    assert Digest.of(manifest) == release.manifest_digest


def test_pull_oci_is_complete_with_the_envs_layers_and_umoci_takes_it(checkout, eng, tmp_path):
    require(shutil.which("umoci"), "umoci is not installed (a Debian package)")
    release = publish("b", root=checkout, verify="none")
    layout = tmp_path / "layout"
    subprocess.run(
        [sys.executable, "-m", "adroit_publish", "pull", "--oci", release.version, str(layout)],
        cwd=checkout,
        env=os.environ | {"PYTHONPATH": str(FLOW.parent)},
        check=True,
    )
    image = f"{layout}:{release.version}"
    subprocess.run(["umoci", "unpack", "--rootless", "--image", image, tmp_path / "u"], check=True)
    root = tmp_path / "u" / "rootfs"
    assert (root / "opt/conda/marker").read_text() == "1"
    assert (root / "opt/adroit/bundle.json").is_file()
    config = json.loads((tmp_path / "u" / "config.json").read_text())
    assert config["process"]["args"] == [
        "/opt/conda/envs/adroit/bin/python",
        "-m",
        "adroit.serving",
    ]


def test_ecr_repositories_are_made_immutable_and_scanned(checkout, eng):
    import boto3

    publish("b", root=checkout, verify="none")
    client = boto3.Session(profile_name="eng").client("ecr")
    (repository,) = client.describe_repositories(repositoryNames=["adroit/doubler"])["repositories"]
    assert repository["imageTagMutability"] == "IMMUTABLE"
    assert repository["imageScanningConfiguration"]["scanOnPush"] is True


def test_a_moved_env_tag_is_shown(checkout, eng, trained):
    before = publish("b", root=checkout, verify="none")
    moved = push_base(eng.registry, BASE, marker="2")
    try:
        (job,) = prepare(
            open_checkout(checkout),
            ["b"],
            PublishOptions(target="eng", run_id=trained.good[0], verify="none"),
        )
        assert job.moved_from == before.conda_env_digest
        assert job.env.digest == moved
    finally:
        push_base(eng.registry, BASE)


def test_a_run_of_a_tracking_server_reaches_both_places(tmp_path, eng, monkeypatch):
    for name, value in eng.environ.items():
        monkeypatch.setenv(name, value)
    served = tmp_path / "server"
    served.mkdir()
    with mlflow_server(served) as url:
        run_id, _ = log_model(url, None, "model")
        target = re.sub(r'tracking_uri = "[^"]*"', f'tracking_uri = "{url}"', eng.target_lines)
        root = make_checkout(tmp_path / "repo", url, {"a": run_id}, target_lines=target)
        (root / "conda_envs.yaml").write_text(f"plain:\n  image: {BASE}\n")
        commit(root, "an image for the env")
        release = publish("a", root=root, verify="none")
    places = open_places(target_of(root), "doubler")
    assert places.store.get(release.version).manifest.digest == release.manifest_digest
    tagged = places.images.resolve(Tag(release.version))
    assert tagged.descriptor.digest == release.manifest_digest
    assert release.run_url == f"{url}/#/experiments/1/runs/{run_id}"


# What is refused, before anything is written.


def refused(eng, root, kind, match, **options):
    mark = len(requests_to(eng.registry, "PUT", "POST", "PATCH", "DELETE"))
    store = open_store(target_of(root))
    before = list(store.objects.keys(""))
    with pytest.raises(kind, match=match) as error:
        publish("b", root=root, verify="none", **options)
    assert requests_to(eng.registry, "PUT", "POST", "PATCH", "DELETE")[mark:] == []
    assert list(store.objects.keys("")) == before
    return error.value


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_credentials_of_another_account_are_refused_before_any_write(checkout, eng):
    edit(checkout / "adroit.toml", 'account = "123456789012"', 'account = "999999999999"')
    error = refused(eng, checkout, RefusedError, "another account")
    assert (error.got, error.wanted) == ("123456789012", "999999999999")


def test_images_in_another_account_are_refused(checkout, eng):
    edit(checkout / "adroit.toml", 'images = "123456789012', 'images = "888888888888')
    refused(eng, checkout, RefusedError, "images are in another account")


def test_a_bucket_that_is_not_there_is_refused(checkout, eng):
    edit(checkout / "adroit.toml", "s3://nextdoor-adroit", "s3://nextdoor-nothing")
    with pytest.raises(RefusedError, match="nextdoor-nothing"):
        publish("b", root=checkout, verify="none")


def test_an_env_without_an_image_is_refused(checkout, eng):
    (checkout / "conda_envs.yaml").write_text("plain:\n  environment: environment.yml\n")
    refused(eng, checkout, ConfigError, "has no image")


def test_an_env_image_that_is_gone_is_refused(checkout, eng):
    (checkout / "conda_envs.yaml").write_text("plain:\n  image: adroit-env/plain:1999\n")
    refused(eng, checkout, RefusedError, "no such image")


def test_a_tag_that_someone_moved_is_refused_and_left_alone(checkout, eng, trained):
    release = publish("b", root=checkout, verify="none")
    repository = images(eng.registry, "adroit/doubler")
    other = images(eng.registry, "adroit-env/plain").resolve(Tag("2026.11"))
    for blob in (parse_manifest(other.data, "x").config, *parse_manifest(other.data, "x").layers):
        repository.take_blob(blob, images(eng.registry, "adroit-env/plain"))
    repository.replace_tag(Tag(release.version), other.descriptor, other.data)
    with pytest.raises(RefusedError, match="may not change"):
        publish("b", root=checkout, run_id=trained.good[0], verify="none")
    assert repository.resolve(Tag(release.version)).descriptor == other.descriptor
    found = open_places(target_of(checkout), "doubler").images.resolve(
        Digest(release.manifest_digest)
    )
    repository.replace_tag(Tag(release.version), found.descriptor, found.data)
