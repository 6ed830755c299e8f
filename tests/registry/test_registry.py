from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from adroit_publish.bundle.content import Concatenation, Inline
from adroit_publish.bundle.digest import Descriptor, Digest
from adroit_publish.bundle.document import canonical_json
from adroit_publish.bundle.manifest import CONFIG_MEDIA_TYPE, MANIFEST_MEDIA_TYPE
from adroit_publish.edge.patience import Patience
from adroit_publish.errors import RefusedError, SourceError, StoreError, VerificationError
from adroit_publish.registry.client import Registry
from adroit_publish.registry.docker_config import DockerCredentials
from adroit_publish.registry.errors import unreachable
from adroit_publish.registry.image_reference import Tag
from adroit_publish.registry.referrers import attach, attached, referrers
from adroit_publish.registry.repository import ImageRepository
from adroit_publish.stores.stored_blob import StoredBlob
from tests.servers.fake_registry import Fault, fake_registry
from tests.servers.fault_proxy import FaultProxy, flip_body, rewrite_answer
from tests.servers.registry_servers import PASSWORD, USERNAME, docker_registry
from tests.support.requirements import require

LAYER = "application/vnd.oci.image.layer.v1.tar"
ANONYMOUS = DockerCredentials({"DOCKER_CONFIG": "/nonexistent"})


def blob_of(data, media_type=LAYER):
    return Descriptor(media_type, Digest.of(data), len(data))


def connect(server, name="adroit/model", *, give_up_s=5.0, credentials=ANONYMOUS):
    return ImageRepository(Registry(server.host, credentials, give_up_s=give_up_s), name)


def push_image(repository, *layers, config=b"{}"):
    """Pushes blobs and, by digest, a manifest over them."""
    for data in (config, *layers):
        repository.put_blob(blob_of(data), Inline(data))
    value = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_MEDIA_TYPE,
        "config": blob_of(config, CONFIG_MEDIA_TYPE).as_dict(),
        "layers": [blob_of(data).as_dict() for data in layers],
    }
    data = canonical_json(value)
    manifest = blob_of(data, MANIFEST_MEDIA_TYPE)
    repository.put_manifest(manifest, data)
    return manifest, data


