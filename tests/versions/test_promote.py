"""Promoting a version from one target to another: one digest, what is missing, nothing halfway."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from textwrap import dedent

import pytest

from adroit_publish import publish
from adroit_publish.aws import session as aws
from adroit_publish.bundle.digest import Digest
from adroit_publish.bundle.manifest import RECORD_MEDIA_TYPE, parse_manifest
from adroit_publish.checkout import open_checkout
from adroit_publish.custody.check import verify
from adroit_publish.errors import ConfigError, PublishError, RefusedError, VerificationError
from adroit_publish.places import open_places, open_store
from adroit_publish.registry import referrers as registry_referrers
from adroit_publish.registry.image_reference import Tag
from adroit_publish.stores.records import records
from adroit_publish.stores.s3 import objects as s3
from adroit_publish.stores.s3 import parts as s3_parts
from adroit_publish.versions.promote import promote
from tests.servers.eng_account import BASE, eng_account, images, push_base
from tests.servers.object_servers import SECRET_KEY
from tests.servers.registry_servers import docker_registry
from tests.support.checkouts import FLOW, commit, make_checkout

COSIGN = "application/vnd.dev.cosign.artifact.sig.v1+json"
STAGING = """
[targets.staging]
tracking_uri = "{tracking_uri}"
bundles = "file:.adroit/staging"

