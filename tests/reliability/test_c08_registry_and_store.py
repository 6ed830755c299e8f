"""C08: bits flipped, bodies cut, swapped and replayed, in all traffic with a registry and a store.

A proxy stands before a real ``docker-registry`` and before a real S3 (SeaweedFS), and damages one
message of one operation, request or answer, body or headers: a blob's POST and PUT (this program
sends no PATCH), its HEAD and GET, a mount, a copy, a manifest's PUT and GET, a tag, referrers; an
object's HEAD, PUT and GET, a listing, an upload in parts from its beginning to its end, a rotted
object that is healed. What is judged is read around the proxy (``tests/support/wire_faults.py``).
"""

from __future__ import annotations

import functools
import gzip
import io
import os
import random
import tarfile

import pytest
import requests

from adroit_publish.bundle.content import Inline
from adroit_publish.bundle.digest import Descriptor, Digest
from adroit_publish.bundle.document import canonical_json
from adroit_publish.bundle.manifest import (
    CONFIG_MEDIA_TYPE,
    MANIFEST_MEDIA_TYPE,
    OCI_LAYOUT,
    index_bytes,
    parse_manifest,
)
from adroit_publish.bundle.version_names import PublishedVersion
from adroit_publish.registry.client import Registry
from adroit_publish.registry.docker_config import DockerCredentials
from adroit_publish.registry.image_reference import Tag
from adroit_publish.registry.referrers import attach, attached
from adroit_publish.registry.repository import ImageRepository
from adroit_publish.stores.blobs import blob_key
from adroit_publish.stores.bundle_store import BundleStore
from adroit_publish.stores.s3 import http as s3_http
from adroit_publish.stores.s3 import objects as s3_objects
from adroit_publish.stores.s3 import parts as s3_parts
from adroit_publish.stores.s3.objects import S3Objects
from tests.servers.eng_account import images
from tests.servers.fault_proxy import FaultProxy, cut_answer
from tests.servers.object_servers import ACCESS_KEY, SECRET_KEY, SHARED_BUCKET
from tests.servers.registry_servers import docker_registry
from tests.support.wire_faults import Outcome, drive, taped

FLOOR = 400 if os.environ.get("ADROIT_FULL") == "1" else 18
"""For each of the four: a push and a read, of a registry and of a store."""
LAYER = "application/vnd.oci.image.layer.v1.tar"
RECORD = "application/vnd.tests.record+json"
MODEL = "doubler"
PART_BYTES = 5 << 20  # no S3 takes smaller ones but as the last
ANONYMOUS = DockerCredentials({"HOME": "/nonexistent"})


def tar_of(data):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        info = tarfile.TarInfo("opt/adroit/model/weights")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


class Image:
    """An image of four blobs: a gzipped base layer, a layer of over a MiB, one of files, a config.

    Args:
        seed: Of its bytes; the lengths are the same for every seed.
    """

    def __init__(self, seed):
        dice = random.Random(seed)
        self.base = gzip.compress(tar_of(dice.randbytes(90_000)), compresslevel=0, mtime=0)
        self.layer = tar_of(dice.randbytes((1 << 20) + 5_000))
        self.small = tar_of(dice.randbytes(3_000))
        self.config = canonical_json({"os": "linux", "seed": dice.randbytes(40).hex()})
        self.record = canonical_json({"golden": dice.randbytes(600).hex()})
        self.layers = dict(map(described, self.blobs[:3]))
        self.config_blob = described(self.config, CONFIG_MEDIA_TYPE)[0]
        self.data = canonical_json(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST_MEDIA_TYPE,
                "config": self.config_blob.as_dict(),
                "layers": [blob.as_dict() for blob in self.layers],
            }
        )
        self.manifest = described(self.data, MANIFEST_MEDIA_TYPE)[0]
        self.version = f"v0123456{seed % 10}-{self.manifest.digest.hex[:12]}"

    @property
    def blobs(self):
        return (self.base, self.layer, self.small, self.config)


def described(data, media_type=LAYER):
    return Descriptor(media_type, Digest.of(data), len(data)), data


def wrong(got, wanted, what):
    """Returns the problem with some bytes, if there is one."""
    return [] if got == wanted else [f"{what}: {len(got or b'')} bytes, not the {len(wanted)}"]


OLDER, NOW = Image(1), Image(2)


# A registry


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    with docker_registry(tmp_path_factory.mktemp("registry")) as server:
        for image in (OLDER, NOW):
            images(server, "base").put_blob(described(image.base)[0], Inline(image.base))
        push(images(server, "whole"), OLDER, images(server, "base"))
        push(images(server, "whole"), NOW, images(server, "base"))
        yield server


def push(repository, image, base):
    """Makes an image in a repository, as a publish does."""
    (base_layer, _), *others = image.layers.items()
    repository.take_blob(base_layer, base)
    for blob, data in others:
        repository.put_blob(blob, Inline(data))
    repository.put_blob(image.config_blob, Inline(image.config))
    repository.put_manifest(image.manifest, image.data)
    attach(repository, image.manifest, RECORD, image.record)
    repository.tag(Tag(image.version), image.manifest, image.data)


