"""The chain of custody of a version in S3 and in a registry: looked at where it runs, and healed.

The registry is Debian's docker-registry, which serves a rotted blob under the right
Docker-Content-Digest and keeps what it has when the same blob is pushed again.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

import pytest
from click.testing import CliRunner

from adroit_publish import publish
from adroit_publish.bundle.digest import Descriptor, Digest
from adroit_publish.bundle.manifest import MANIFEST_MEDIA_TYPE, parse_manifest
from adroit_publish.checkout import open_checkout
from adroit_publish.cli.commands import cli
from adroit_publish.custody.check import verify
from adroit_publish.errors import PublishError, StoreError, VerificationError
from adroit_publish.places import open_places
from adroit_publish.registry.http import Endpoint
from adroit_publish.registry.image_reference import Tag
from adroit_publish.stores.blobs import blob_key
from tests.servers.eng_account import BASE, BUCKET, eng_account
from tests.servers.object_servers import boto3_session
from tests.support.checkouts import commit, make_checkout


@pytest.fixture(scope="module")
def eng(tmp_path_factory, trained):
    with eng_account(tmp_path_factory.mktemp("eng"), trained.tracking_uri) as account:
        yield account


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


class Version:
    """A version in both places, and what can happen to it there."""

    def __init__(self, root, eng, release):
        self.root, self.eng, self.release = root, eng, release
        self.name = release.version
        self.places = open_places(open_checkout(root, {}).target("eng"), "doubler")
        self.published = self.places.store.get(self.name)
        self.manifest = self.places.store.manifest(self.published)

    def layer(self, kind):
        own = self.manifest.own_layers
        return next(layer for layer in own if kind in layer.annotations.values())

    def in_registry(self, digest):
        blobs = self.eng.registry.root / "docker/registry/v2/blobs/sha256"
        return blobs / digest.hex[:2] / digest.hex / "data"

    def tag_directory(self):
        repositories = self.eng.registry.root / "docker/registry/v2/repositories"
        return repositories / "adroit/doubler/_manifests/tags" / self.name

    def move_tag(self):
        """Lets the tag name another manifest, as somebody with access to the registry can."""
        value = json.loads(self.places.images.resolve(Tag(self.name)).data)
        value["annotations"] = {"moved": "yes"}
        data = json.dumps(value).encode()
        self.places.images.replace_tag(Tag(self.name), _named(data), data)

    def delete_in_s3(self, digest):
        self.s3().delete_object(Bucket=BUCKET, Key=f"bundles/{blob_key(digest)}")

    def put_in_s3(self, digest, data):
        self.s3().put_object(Bucket=BUCKET, Key=f"bundles/{blob_key(digest)}", Body=data)

    def s3(self):
        return boto3_session().client("s3", endpoint_url=self.eng.s3_endpoint)

    def run(self, *arguments):
        """Runs a command in this process; gives its exit code, and all that it said."""
        result = CliRunner().invoke(cli, [*arguments, "--target", "eng"])
        error = result.exception
        if error and not isinstance(error, PublishError | SystemExit):
            raise error
        code = error.exit_code if isinstance(error, PublishError) else result.exit_code
        return Done(code, result.stdout, f"{result.stderr}{error or ''}")

    def publish(self, **options):
        return publish("a", root=self.root, target="eng", verify="none", **options)


def _named(data):
    return Descriptor(MANIFEST_MEDIA_TYPE, Digest.of(data), len(data))


def flipped(data):
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.fixture
def version(tmp_path, trained, eng, monkeypatch):
    """A version of its own: other tests may not have damaged its blobs in the one registry."""
    for name, value in eng.environ.items():
        monkeypatch.setenv(name, value)
    root = make_checkout(
        tmp_path / "repo",
        trained.tracking_uri,
        {"a": trained.good[0]},
        target_lines=eng.target_lines,
    )
    envs = f"plain:\n  image: {BASE}\n  environment: environment.yml\n"
    (root / "conda_envs.yaml").write_text(envs)
    (root / "projects/doubler/features.py").write_text(f"SCALE = 0x{os.urandom(8).hex()}\n")
    commit(root, "source that no other test has")
    release = publish("a", root=root, target="eng", verify="none")
    commit(root, "published")
    monkeypatch.chdir(root)
    return Version(root, eng, release)


def test_what_is_whole_in_both_places_is_said_to_be_so(version):
    done = version.run("verify", version.name, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    own = {version.manifest.config, *version.manifest.own_layers}
    assert report["problems"] == []
    assert report["places"] == list(version.release.places)
    assert report["size_bytes"] > 2 * sum(blob.size_bytes for blob in own)
    assert version.run("verify", version.name, "--shallow").returncode == 0
    assert version.run("status", "--check").returncode == 0


IN_THE_REGISTRY = {
    "a layer": lambda version: version.layer("source").digest,
    "the config": lambda version: version.manifest.config.digest,
    "the manifest": lambda version: version.published.manifest.digest,
}


@pytest.mark.parametrize("damage", [flipped, lambda data: data[:-1]], ids=["flipped", "cut"])
@pytest.mark.parametrize("what", ["a layer", "the config"])
def test_other_bytes_in_the_registry_are_found_and_not_called_healed(version, what, damage):
    digest = IN_THE_REGISTRY[what](version)
    path = version.in_registry(digest)
    path.write_bytes(damage(path.read_bytes()))
    done = version.run("verify", version.name)
    assert done.returncode == 6, done.stdout
    assert str(digest) in done.stderr
    assert version.places.images.location in done.stderr
    assert "--repair" in done.stderr
    repaired = version.run("verify", version.name, "--repair")
    assert repaired.returncode == 6, "docker-registry keeps what it has"
    assert "keeps" in repaired.stderr
    with pytest.raises(VerificationError) as error:
        version.publish(run_id=version.release.run_id)
    assert str(digest) in str(error.value)


def test_a_flipped_manifest_in_the_registry_is_found_though_it_answers_500(version):
    path = version.in_registry(version.published.manifest.digest)
    path.write_bytes(flipped(path.read_bytes()))
    images = version.places.images
    images.registry.give_up_s = 0.5
    (problem,) = verify(version.places.store, version.published, images).problems
    assert version.published.manifest.digest in problem
    assert images.repository.host in problem


def test_a_registry_that_fails_altogether_is_not_called_damaged(version):
    images = version.places.images
    images.registry.give_up_s = 0.5
    images.registry.endpoint = Endpoint.parse("http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(StoreError, match="could not be reached"):
        verify(version.places.store, version.published, images)


def test_a_flipped_layer_of_the_base_is_found(version):
    digest = version.manifest.base_layers[0].digest
    path = version.in_registry(digest)
    whole = path.read_bytes()
    path.write_bytes(flipped(whole))
    try:
        done = version.run("verify", version.name)
        assert done.returncode == 6
        assert str(digest) in done.stderr
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("what", IN_THE_REGISTRY)
def test_what_is_gone_from_the_registry_is_found_by_asking_and_healed(version, what):
    digest = IN_THE_REGISTRY[what](version)
    version.in_registry(digest).unlink()
    for options in ((), ("--shallow",)):
        done = version.run("verify", version.name, *options)
        assert done.returncode == 6, done.stdout
        assert str(digest) in done.stderr
    status = version.run("status", "--check")
    assert status.returncode == 6
    assert "damaged" in status.stdout
    assert version.run("verify", version.name, "--repair").returncode == 0
    assert version.run("verify", version.name).returncode == 0


def test_a_layer_of_the_base_that_is_gone_comes_from_the_envs_own_repository(version):
    layer = version.manifest.base_layers[0]
    repository = version.eng.registry.root / "docker/registry/v2/repositories/adroit/doubler"
    (repository / "_layers/sha256" / layer.digest.hex / "link").unlink()
    done = version.run("verify", version.name, "--shallow")
    assert done.returncode == 6
    assert str(layer.digest) in done.stderr
    assert version.run("verify", version.name, "--repair").returncode == 0
    assert version.run("verify", version.name).returncode == 0


@pytest.mark.parametrize("how", ["nothing to do", "the same run"])
def test_publishing_again_heals_what_is_gone_from_the_registry(version, how):
    version.in_registry(version.layer("source").digest).unlink()
    again = version.publish(run_id=version.release.run_id if how == "the same run" else None)
    assert again.version == version.name
    assert version.run("verify", version.name).returncode == 0


def test_a_tag_that_was_deleted_is_found_and_given_again(version):
    for path in sorted(version.tag_directory().rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    version.tag_directory().rmdir()
    done = version.run("verify", version.name, "--shallow")
    assert done.returncode == 6
    assert f":{version.name}" in done.stderr
    healed = version.publish()
    assert not healed.news
    assert "tag" in " ".join(healed.warnings)
    assert version.run("verify", version.name).returncode == 0


def test_a_tag_that_was_moved_is_found_and_refused_never_moved_back(version):
    version.move_tag()
    moved = version.places.images.resolve(Tag(version.name)).descriptor.digest
    for command in (("verify", version.name), ("verify", version.name, "--repair")):
        done = version.run(*command)
        assert done.returncode == 6
        assert str(moved) in done.stderr
    with pytest.raises(VerificationError, match="not whole"):
        version.publish()
    assert version.places.images.resolve(Tag(version.name)).descriptor.digest == moved


@pytest.mark.parametrize("damage", ["gone", "other bytes of the same length"])
@pytest.mark.parametrize("what", ["source", "config", "manifest"])
def test_what_is_damaged_in_s3_is_found_and_healed_from_the_registry(version, damage, what):
    named = {
        "source": version.layer("source"),
        "config": version.manifest.config,
        "manifest": version.published.manifest,
    }[what]
    whole = b"".join(bytes(piece) for piece in version.places.store.read_blob(named))
    if damage == "gone":
        version.delete_in_s3(named.digest)
    else:
        version.put_in_s3(named.digest, flipped(whole))
    done = version.run("verify", version.name)
    assert done.returncode == 6
    assert named.digest.hex in done.stderr
    assert version.run("verify", version.name, "--repair").returncode == 0
    assert b"".join(bytes(p) for p in version.places.store.read_blob(named)) == whole
    assert version.run("verify", version.name).returncode == 0


def test_a_layer_gone_from_s3_is_shown_by_status_and_healed_by_publishing_again(version):
    version.delete_in_s3(version.layer("model").digest)
    status = version.run("status", "--check", "--json")
    (row,) = json.loads(status.stdout)
    assert row["state"] == "damaged"
    assert version.layer("model").digest.hex in row["detail"]
    healed = version.publish()
    assert not healed.news
    assert version.layer("model").digest.hex in " ".join(healed.warnings)
    assert version.run("verify", version.name).returncode == 0


def test_what_is_gone_from_both_places_is_said_to_be_lost_there(version):
    layer = version.layer("source")
    version.delete_in_s3(layer.digest)
    version.in_registry(layer.digest).unlink()
    repaired = version.run("verify", version.name, "--repair")
    assert repaired.returncode == 6
    assert "no other place" in repaired.stderr
    with pytest.raises(VerificationError, match="not whole"):
        version.publish()
    version.publish(run_id=version.release.run_id)  # which makes it again from the run
    assert version.run("verify", version.name).returncode == 0


def test_the_manifest_in_the_store_is_the_one_in_the_registry(version):
    tagged = version.places.images.resolve(Tag(version.name))
    assert parse_manifest(tagged.data, "here") == version.manifest