[targets.prod]
tracking_uri = "{tracking_uri}"
bundles = "file:.adroit/prod"
"""


def run(root, *arguments, environ=None, check=True):
    done = subprocess.run(
        [sys.executable, "-m", "adroit_publish", *map(str, arguments)],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(FLOW.parent)} | dict(environ or {}),
        capture_output=True,
        text=True,
        check=False,
    )
    if check:
        assert done.returncode == 0, done.stderr
    return done


def promoted(root, version, source, destination, **environ):
    checkout = open_checkout(root, {})
    here, there = (checkout.target(name) for name in (source, destination))
    return promote(checkout, version, here, there, os.environ | environ, verify="none")


def store_of(root, target):
    return open_store(open_checkout(root, {}).target(target))


def written(directory):
    """Every file with what tells when it was written."""
    files = (path for path in directory.rglob("*") if path.is_file())
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


# From a directory to a directory.


@pytest.fixture(scope="module")
def staged(tmp_path_factory, trained):
    """A checkout with a version in the target staging; read only."""
    lines = STAGING.format(tracking_uri=trained.tracking_uri)
    root = make_checkout(
        tmp_path_factory.mktemp("s") / "repo",
        trained.tracking_uri,
        {"a": trained.weighty},
        target_lines=lines,
    )
    return root, publish("a", root=root, target="staging", verify="none")


@pytest.fixture
def checkout(staged, tmp_path):
    """A copy of that checkout, and the version."""
    return Path(shutil.copytree(staged[0], tmp_path / "repo")), staged[1].version


def test_the_same_version_is_whole_at_the_other_target(checkout, staged):
    root, version = checkout
    flavors = (root / "flavors.yaml").read_bytes()
    before = {path: path.read_bytes() for path in (root / ".adroit/staging").rglob("*.json")}
    text = run(root, "promote", version, "--from", "staging", "--to", "prod").stdout
    assert f"  version: {version}" in text
    store = store_of(root, "prod")
    published = store.get(version)
    assert published == store_of(root, "staging").get(version)
    assert verify(store, published).problems == []
    assert (root / "flavors.yaml").read_bytes() == flavors
    assert {path: path.read_bytes() for path in before} == before
    ours = list(store.attached(published, RECORD_MEDIA_TYPE))
    assert set(store_of(root, "staging").attached(published, RECORD_MEDIA_TYPE)) < set(ours)
    (record,) = (each for each in records(store, published) if each.promoted)
    assert (record.promoted.source, record.promoted.destination) == ("staging", "prod")
    assert record.who == "tester"
    shown = run(root, "show", version, "--target", "prod").stdout
    assert re.search(r"promoted +from staging to prod", shown)
    history = run(root, "history", published.model_name, "--target", "prod").stdout
    assert re.search(r"promoted .*from staging to prod", history)
    assert history.count("published") == 1
    assert re.search(rf"commit +{staged[1].commit}", shown)


def test_promoted_twice_is_nothing_to_do(checkout):
    root, version = checkout
    first = promoted(root, version, "staging", "prod")
    assert first.news
    (place,) = first.places
    assert first.sent_bytes(place) > 20 << 20
    there = written(root / ".adroit/prod")
    waived = ("--verify", "none")
    again = json.loads(
        run(root, "promote", "a", "--from", "staging", "--to", "prod", "--json", *waived).stdout
    )
    assert again["news"] is False
    assert not any(sent for layer in again["layers"] for sent in layer["sent"].values())
    assert written(root / ".adroit/prod") == there


def test_a_blob_that_rotted_at_the_destination_is_healed(checkout):
    root, version = checkout
    first = promoted(root, version, "staging", "prod")
    blob = root / ".adroit/prod/blobs/sha256" / first.layers[0].digest[7:]
    blob.chmod(0o644)
    with blob.open("r+b") as file:
        file.write(b"rotten")
    again = promoted(root, version, "staging", "prod")
    assert [any(layer.sent.values()) for layer in again.layers].count(True) == 1
    store = store_of(root, "prod")
    assert verify(store, store.get(version)).problems == []


def test_every_damaged_object_is_refused_with_nothing_visible(checkout):
    root, version = checkout
    source = root / ".adroit/staging"
    fired = 0
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        if path.name == "oci-layout":
            continue  # a constant; nothing reads it
        data = path.read_bytes()
        path.chmod(0o644)
        for damage in (data[:-1] + bytes([data[-1] ^ 1]), data[: len(data) // 2]):
            path.write_bytes(damage)
            shutil.rmtree(root / ".adroit/prod", ignore_errors=True)
            with pytest.raises(PublishError) as error:
                promoted(root, version, "staging", "prod")
            assert error.value.exit_code == 6, (path, error.value)
            assert store_of(root, "prod").find("doubler", version) is None
            fired += 1
        path.write_bytes(data)
    assert fired >= 16
    assert promoted(root, version, "staging", "prod").news


def test_a_blob_that_is_gone_at_the_source_is_named(checkout, staged):
    root, version = checkout
    layer = staged[1].layers[0].digest[7:]
    (root / ".adroit/staging/blobs/sha256" / layer).unlink()
    with pytest.raises(PublishError, match=layer):
        promoted(root, version, "staging", "prod")
    assert store_of(root, "prod").find("doubler", version) is None


def test_killed_anywhere_the_same_again_copies_what_is_missing(checkout):
    root, version = checkout
    kill_at, fired = 1, 0
    while True:
        shutil.rmtree(root / ".adroit/prod", ignore_errors=True)
        if not killed_at_link(root, version, kill_at):
            break
        fired += 1
        stored = {path.name for path in (root / ".adroit/prod").glob("blobs/sha256/*")}
        store = store_of(root, "prod")
        if visible := store.find("doubler", version):
            assert verify(store, visible).problems == []
        again = promoted(root, version, "staging", "prod")
        sent = {layer.digest[7:] for layer in again.layers if any(layer.sent.values())}
        assert not sent & stored
        assert verify(store, store.get(version)).problems == []
        assert len(records(store, store.get(version))) == 2
        assert not any((root / ".adroit/prod/tmp").iterdir())
        kill_at += 1
    assert fired >= 10  # every object that a promotion makes


def killed_at_link(root, version, number):
    """Promotes in a fork that dies right after its ``number``-th object; tells if it did."""
    child = os.fork()
    if child == 0:
        link, seen = os.link, 0

        def deadly(*arguments):
            nonlocal seen
            link(*arguments)
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

        os.link = deadly
        os.environ["METAFLOW_USER"] = "killed"  # its record is not what the next one would write
        try:
            promoted(root, version, "staging", "prod")
        except BaseException:  # noqa: BLE001  nothing may get back into pytest
            os._exit(99)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def test_the_same_target_twice_and_an_unknown_one_are_refused(checkout):
    root, version = checkout
    done = run(root, "promote", version, "--from", "prod", "--to", "prod", check=False)
    assert done.returncode == 2
    assert "local, staging" in done.stderr
    done = run(root, "promote", version, "--from", "stagign", "--to", "prod", check=False)
    assert (done.returncode, "no target 'stagign'" in done.stderr) == (2, True)
    with pytest.raises(ConfigError, match="no version"):
        promoted(root, version, "prod", "staging")


# From one account to another.


@pytest.fixture(scope="module")
def accounts(tmp_path_factory, trained):
    """The Eng account, and beside it a staging one: another bucket, another registry.

    Staging's profile may only read S3, so whoever writes with it, or reads with Eng's, is seen.
    """
    directory = tmp_path_factory.mktemp("accounts")
    (directory / "staging").mkdir()
    with (
        eng_account(directory, trained.tracking_uri) as eng,
        docker_registry(directory / "staging") as registry,
    ):
        with (directory / "aws").open("a") as file:
            file.write(
                "[profile staging]\nregion = eu-west-1\n"
                f"aws_access_key_id = AKIAREADERREADERREAD\naws_secret_access_key = {SECRET_KEY}\n"
            )
        push_base(registry, BASE)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in eng.environ.items():
                patch.setenv(name, value)
            s3_client(eng).create_bucket(Bucket="nextdoor-staging")
            yield eng, registry


def s3_client(eng):
    from tests.servers.object_servers import boto3_session

    return boto3_session().client("s3", endpoint_url=eng.s3_endpoint)


@pytest.fixture
def two(accounts, tmp_path, trained):
    """A checkout with a version published to staging; the accounts' destination is empty."""
    eng, registry = accounts
    staging = dedent(
        f"""
        [targets.staging]
        profiles = ["staging"]
        account = "123456789012"
        tracking_uri = "{trained.tracking_uri}"
        bundles = "s3://nextdoor-staging/bundles"
        images = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/adroit"
        images_endpoint = "{registry.url}"
        """
    )
    flavors = {"a": trained.weighty}
    lines = eng.target_lines.replace("/bundles", f"/{tmp_path.name}/bundles")
    lines = lines.replace(".amazonaws.com/adroit", f".amazonaws.com/{tmp_path.name.strip('_')}")
    root = make_checkout(
        tmp_path / "repo", trained.tracking_uri, flavors, target_lines=lines + staging
    )
    (root / "conda_envs.yaml").write_text(f"plain:\n  image: {BASE}\n")
    (root / "projects/doubler/unique.py").write_text(f"NAME = {tmp_path.name!r}\n")
    commit(root, "an image for the env")
    return root, publish("a", root=root, target="staging", verify="none").version