def read(repository, descriptor):
    return b"".join(bytes(piece) for piece in repository.read_blob(descriptor))


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    with docker_registry(tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture
def fake():
    with fake_registry() as server:
        yield server


@pytest.fixture(params=["docker-registry", "fake", "fake 1.1"])
def server(request):
    if request.param == "docker-registry":
        yield request.getfixturevalue("real")
        return
    with fake_registry(referrers_api=request.param == "fake 1.1") as server:
        yield server


@pytest.fixture
def name():
    return f"adroit/m{os.urandom(4).hex()}"


# What every registry has to do.


def test_a_blob_is_sent_once_and_read_back_whole(server, name):
    repository = connect(server, name)
    for data in (b"", b"x", os.urandom(3_000_001)):
        blob, heard = blob_of(data), []
        assert not repository.has_blob(blob)
        assert repository.put_blob(blob, Inline(data), heard.append) is True
        assert sum(heard) == len(data)
        assert repository.put_blob(blob, Inline(data)) is False
        assert read(repository, blob) == data


def test_a_range_of_a_blob_is_read_alone(server, name):
    repository, data = connect(server, name), os.urandom(3_000_001)
    repository.put_blob(blob_of(data), Inline(data))
    content = StoredBlob(repository, blob_of(data))
    for start, stop in ((0, 1), (5, 9), (1 << 20, (2 << 20) + 3), (7, None), (0, len(data))):
        pieces = b"".join(bytes(piece) for piece in content.chunks(start, stop))
        assert pieces == data[start:stop]


def test_a_blob_that_is_gone_is_sent_again_and_read_back(server, name):
    repository, data = connect(server, name), os.urandom(1000)
    repository.heal_blob(blob_of(data), Inline(data))
    assert read(repository, blob_of(data)) == data
    with pytest.raises(VerificationError):
        repository.heal_blob(blob_of(b"other"), Inline(b"wrong"))


def test_content_that_is_not_its_digest_is_not_stored(server, name):
    repository = connect(server, name)
    blob = blob_of(b"right")
    with pytest.raises(VerificationError, match="other bytes"):
        repository.put_blob(blob, Inline(b"wrong"))
    assert not repository.has_blob(blob)


def test_content_that_fails_half_way_leaves_nothing_and_keeps_its_error(server, name):
    repository = connect(server, name)

    class Broken:
        size_bytes = 4 << 20

        def chunks(self, start=0, stop=None):
            yield bytes(1 << 20)
            raise OSError(5, "Input/output error", "weights.bin")

    blob = Descriptor(LAYER, Digest.of(bytes(4 << 20)), 4 << 20)
    with pytest.raises(SourceError, match=r"weights\.bin"):
        repository.put_blob(blob, Broken())
    assert not repository.has_blob(blob)


def test_a_blob_of_another_repository_is_mounted_without_a_byte(server, name):
    source, repository = connect(server, name + "-env"), connect(server, name)
    data = os.urandom(100_000)
    source.put_blob(blob_of(data), Inline(data))
    heard = []
    assert repository.take_blob(blob_of(data), source, heard.append) is False
    assert heard == []
    assert read(repository, blob_of(data)) == data


def test_a_blob_of_another_registry_is_copied(server, fake, name):
    source, repository = connect(fake, "env"), connect(server, name)
    data = os.urandom(2_500_000)
    source.put_blob(blob_of(data), Inline(data))
    assert repository.take_blob(blob_of(data), source) is True
    assert read(repository, blob_of(data)) == data


def test_a_manifest_is_there_by_digest_before_it_has_a_name(server, name):
    repository = connect(server, name)
    manifest, data = push_image(repository, b"layer")
    assert repository.put_manifest(manifest, data) is False
    assert repository.find(Tag("v1")) is None
    assert repository.tag(Tag("v1"), manifest, data) is True
    assert repository.tag(Tag("v1"), manifest, data) is False
    found = repository.resolve(Tag("v1"))
    assert (found.descriptor, found.data) == (manifest, data)
    assert repository.resolve(manifest.digest).data == data


def test_a_tag_that_names_another_manifest_is_refused_and_left_alone(server, name):
    repository = connect(server, name)
    first = push_image(repository, b"one")
    other = push_image(repository, b"two")
    repository.tag(Tag("v1"), *first)
    with pytest.raises(RefusedError, match="may not change") as error:
        repository.tag(Tag("v1"), *other)
    assert error.value.got == first[0].digest
    assert repository.resolve(Tag("v1")).descriptor == first[0]


def test_documents_are_attached_and_never_change_the_image(server, name):
    repository = connect(server, name)
    manifest, data = push_image(repository, b"layer")
    documents = [b'{"record":1}', b'{"record":2}']
    named = [attach(repository, manifest, "application/vnd.x+json", each) for each in documents]
    attach(repository, manifest, "application/vnd.x+json", documents[0])
    attach(repository, manifest, "application/vnd.other+json", b"{}")
    assert len(referrers(repository, manifest.digest)) == 3
    assert {each.digest for each in named} < {
        each.digest for each in referrers(repository, manifest.digest)
    }
    kept = attached(repository, manifest.digest, "application/vnd.x+json")
    assert sorted(kept) == documents
    assert repository.resolve(manifest.digest).data == data


def test_nothing_is_known_of_what_was_never_pushed(server, name):
    repository = connect(server, name)
    assert repository.find(Tag("v1")) is None
    assert referrers(repository, Digest.of(b"")) == ()
    with pytest.raises(RefusedError, match="no such image"):
        repository.resolve(Tag("v1"))
    with pytest.raises(StoreError) as error:
        read(repository, blob_of(b"nothing"))
    assert not error.value.transient


def test_several_blobs_are_sent_at_once(server, name):
    repository = connect(server, name)
    blobs = [os.urandom(300_000) for _ in range(12)]
    with ThreadPoolExecutor(4) as pool:
        sent = pool.map(lambda data: repository.put_blob(blob_of(data), Inline(data)), blobs)
        assert list(sent) == [True] * 12
    assert all(read(repository, blob_of(data)) == data for data in blobs)


# What the real one shows.


def test_skopeo_reads_what_was_pushed_by_digest(real, name, tmp_path):
    require(subprocess.run(["which", "skopeo"], capture_output=True).returncode == 0, "skopeo")
    repository = connect(real, name)
    layer = bytes(1024)
    config = {
        "os": "linux",
        "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(layer))]},
    }
    manifest, data = push_image(repository, layer, config=canonical_json(config))
    image = f"docker://{repository.location}@{manifest.digest}"
    copied = subprocess.run(
        ["skopeo", "copy", "--src-tls-verify=false", image, f"dir:{tmp_path}/out"],
        capture_output=True,
        check=False,
    )
    assert copied.returncode == 0, copied.stderr
    assert (tmp_path / "out" / "manifest.json").read_bytes() == data


def test_a_rotted_blob_is_found_when_it_is_read(real, name):
    repository = connect(real, name)
    data = os.urandom(50_000)
    blob = blob_of(data)
    repository.put_blob(blob, Inline(data))
    hex_ = blob.digest.hex
    path = real.root / f"docker/registry/v2/blobs/sha256/{hex_[:2]}/{hex_}/data"
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(VerificationError, match="not what its digest says"):
        read(repository, blob)
    path.write_bytes(data[:-1])
    assert not repository.has_blob(blob)
    with pytest.raises(VerificationError, match="does not have it"):
        repository.put_blob(blob, Inline(data))


@pytest.mark.parametrize("times", [1, 10**6])
def test_a_manifest_that_changes_on_its_way_to_a_tag_leaves_no_tag_of_it(real, name, times):
    """A digest in the address lets a registry check the bytes; by a tag it takes what arrives."""
    manifest, data = push_image(connect(real, name), b"layer")
    with FaultProxy(real.url) as proxy:
        repository = ImageRepository(
            Registry(proxy.endpoint.removeprefix("http://"), ANONYMOUS), name
        )
        flip = flip_body(data.index(b'"size":') + len(b'"size":'))
        by_tag = r"/manifests/(v1|sha256-)"
        tag = proxy.inject(flip, "PUT", r"/manifests/v1", times=times)
        listing = proxy.inject(flip_body(3), "PUT", r"/manifests/sha256-", times=times)
        if times == 1:
            repository.tag(Tag("v1"), manifest, data)
            attach(repository, manifest, "application/vnd.x+json", b"{}")
        else:
            with pytest.raises(VerificationError, match="other bytes than were to be sent"):
                repository.tag(Tag("v1"), manifest, data)
            with pytest.raises(VerificationError, match="other bytes than were to be sent"):
                attach(repository, manifest, "application/vnd.x+json", b"{}")
        assert (tag.fired, listing.fired) == ((1, 1) if times == 1 else (4, 4))
        assert proxy.count("PUT", by_tag) == (4 if times == 1 else 8)
    if times > 1:
        return
    around = connect(real, name)
    assert around.resolve(Tag("v1")).data == data
    assert list(attached(around, manifest.digest, "application/vnd.x+json")) == [b"{}"]


def test_a_registry_without_room_says_so_and_is_not_asked_again(tmp_path):
    require(os.geteuid() == 0, "mounting a small file system needs root")
    (tmp_path / "blobs").mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", tmp_path / "blobs"],
        capture_output=True,
        check=False,
    )
    require(mounted.returncode == 0, f"cannot mount: {mounted.stderr.decode()}")
    try:
        with docker_registry(tmp_path) as server:
            data = os.urandom(8 << 20)
            with pytest.raises(StoreError, match="no room left") as error:
                connect(server).put_blob(blob_of(data), Inline(data))
            assert not error.value.transient
    finally:
        subprocess.run(["umount", tmp_path / "blobs"], check=True)