class Push:
    """An image into a repository that has nothing: its base mounted, or copied."""

    def __init__(self, server, proxy, image):
        self.server, self.proxy, self.image = server, proxy, image

    def prepare(self, number):
        self.name = f"adroit/n{number}"
        # By another name of the same host a registry is another one, and cannot mount.
        port = self.proxy.endpoint.rpartition(":")[2]
        self.base_host = f"{'localhost' if number % 2 else '127.0.0.1'}:{port}"

    def act(self):
        host = self.proxy.endpoint.removeprefix("http://")
        base = ImageRepository(Registry(self.base_host, ANONYMOUS), "base")
        push(ImageRepository(Registry(host, ANONYMOUS), self.name), self.image, base)

    def problems(self, outcome):
        if self.tagged().status_code != 200:
            return ["there is no tag"]
        return self.believed()

    def believed(self):
        tagged = self.tagged()
        if tagged.status_code == 404:
            return []
        at = f"{self.server.url}/v2/{self.name}"
        problems = wrong(tagged.content, self.image.data, "manifest")
        for data in self.image.blobs:
            got = requests.get(f"{at}/blobs/{Digest.of(data)}", timeout=20).content
            problems += wrong(got, data, "blob")
        records = list(attached(images(self.server, self.name), self.image.manifest.digest, RECORD))
        return problems + ([] if records == [self.image.record] else ["the record is not there"])

    def tagged(self):
        url = f"{self.server.url}/v2/{self.name}/manifests/{self.image.version}"
        return requests.get(url, headers={"Accept": MANIFEST_MEDIA_TYPE}, timeout=20)


class Read:
    """An image read from a registry; each time a connection breaks within its largest layer."""

    def __init__(self, proxy, image):
        self.proxy, self.image = proxy, image

    def prepare(self, number):
        pass

    def act(self):
        host = self.proxy.endpoint.removeprefix("http://")
        repository = ImageRepository(Registry(host, ANONYMOUS), "whole")
        large = next(blob for blob, data in self.image.layers.items() if data is self.image.layer)
        broken = self.proxy.inject(cut_answer(70_000), "GET", large.digest.hex)
        try:
            manifest = repository.resolve(self.image.manifest.digest)
            parsed = parse_manifest(manifest.data, "here")
            blobs = [b"".join(map(bytes, repository.read_blob(blob))) for blob in parsed.layers]
            config = repository.document(parsed.config)
            records = attached(repository, self.image.manifest.digest, RECORD)
            return [*blobs, config, manifest.data, *records]
        finally:
            broken.times = 0

    def problems(self, outcome):
        # A list of referrers that is not found is no list: nothing but its absence can be said.
        wanted = [*self.image.blobs, self.image.data]
        records = outcome[len(wanted) :] or [self.image.record]
        return wrong(outcome[: len(wanted)], wanted, "read") + wrong(
            records, [self.image.record], "records"
        )

    def believed(self):
        return []


def test_c08_what_a_registry_is_sent_is_there_as_it_was_or_it_is_an_error(registry, capsys):
    with FaultProxy(registry.url) as proxy:
        older = taped(proxy, Push(registry, proxy, OLDER), 1_000_001)
        outcome = drive(proxy, Push(registry, proxy, NOW), older, FLOOR, random.Random(81))
    tell("push to a registry", outcome, capsys)


def test_c08_what_a_registry_gives_is_what_was_asked_for_or_an_error(registry, capsys):
    with FaultProxy(registry.url) as proxy:
        older = taped(proxy, Read(proxy, OLDER), 0)
        outcome = drive(proxy, Read(proxy, NOW), older, FLOOR, random.Random(82))
    tell("read from a registry", outcome, capsys)


# A store


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(s3_objects, "SINGLE_PUT_BYTES", 2 << 20)
    monkeypatch.setattr(s3_parts, "PART_BYTES", PART_BYTES)
    monkeypatch.setattr(s3_http, "connect", functools.cache(s3_http.connect))  # a fifth of a second
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