def places(root, target):
    return open_places(open_checkout(root, {}).target(target), "doubler")


def mutating(server):
    lines = server.log.read_text().splitlines()
    pattern = re.compile(
        r'http\.request\.method=(PUT|POST|PATCH|DELETE) .*http\.request\.uri="?(\S+)'
    )
    done = [pattern.search(line) for line in lines if "response completed" in line]
    return Counter((match[1], match[2]) for match in done if match)


def test_one_digest_in_both_accounts_with_everything_attached(two, accounts):
    root, version = two
    here = places(root, "staging")
    published = here.store.get(version)
    signature = registry_referrers.attach(here.images, published.manifest, COSIGN, b"signed")
    read_only = mutating(accounts[1])
    done = promoted(root, version, "staging", "eng")
    assert mutating(accounts[1]) == read_only
    there = places(root, "eng")
    assert there.store.get(version) == published
    assert verify(there.store, published).problems == []
    tagged = there.images.resolve(Tag(version))
    assert tagged.descriptor.digest == published.manifest.digest
    for layer in parse_manifest(tagged.data, "x").layers:
        assert Digest.of(b"".join(map(bytes, there.images.read_blob(layer)))) == layer.digest
    listed = registry_referrers.referrers(there.images, published.manifest.digest)
    assert signature.digest in {each.digest for each in listed}
    assert len(listed) == 3  # the publish's record, the signature, the promotion's record
    assert len(list(there.store.referrers(published))) == 2
    kinds = {layer.kind: layer for layer in done.layers}
    store, registry = done.places
    assert kinds["model"].sent == {store: True, registry: True}
    assert kinds["env"].sent == {registry: False}  # mounted from the account's own env


def test_a_layer_that_rotted_in_the_destinations_registry_is_not_promoted_again(two, accounts):
    root, version = two
    promoted(root, version, "staging", "eng")
    there = places(root, "eng")
    layer = there.store.manifest(there.store.get(version)).own_layers[-1]
    blobs = accounts[0].registry.root / "docker/registry/v2/blobs/sha256"
    path = blobs / layer.digest.hex[:2] / layer.digest.hex / "data"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(VerificationError, match="not whole") as error:
        promoted(root, version, "staging", "eng")
    assert str(layer.digest) in str(error.value)


def test_promoted_twice_between_accounts_sends_no_request_that_writes(two, accounts):
    root, version = two
    promoted(root, version, "staging", "eng")
    before = mutating(accounts[0].registry)
    keys = list(store_of(root, "eng").objects.keys(""))
    again = promoted(root, version, "staging", "eng")
    assert not again.news
    assert mutating(accounts[0].registry) == before
    assert list(store_of(root, "eng").objects.keys("")) == keys


def test_a_base_comes_from_the_source_where_the_destination_lacks_it(two, accounts):
    root, version = two
    (root / "conda_envs.yaml").write_text("plain:\n  image: adroit-env/other:1\n")
    done = promoted(root, version, "staging", "eng")
    env = [layer for layer in done.layers if layer.kind == "env"]
    assert env
    assert all(layer.sent == {done.places[1]: True} for layer in env)