def test_a_login_of_the_docker_config_is_used(tmp_path):
    config = {"auths": {}}
    with docker_registry(tmp_path, login=True) as server:
        pair = base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()
        config["auths"][server.host] = {"auth": pair}
        (tmp_path / "config.json").write_text(json.dumps(config))
        known = DockerCredentials({"DOCKER_CONFIG": str(tmp_path)})
        repository = connect(server, credentials=known)
        repository.put_blob(blob_of(b"data"), Inline(b"data"))
        assert read(repository, blob_of(b"data")) == b"data"
        with pytest.raises(RefusedError, match="denies access"):
            connect(server).put_blob(blob_of(b"other"), Inline(b"other"))


def test_after_a_kill_in_the_middle_the_next_run_sends_only_what_is_missing(real, name):
    script = """
import os, signal, sys
from adroit_publish.bundle.content import Inline
from tests.registry.test_registry import *
repository = ImageRepository(Registry(sys.argv[1], ANONYMOUS), sys.argv[2])
for byte in (1, 2):
    data = bytes([byte]) * (4 << 20)
    class Killing(Inline):
        def chunks(self, start=0, stop=None):
            for n, piece in enumerate(super().chunks(start, stop)):
                if byte == 2 and n == 2:
                    os.kill(os.getpid(), signal.SIGKILL)
                yield piece
    repository.put_blob(blob_of(data), Killing(data))
"""
    killed = subprocess.run([sys.executable, "-c", script, real.host, name], check=False)
    assert killed.returncode == -signal.SIGKILL
    repository = connect(real, name)
    blobs = [bytes([byte]) * (4 << 20) for byte in (1, 2)]
    assert [repository.put_blob(blob_of(data), Inline(data)) for data in blobs] == [False, True]
    assert read(repository, blob_of(blobs[1])) == blobs[1]


