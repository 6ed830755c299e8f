from __future__ import annotations

import pytest

from adroit_publish.bundle.content import Inline
from adroit_publish.bundle.digest import Digest
from adroit_publish.bundle.document import canonical_json
from adroit_publish.bundle.manifest import CONFIG_MEDIA_TYPE, INDEX_MEDIA_TYPE, MANIFEST_MEDIA_TYPE
from adroit_publish.errors import RefusedError, VerificationError
from adroit_publish.registry.base_image import resolve_base
from adroit_publish.registry.image_reference import ImageReference, Tag
from tests.registry.test_registry import blob_of, connect
from tests.servers.fake_registry import fake_registry
from tests.servers.registry_servers import docker_registry

DOCKER = "application/vnd.docker."
GZIP = DOCKER + "image.rootfs.diff.tar.gzip"


@pytest.fixture(params=["docker-registry", "fake"], scope="module")
def env(request, tmp_path_factory):
    if request.param == "fake":
        with fake_registry() as server:
            yield connect(server, "adroit-env/sklearn")
        return
    with docker_registry(tmp_path_factory.mktemp("registry")) as server:
        yield connect(server, "adroit-env/sklearn")


def push(repository, architecture, *, docker=False, tag=None, layer=None, variant=None, **changes):
    data = layer or f"layer of {architecture}".encode()
    config = {
        "os": "linux",
        "architecture": architecture,
        "config": {"Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(data))]},
    } | ({"variant": variant} if variant else {})
    config |= changes.pop("config", {})
    text = canonical_json(config)
    for each in (data, text):
        repository.put_blob(blob_of(each), Inline(each))
    media_type = DOCKER + "distribution.manifest.v2+json" if docker else MANIFEST_MEDIA_TYPE
    config_type = DOCKER + "container.image.v1+json" if docker else CONFIG_MEDIA_TYPE
    value = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": blob_of(text, config_type).as_dict(),
        "layers": [blob_of(data, GZIP).as_dict() | changes],
    }
    manifest_data = canonical_json(value)
    manifest = blob_of(manifest_data, media_type)
    repository.put_manifest(manifest, manifest_data)
    if tag:
        repository.replace_tag(Tag(tag), manifest, manifest_data)
    return manifest


def push_index(repository, tag, entries, *, docker=False):
    media_type = DOCKER + "distribution.manifest.list.v2+json" if docker else INDEX_MEDIA_TYPE
    manifests = [
        manifest.as_dict()
        | {"platform": dict(zip(("os", "architecture", "variant"), of, strict=False))}
        for manifest, of in entries
    ]
    data = canonical_json({"schemaVersion": 2, "mediaType": media_type, "manifests": manifests})
    repository.replace_tag(Tag(tag), blob_of(data, media_type), data)
    return blob_of(data, media_type)


def resolve(repository, name, platform="linux/amd64"):
    name = Tag(name) if isinstance(name, str) and ":" not in name else name
    return resolve_base(repository, ImageReference(repository.repository, name), platform)


@pytest.mark.parametrize("docker", [True, False])
def test_a_tag_is_pinned_to_its_manifest(env, docker):
    manifest = push(env, "amd64", docker=docker, tag="one")
    base = resolve(env, "one")
    assert base.digest == manifest.digest
    assert base.reference == f"{env.location}:one"
    assert [layer.media_type for layer in base.layers] == [GZIP]
    assert base.config["config"] == {"Env": ["PATH=/bin"]}
    assert resolve(env, manifest.digest).layers == base.layers


@pytest.mark.parametrize("docker", [True, False])
def test_an_index_is_pinned_to_the_manifest_of_the_platform(env, docker):
    amd = push(env, "amd64", docker=docker)
    arm = push(env, "arm64", docker=docker, variant="v8")
    entries = [(arm, ("linux", "arm64", "v8")), (amd, ("linux", "amd64"))]
    index = push_index(env, "many", entries, docker=docker)
    assert resolve(env, "many").digest == amd.digest
    assert resolve(env, "many", "linux/arm64").digest == arm.digest
    assert resolve(env, "many", "linux/arm64/v8").digest == arm.digest
    assert resolve(env, index.digest).digest == amd.digest


def test_an_index_without_the_platform_lists_those_there_are(env):
    arm = push(env, "arm64")
    entries = [(arm, ("linux", "arm64")), (arm, ("unknown", "unknown"))]
    push_index(env, "arm-only", entries)
    with pytest.raises(RefusedError) as error:
        resolve(env, "arm-only")
    assert (error.value.got, error.value.wanted) == ("linux/arm64", "linux/amd64")


def test_an_image_for_another_platform_is_refused(env):
    push(env, "arm64", tag="arm")
    with pytest.raises(RefusedError, match="another platform"):
        resolve(env, "arm")


def test_an_image_that_is_gone_is_refused(env):
    with pytest.raises(RefusedError, match="no such image"):
        resolve(env, "gone")


def test_an_index_of_an_index_is_refused():
    with fake_registry() as server:
        env = connect(server)
        inner = push_index(env, "inner", [])
        push_index(env, "outer", [(inner, ("linux", "amd64"))])
        with pytest.raises(RefusedError, match="another index"):
            resolve(env, "outer")


def test_a_layer_that_is_fetched_from_elsewhere_is_refused():
    with fake_registry() as server:
        env = connect(server)
        push(env, "amd64", tag="foreign", urls=["https://elsewhere.example/layer"])
        with pytest.raises(RefusedError, match="fetched from elsewhere"):
            resolve(env, "foreign")


def test_a_config_that_does_not_go_with_its_layers_is_found(env):
    push(env, "amd64", tag="odd", config={"rootfs": {"type": "layers", "diff_ids": []}})
    with pytest.raises(VerificationError, match="does not go with its layers"):
        resolve(env, "odd")


def test_a_config_that_was_changed_is_found():
    with fake_registry() as server:
        env = connect(server)
        push(env, "amd64", tag="v1")
        digest = next(digest for digest, data in server.blobs.items() if b"rootfs" in data)
        server.blobs[digest] = server.blobs[digest].replace(b"/bin", b"/evi")
        with pytest.raises(VerificationError, match="not what its digest says"):
            resolve(env, "v1")


def test_a_manifest_that_says_it_is_another_kind_is_found():
    with fake_registry() as server:
        env = connect(server)
        data = canonical_json(
            {"schemaVersion": 2, "mediaType": MANIFEST_MEDIA_TYPE, "manifests": []}
        )
        env.replace_tag(Tag("v1"), blob_of(data, MANIFEST_MEDIA_TYPE), data)
        with pytest.raises(VerificationError, match="kind"):
            resolve(env, "v1")