def test_a_base_that_is_nowhere_is_refused_before_any_write(two, accounts):
    root, version = two
    (root / "conda_envs.yaml").write_text("plain:\n  image: adroit-env/other:1\n")
    toml = root / "adroit.toml"
    lines = toml.read_text()
    start = lines.index("[targets.staging]")
    staging = re.sub(r"images.*\n", "", lines[start:])  # its registry is not named any more
    toml.write_text(lines[:start] + staging)
    before = mutating(accounts[0].registry)
    with pytest.raises(RefusedError, match="base cannot be had") as error:
        promoted(root, version, "staging", "eng")
    wanted = parse_manifest(
        images(accounts[1], "adroit-env/plain").resolve(Tag("2026.11")).data, "x"
    )
    assert error.value.wanted.split("\n") == [layer.digest for layer in wanted.layers]
    assert list(store_of(root, "eng").objects.keys("")) == []
    assert mutating(accounts[0].registry) == before


def test_the_source_is_read_as_its_own_profile(two, accounts, tmp_path, monkeypatch):
    root, version = two
    config = Path(os.environ["AWS_CONFIG_FILE"]).read_text()
    (tmp_path / "aws").write_text(config.replace("AKIAREADERREADERREAD", "AKIANOBODY"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws"))
    with pytest.raises(RefusedError, match="does not accept the credentials"):
        promoted(root, version, "staging", "eng")


def test_a_profile_that_is_named_has_its_own_region(two):
    assert os.environ["AWS_DEFAULT_REGION"] == "us-east-1"
    assert aws.session("staging").region_name == "eu-west-1"
    assert aws.session("staging", "us-west-2").region_name == "us-west-2"
    assert aws.session(None).region_name == "us-east-1"


def test_the_destination_is_written_as_the_environments_profile(two, monkeypatch):
    root, version = two
    monkeypatch.setenv("AWS_PROFILE", "staging")  # which may only read
    with pytest.raises(RefusedError):
        promoted(root, version, "staging", "eng")
    monkeypatch.setenv("AWS_PROFILE", "eng")
    assert store_of(root, "eng").find("doubler", version) is None
    assert promoted(root, version, "staging", "eng").news


def test_credentials_of_another_account_are_refused_before_any_write(two, accounts):
    root, version = two
    toml = root / "adroit.toml"
    eng, staging = toml.read_text().split("[targets.staging]")
    eng = eng.replace('account = "123456789012"', 'account = "999999999999"')
    toml.write_text(f"{eng}[targets.staging]{staging}")
    before = mutating(accounts[0].registry)
    with pytest.raises(RefusedError, match="another account"):
        promoted(root, version, "staging", "eng")
    assert mutating(accounts[0].registry) == before


def test_a_large_blob_that_is_damaged_is_never_completed(two, accounts, monkeypatch):
    root, version = two
    monkeypatch.setattr(s3, "SINGLE_PUT_BYTES", 8 << 20)
    monkeypatch.setattr(s3_parts, "PART_BYTES", 8 << 20)
    here = places(root, "staging")
    layer = max(here.store.manifest(here.store.get(version)).own_layers, key=lambda x: x.size_bytes)
    key = f"bundles/blobs/sha256/{layer.digest.hex}"
    client = s3_client(accounts[0])
    data = client.get_object(Bucket="nextdoor-staging", Key=key)["Body"].read()
    client.put_object(Bucket="nextdoor-staging", Key=key, Body=b"\1" + data[1:])
    try:
        with pytest.raises(VerificationError, match="could not be copied"):
            promoted(root, version, "staging", "eng")
        there = places(root, "eng")
        assert there.store.find("doubler", version) is None
        assert there.images.find(Tag(version)) is None
        assert not there.store.has_blob(layer)
    finally:
        client.put_object(Bucket="nextdoor-staging", Key=key, Body=data)
    assert promoted(root, version, "staging", "eng").news
    assert b"".join(places(root, "eng").store.read_blob(layer)) == data


def test_a_version_without_a_base_is_no_image_and_one_with_a_base_needs_a_registry(two, staged):
    root, version = two
    lines = (root / "adroit.toml").read_text()
    plain = staged[0] / ".adroit/staging"
    (root / "adroit.toml").write_text(
        f'{lines}\n[targets.plain]\ntracking_uri = "sqlite:///x.db"\nbundles = "file:{plain}"\n'
    )
    with pytest.raises(RefusedError, match="has no base") as error:
        promoted(root, staged[1].version, "plain", "eng")
    assert f"--mlflow-run-id={staged[1].run_id}" in error.value.next_step
    with pytest.raises(RefusedError, match="has no images"):
        promoted(root, version, "staging", "plain")
    assert store_of(root, "eng").find("doubler", staged[1].version) is None
    assert store_of(root, "plain").find("doubler", version) is None