def test_a_large_blob_takes_no_memory_on_its_way(real, name):
    script = """
import resource, sys
from adroit_publish.bundle.content import Concatenation
from adroit_publish.bundle.digest import Descriptor, sha256_of
from tests.registry.test_registry import ANONYMOUS, LAYER
from adroit_publish.edge.patience import Patience
from adroit_publish.registry.repository import ImageRepository
from adroit_publish.stores.stored_blob import StoredBlob
from adroit_publish.registry.client import Registry
piece = bytes(1 << 20)
content = Concatenation([piece] * 256)
blob = Descriptor(LAYER, sha256_of(content), content.size_bytes)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
repository = ImageRepository(Registry(sys.argv[1], ANONYMOUS), sys.argv[2])
assert repository.put_blob(blob, content)
for _ in repository.read_blob(blob): pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    ran = subprocess.run(
        [sys.executable, "-c", script, real.host, name], capture_output=True, check=False
    )
    assert ran.returncode == 0, ran.stderr.decode()
    assert int(ran.stdout) < 16 << 10  # KiB


# What only a registry of our own can be made to do.


def test_a_connection_cut_in_the_middle_of_a_blob_is_a_fresh_session(fake):
    data, heard = os.urandom(4 << 20), []
    fake.faults.append(Fault("PUT", "/blobs/", times=2, cut_after=2 << 20))
    repository = connect(fake)
    assert repository.put_blob(blob_of(data), Inline(data), heard.append) is True
    assert sum(heard) == len(data)
    assert min(heard) < 0
    assert fake.count("POST") == 3
    assert fake.sent_bytes() == 8 << 20
    assert read(repository, blob_of(data)) == data


def test_a_lost_answer_is_resolved_by_asking_not_by_sending_again(fake):
    data, heard = os.urandom(1 << 20), []
    fake.faults.append(Fault("PUT", "/blobs/", lost=True))
    assert connect(fake).put_blob(blob_of(data), Inline(data), heard.append) is True
    assert fake.count("PUT") == 1
    assert sum(heard) == len(data)


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "GET"])
@pytest.mark.parametrize("fault", ["lost", "503", "cut"])
def test_any_single_failure_of_a_publish_is_survived(fake, method, fault):
    kinds = {"lost": {"lost": True}, "503": {"status": 503}, "cut": {"cut_after": 0}}
    faults = [Fault(method, part, **kinds[fault]) for part in ("/blobs/", "/manifests/")]
    fake.faults += faults
    repository = connect(fake)
    manifest, data = push_image(repository, b"layer")
    repository.tag(Tag("v1"), manifest, data)
    assert read(repository, blob_of(b"layer")) == b"layer"
    assert repository.resolve(Tag("v1")).descriptor == manifest
    assert any(not each.times for each in faults)


def test_half_of_all_requests_may_fail(fake):
    fake.faults += [
        Fault(method, times=1, status=status)
        for status in (500, 502, 503, 429)
        for method in ("HEAD", "POST", "PUT", "GET")
    ]
    repository = connect(fake, give_up_s=30)
    manifest, data = push_image(repository, b"layer")
    assert repository.tag(Tag("v1"), manifest, data) is True
    assert not any(each.times for each in fake.faults)


def test_retry_after_is_kept(fake):
    fake.faults.append(Fault("HEAD", status=429, headers={"Retry-After": "1"}))
    began = time.monotonic()
    assert connect(fake).has_blob(blob_of(b"x")) is False
    assert time.monotonic() - began >= 1


def test_a_wait_that_is_too_long_is_an_error_that_names_it(fake):
    fake.faults.append(Fault("HEAD", status=429, headers={"Retry-After": "3600"}))
    began = time.monotonic()
    with pytest.raises(StoreError, match="429") as error:
        connect(fake).has_blob(blob_of(b"x"))
    assert error.value.transient
    assert time.monotonic() - began < 1


def test_a_silent_peer_is_given_up_in_time(fake):
    fake.faults.append(Fault("HEAD", times=99, stall_s=3))
    began = time.monotonic()
    with pytest.raises(StoreError, match="could not be reached") as error:
        connect(fake, give_up_s=1.0).has_blob(blob_of(b"x"))
    assert error.value.transient
    assert time.monotonic() - began < 2


def test_a_dead_peer_in_the_middle_of_a_blob_is_given_up_in_time(fake):
    data = os.urandom(16 << 20)
    fake.faults += [
        Fault("HEAD", times=1),  # answered as ever
        Fault("PUT", times=99, stall_s=4),
        Fault("HEAD", times=99, stall_s=4),
    ]
    began = time.monotonic()
    with pytest.raises(StoreError) as error:
        connect(fake, give_up_s=1.5).put_blob(blob_of(data), Inline(data))
    assert error.value.transient
    assert time.monotonic() - began < 2.5


def test_a_kept_connection_that_fails_at_once_costs_no_attempt(fake):
    repository = connect(fake, give_up_s=0.0)  # not one retry
    assert repository.has_blob(blob_of(b"x")) is False
    fake.faults.append(Fault("HEAD", lost=True))
    assert repository.has_blob(blob_of(b"x")) is False
    assert fake.count("HEAD") == 3


def test_a_connection_that_was_closed_while_it_was_kept_gets_no_body(fake):
    repository = connect(fake)
    repository.has_blob(blob_of(b"x"))
    (pool,) = repository.registry._http._pools.values()
    (kept,) = filter(None, pool.pool.queue)
    kept.sock.shutdown(socket.SHUT_RDWR)
    with repository.registry.open(
        "PUT",
        "/v2/adroit/model/manifests/v1",
        (),
        "The manifest could not be stored",
        patience=Patience(),
        headers={"Content-Length": "2", "Content-Type": MANIFEST_MEDIA_TYPE},
        body=lambda: [b"{}"],
    ) as response:
        assert response.status == 201


def test_a_flipped_bit_on_the_way_up_is_sent_again(fake):
    data = os.urandom(100_000)
    fake.faults.append(Fault("PUT", "/blobs/", flip=True))
    assert connect(fake).put_blob(blob_of(data), Inline(data)) is True
    assert fake.count("PUT") == 2


def test_a_flipped_bit_on_the_way_down_is_an_error(fake):
    repository, data = connect(fake), os.urandom(100_000)
    manifest, text = push_image(repository, data)
    fake.faults.append(Fault("GET", "/blobs/", flip=True))
    with pytest.raises(VerificationError, match="not what its digest says"):
        read(repository, blob_of(data))
    repository.tag(Tag("v1"), manifest, text)
    fake.faults.append(Fault("GET", "/manifests/", flip=True))
    with pytest.raises(VerificationError, match="not what its digest says"):
        repository.resolve(Tag("v1"))


def test_a_body_that_ends_early_is_taken_up_where_it_ended(fake):
    repository, data = connect(fake), os.urandom(3_000_000)
    repository.put_blob(blob_of(data), Inline(data))
    fake.faults.append(Fault("GET", "/blobs/", truncate=1_500_000))
    assert read(repository, blob_of(data)) == data
    ranges = [each.headers.get("Range") for each in fake.requests if each.method == "GET"]
    assert ranges == [None, "bytes=1500000-"]


def test_a_body_that_is_announced_as_longer_is_whole_once_all_of_the_blob_is_here(real, name):
    """What is behind its last byte was asked for, and waited for, as long as anything is."""
    blob = blob_of(b"layer" * 1000)
    connect(real, name).put_blob(blob, Inline(b"layer" * 1000))
    with FaultProxy(real.url) as proxy:
        host = proxy.endpoint.removeprefix("http://")
        repository = ImageRepository(Registry(host, ANONYMOUS, give_up_s=5.0), name)
        proxy.inject(
            rewrite_answer(
                lambda whole: replace(
                    whole,
                    lines=tuple(
                        line.replace(b"Length: 5000", b"Length: 6000") for line in whole.lines
                    ),
                )
            ),
            "GET",
            "/blobs/",
        )
        assert read(repository, blob) == b"layer" * 1000
        assert proxy.count("GET", "/blobs/") == 1


def test_a_manifest_that_ends_early_is_read_again(fake):
    repository = connect(fake)
    manifest, data = push_image(repository, b"layer")
    for truncate in (0, 10):
        fake.faults.append(Fault("GET", "/manifests/", truncate=truncate))
        assert repository.resolve(manifest.digest).data == data


def test_a_full_registry_is_told_by_its_status_alone(fake):
    fake.faults.append(Fault("POST", status=507))
    with pytest.raises(StoreError, match="no room left") as error:
        connect(fake).put_blob(blob_of(b"x"), Inline(b"x"))
    assert not error.value.transient


def test_an_upload_refused_early_is_heard(fake):
    data = os.urandom(32 << 20)
    body = json.dumps({"errors": [{"code": "DENIED", "message": "quota exceeded"}]}).encode()
    fake.faults.append(Fault("PUT", "/blobs/", early=True, status=507, body=body))
    with pytest.raises(StoreError, match="no room left") as error:
        connect(fake).put_blob(blob_of(data), Inline(data))
    assert "quota exceeded" in str(error.value)
    assert not error.value.transient


def test_a_refused_mount_is_a_copy_in_the_upload_that_was_opened():
    with fake_registry(mounts=False) as server:
        source, repository = connect(server, "env"), connect(server, "model")
        data = os.urandom(200_000)
        source.put_blob(blob_of(data), Inline(data))
        posts = server.count("POST")
        assert repository.take_blob(blob_of(data), source) is True
        assert server.count("POST") == posts + 1
        assert server.sessions == set()
        assert read(repository, blob_of(data)) == data


def test_a_copy_of_a_rotted_blob_is_refused():
    with fake_registry(mounts=False) as server:
        source, repository = connect(server, "env"), connect(server, "model")
        data = os.urandom(200_000)
        source.put_blob(blob_of(data), Inline(data))
        server.blobs[blob_of(data).digest] = data[:-1] + bytes([data[-1] ^ 1])
        with pytest.raises(VerificationError):
            repository.take_blob(blob_of(data), source)
        assert not repository.has_blob(blob_of(data))


def test_an_immutable_tag_is_success_where_it_names_the_same_and_refused_otherwise():
    with fake_registry(immutable_tags=True) as server:
        repository = connect(server)
        first, other = push_image(repository, b"one"), push_image(repository, b"two")
        server.faults.append(Fault("PUT", "/manifests/v1", lost=True))
        assert repository.tag(Tag("v1"), *first) is True  # the second attempt met its own tag
        assert repository.tag(Tag("v1"), *first) is False
        with pytest.raises(RefusedError, match="may not change"):
            repository.tag(Tag("v1"), *other)


def test_a_tag_taken_between_reading_and_writing_is_refused():
    with fake_registry(immutable_tags=True) as server:
        repository = connect(server)
        first, other = push_image(repository, b"one"), push_image(repository, b"two")
        server.tags["adroit/model", "v1"] = str(other[0].digest)
        server.faults.append(Fault("GET", "/manifests/v1", status=404))
        with pytest.raises(RefusedError, match="may not change"):
            repository.tag(Tag("v1"), *first)


def test_writers_of_the_same_tag_leave_one_and_the_others_are_told():
    with fake_registry(immutable_tags=True) as server:
        images = [push_image(connect(server), bytes([n])) for n in range(6)]
        start, outcomes = threading.Barrier(6), []

        def write(image):
            start.wait()
            try:
                outcomes.append(connect(server).tag(Tag("v1"), *image))
            except RefusedError:
                outcomes.append("refused")

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(write, images))
        assert sorted(map(str, outcomes)) == ["True"] + ["refused"] * 5


def test_a_list_of_referrers_that_another_writer_replaced_is_extended_again(fake):
    repository = connect(fake)
    manifest, _ = push_image(repository, b"layer")
    attach(repository, manifest, "application/vnd.x+json", b"theirs")
    fake.faults.append(Fault("PUT", "/manifests/sha256-", status=201))  # taken, and then gone
    attach(repository, manifest, "application/vnd.x+json", b"ours")
    kept = set(attached(repository, manifest.digest, "application/vnd.x+json"))
    assert kept == {b"theirs", b"ours"}


def test_the_registrys_code_is_shown_and_a_wall_of_html_is_not(fake):
    body = b'{"errors":[{"code":"NAME_INVALID","message":"see https://x/y?sig=SECRET now"}]}'
    fake.faults.append(Fault("POST", status=400, body=body))
    with pytest.raises(StoreError) as error:
        connect(fake).put_blob(blob_of(b"x"), Inline(b"x"))
    assert "400 Bad Request NAME_INVALID: see https://x/y?... now" in str(error.value)
    fake.faults.append(Fault("POST", status=400, body=b"<html>" + b"x" * 9999))
    with pytest.raises(StoreError) as error:
        connect(fake).put_blob(blob_of(b"x"), Inline(b"x"))
    assert "html" not in str(error.value)


def test_a_missing_repository_is_refused_with_what_to_do(fake):
    body = b'{"errors":[{"code":"NAME_UNKNOWN","message":"The repository does not exist"}]}'
    fake.faults.append(Fault("POST", status=404, body=body))
    with pytest.raises(RefusedError, match="no such repository"):
        connect(fake).put_blob(blob_of(b"x"), Inline(b"x"))


def test_an_image_of_schema_1_is_refused(fake):
    repository = connect(fake)
    data = b'{"schemaVersion":1}'
    media_type = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    repository.replace_tag(Tag("old"), blob_of(data, media_type), data)
    with pytest.raises(RefusedError, match="schema 1"):
        repository.resolve(Tag("old"))


def test_an_upload_address_under_the_registrys_own_name_is_asked_at_its_endpoint():
    host = "123456789012.dkr.ecr.us-east-1.amazonaws.com"
    with fake_registry(absolute_location_host=host) as server:
        registry = Registry(host, ANONYMOUS, server.url, give_up_s=2)
        repository = ImageRepository(registry, "adroit/model")
        assert repository.put_blob(blob_of(b"data"), Inline(b"data")) is True
        assert repository.location == f"{host}/adroit/model"


def test_an_upload_address_elsewhere_by_http_is_refused():
    with (
        fake_registry(absolute_location_host="elsewhere.example") as server,
        pytest.raises(RefusedError, match="must not be asked"),
    ):
        connect(server).put_blob(blob_of(b"data"), Inline(b"data"))


def test_layers_are_streamed_from_their_parts(fake):
    content = Concatenation([b"head", bytes(5_000_000), b"tail"])
    digest = Digest.of(b"head" + bytes(5_000_000) + b"tail")
    blob = Descriptor(LAYER, digest, content.size_bytes)
    assert connect(fake).put_blob(blob, content) is True
    assert hashlib.sha256(fake.blobs[digest]).hexdigest() == digest.hex


def self_signed(directory):
    """Writes a certificate for 127.0.0.1 and its key; returns their path."""
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    path = directory / "registry.pem"
    path.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
        + certificate.public_bytes(pem)
    )
    return path


def test_tls_is_verified_and_an_unknown_authority_refused_at_once(fake, tmp_path, monkeypatch):
    path = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    fake.socket = context.wrap_socket(fake.socket, server_side=True)
    data = os.urandom(3_000_000)

    def registry():
        return ImageRepository(Registry(fake.host, ANONYMOUS, f"https://{fake.host}"), "adroit/m")

    with pytest.raises(RefusedError, match="certificate is not trusted"):
        registry().has_blob(blob_of(data))
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    repository = registry()
    assert repository.put_blob(blob_of(data), Inline(data)) is True
    assert read(repository, blob_of(data)) == data


def test_a_registry_whose_name_nobody_knows_is_not_asked_again():
    unknown = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    with pytest.raises(StoreError, match="not known here") as error:
        raise unreachable(unknown, "The blob could not be sent", "reg.exmaple")
    assert not error.value.transient
    busy = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    assert unreachable(busy, "The blob could not be sent", "reg.example").transient