def weights_of(image):
    """Returns a blob that is sent in two parts, the second of 4 KiB."""
    return image.layer[:1024] * (PART_BYTES // 1024) + image.layer[-4096:]


def publish(store, image, weights):
    """Makes a version in a store, as a publish does."""
    for data in (weights, *image.blobs, image.data):
        store.put_blob(described(data)[0], Inline(data))
    store.attach(MODEL, image.version, image.manifest, RECORD, image.record)
    store.commit(MODEL, image.version, image.manifest)


class Publish:
    """A version into a store that has nothing of it but a rotted layer."""

    def __init__(self, server, proxy, image):
        self.server, self.proxy, self.image = server, proxy, image
        self.weights = weights_of(image)
        self.client = server.client()

    def prepare(self, number):
        self.prefix = self.server.new_place().rpartition("/")[2]
        rotted = self.image.small
        key = f"{self.prefix}/{blob_key(Digest.of(rotted))}"
        self.client.put_object(Bucket=SHARED_BUCKET, Key=key, Body=bytes(len(rotted)))

    def act(self):
        place = f"s3://{SHARED_BUCKET}/{self.prefix}"
        publish(
            BundleStore(S3Objects(place, endpoint=self.proxy.endpoint)), self.image, self.weights
        )

    def problems(self, outcome):
        return self.believed() if self.committed() else ["it is not committed"]

    def believed(self):
        if not self.committed():
            return []
        version = f"{MODEL}/{self.image.version}"
        index = index_bytes(self.image.manifest, PublishedVersion(self.image.version))
        wanted = {f"{version}/index.json": index, f"{version}/oci-layout": OCI_LAYOUT}
        blobs = (self.weights, *self.image.blobs, self.image.data, self.image.record)
        wanted |= {blob_key(Digest.of(data)): data for data in blobs}
        problems = [
            problem for key, data in wanted.items() for problem in wrong(self.got(key), data, key)
        ]
        around = BundleStore(
            S3Objects(f"s3://{SHARED_BUCKET}/{self.prefix}", endpoint=self.server.endpoint)
        )
        published = around.find(MODEL, self.image.version)
        records = list(around.attached(published, RECORD))
        return problems + ([] if records == [self.image.record] else ["the record is not there"])

    def committed(self):
        return self.got(f"{MODEL}/{self.image.version}/index.json") is not None

    def got(self, key):
        try:
            answer = self.client.get_object(Bucket=SHARED_BUCKET, Key=f"{self.prefix}/{key}")
        except self.client.exceptions.NoSuchKey:
            return None
        return answer["Body"].read()


class Open:
    """A version read from a store; each time a connection breaks within its largest layer."""

    def __init__(self, server, proxy, image):
        self.proxy, self.image = proxy, image
        self.place = f"s3://{server.new_place()}"
        publish(BundleStore(S3Objects(self.place, endpoint=server.endpoint)), image, b"weights")

    def prepare(self, number):
        pass

    def act(self):
        store = BundleStore(S3Objects(self.place, endpoint=self.proxy.endpoint))
        large = Digest.of(self.image.layer)
        broken = self.proxy.inject(cut_answer(70_000), "GET", large.hex)
        try:
            published = store.get(self.image.version)
            manifest = store.manifest(published)
            blobs = [b"".join(map(bytes, store.read_blob(blob))) for blob in manifest.layers]
            config = store.document(manifest.config)
            return [*blobs, config, *store.attached(published, RECORD)]
        finally:
            broken.times = 0

    def problems(self, outcome):
        return wrong(outcome, [*self.image.blobs, self.image.record], "read")

    def believed(self):
        return []


def test_c08_what_a_store_is_sent_is_there_as_it_was_or_it_is_an_error(
    seaweed, small_parts, capsys
):
    with FaultProxy(seaweed.endpoint) as proxy:
        older = taped(proxy, Publish(seaweed, proxy, OLDER), 0)
        outcome = drive(proxy, Publish(seaweed, proxy, NOW), older, FLOOR, random.Random(83))
    tell("publish to a store", outcome, capsys)


def test_c08_what_a_store_gives_is_what_was_asked_for_or_an_error(seaweed, small_parts, capsys):
    with FaultProxy(seaweed.endpoint) as proxy:
        older = taped(proxy, Open(seaweed, proxy, OLDER), 0)
        outcome = drive(proxy, Open(seaweed, proxy, NOW), older, FLOOR, random.Random(84))
    tell("read from a store", outcome, capsys)


def test_c08_the_judges_see_one_wrong_byte(registry, seaweed, small_parts):
    hexes = Digest.of(NOW.layer).hex
    data = registry.root / "docker/registry/v2/blobs/sha256" / hexes[:2] / hexes / "data"
    with FaultProxy(registry.url) as proxy:
        pushed = Push(registry, proxy, NOW)
        pushed.prepare(2_000_000)
        pushed.act()
        data.write_bytes(NOW.layer[:-1] + b"!")
        assert pushed.problems(None) != []
        data.write_bytes(NOW.layer)
        assert pushed.problems(None) == []
    with FaultProxy(seaweed.endpoint) as proxy:
        published = Publish(seaweed, proxy, NOW)
        published.prepare(0)
        published.act()
        assert published.problems(None) == []
        key = f"{published.prefix}/{blob_key(Digest.of(NOW.layer))}"
        rotted = NOW.layer[:-1] + b"!"
        published.client.put_object(Bucket=SHARED_BUCKET, Key=key, Body=rotted)
        assert published.problems(None) != []


def tell(name, outcome: Outcome, capsys):
    with capsys.disabled():
        print("\n" + "\n".join(outcome.lines(name)))
    assert outcome.injected >= FLOOR
    assert not outcome.violations
