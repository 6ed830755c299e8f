"""A published image on a real Docker engine: the same digest everywhere, and it serves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from docker import DockerClient
from docker.models.containers import Container

from adroit_publish import publish
from adroit_publish.bundle.digest import Digest
from adroit_publish.checkout import open_checkout
from adroit_publish.errors import VerificationError
from adroit_publish.places import open_places, open_store
from adroit_publish.publish.release import Release
from adroit_publish.stores.records import records
from adroit_publish.versions.promote import promote
from tests.servers.docker_engine import docker_engine, engine_client
from tests.servers.registry_servers import RegistryServer, docker_registry
from tests.support.checkouts import Trained, commit, make_checkout
from tests.support.env_images import push_carved_env, push_debian_env
from tests.support.requirements import require
from tests.support.rolling import SMALL, Load, advance_to, done, state

ENVS = """
plain:
  image: adroit-env/sklearn:1
bare:
  image: adroit-env/sklearn:bare
"""


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as server:
        push = push_debian_env if os.environ.get("ADROIT_FULL") == "1" else push_carved_env
        push(server, "adroit-env/sklearn:1")
        yield server


@pytest.fixture(scope="module")
def client(registry: RegistryServer) -> Iterator[DockerClient]:
    """An engine that has the environment, so that each image costs it a few small layers."""
    with (
        docker_engine() as engine,
        engine_client(engine) as client,
        pytest.MonkeyPatch.context() as patch,
    ):
        client.images.pull(f"{registry.host}/adroit-env/sklearn:1")
        patch.setenv("DOCKER_HOST", engine.host)
        yield client


@pytest.fixture(scope="module")
def checkout(
    tmp_path_factory: pytest.TempPathFactory, trained: Trained, registry: RegistryServer
) -> Path:
    target = f"""
        [targets.docker]
        tracking_uri = "{trained.tracking_uri}"
        bundles = "file:.adroit/bundles"
        images = "{registry.host}/adroit"
        sitevars = "file:.adroit/sitevars.json"

        [targets.elsewhere]
        tracking_uri = "{trained.tracking_uri}"
        bundles = "file:.adroit/elsewhere"
        images = "{registry.host}/elsewhere"
        """
    root = make_checkout(
        tmp_path_factory.mktemp("checkout") / "repo",
        trained.tracking_uri,
        {"a": trained.good[0], "b": trained.good[1], "c": trained.weighty},
        target_lines=dedent(target),
    )
    (root / "conda_envs.yaml").write_text(ENVS)
    commit(root, "images")
    return root


@pytest.fixture(scope="module")
def release(checkout: Path, client: DockerClient) -> Release:
    return publish("a", root=checkout, target="docker")


@pytest.fixture(scope="module")
def image(release: Release, registry: RegistryServer) -> str:
    return f"{registry.host}/adroit/doubler@{release.manifest_digest}"


@pytest.fixture(scope="module")
def pulled(client: DockerClient, image: str) -> str:
    client.images.pull(image)
    return image


@contextmanager
def served(client: DockerClient, image: str, **options: Any) -> Iterator[tuple[Container, str]]:
    """Runs a container on the host's network and gives it, and where it serves."""
    container = client.containers.run(image, detach=True, network_mode="host", **options)
    try:
        for line in container.logs(stream=True, follow=True):
            if b'"ready"' in line:
                url = f"http://127.0.0.1:{json.loads(line)['port']}"
                _wait_until_it_listens(url)
                yield container, url
                break
        else:
            raise AssertionError(container.logs().decode())
    finally:
        container.remove(force=True)


def _wait_until_it_listens(url: str) -> None:
    give_up = time.monotonic() + 30
    while True:
        try:
            ask(f"{url}/ping")
            return
        except urllib.error.URLError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.05)


def ask(url: str, body: Mapping[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read().strip() or "null")


def test_a_version_has_run_in_its_own_image_before_it_exists(
    checkout: Path, release: Release, client: DockerClient
) -> None:
    assert release.verification["how"] == "image"
    assert release.verification["served"] is True
    store = open_places(open_checkout(checkout, {}).target("docker"), "doubler").store
    (record,) = (each.document for each in records(store, store.get(release.version)))
    outputs = record["verification"]["outputs"]
    assert outputs == [{"x": 2.0, "y": 6.0}, {"x": 4.0, "y": 8.0}]
    assert "boto3" not in record["verification"]["packages"]  # the image's, not this machine's
    assert client.containers.list(all=True) == []


@pytest.mark.usefixtures("client")
def test_a_version_that_nobody_saw_is_promoted_once_its_image_ran_there(checkout: Path) -> None:
    version = publish("c", root=checkout, target="docker", verify="none").version
    opened = open_checkout(checkout, {})
    here, there = (opened.target(name) for name in ("docker", "elsewhere"))
    assert promote(opened, version, here, there, os.environ).verified == "image"
    store = open_store(there)
    _, promoted = records(store, store.get(version))
    assert promoted.verification is not None
    assert promoted.verification.outputs == [{"x": 2.0, "y": 6.0}, {"x": 4.0, "y": 8.0}]
    assert promoted.verification.imports is not None
    assert not promote(opened, version, here, there, os.environ).news


def test_docker_and_skopeo_pull_the_digest_that_was_published(
    pulled: str, release: Release, registry: RegistryServer, client: DockerClient, tmp_path: Path
) -> None:
    assert client.images.get(pulled).attrs["RepoDigests"] == [pulled]
    tagged = f"{registry.host}/adroit/doubler:{release.version}"
    assert client.images.pull(tagged).attrs["RepoDigests"] == [pulled]
    require(shutil.which("skopeo"), "skopeo is not installed (a Debian package)")
    copy = ["skopeo", "copy", "-q", "--insecure-policy", "--src-tls-verify=false"]
    subprocess.run([*copy, f"docker://{pulled}", f"dir:{tmp_path}/image"], check=True)
    manifest = (tmp_path / "image" / "manifest.json").read_bytes()
    assert Digest.of(manifest) == release.manifest_digest


@pytest.mark.parametrize("arguments", [[], ["serve"]], ids=["plain", "as SageMaker starts it"])
def test_the_image_serves_read_only_and_as_nobody(
    pulled: str, release: Release, client: DockerClient, arguments: list[str]
) -> None:
    confined = {"read_only": True, "tmpfs": {"/tmp": ""}, "user": "54321:54321"}
    with served(client, pulled, command=[*arguments, "--port=0"], **confined) as (container, url):
        assert ask(f"{url}/ping") is None
        answer = ask(f"{url}/invocations", {"dataframe_records": [{"x": 1.5, "y": 4.0}]})
        assert answer == {"predictions": [{"x": 3.0, "y": 8.0}]}
        facts = ask(f"{url}/bundle")
        assert facts["bundle_id"] == release.bundle_id
        container.kill("SIGTERM")
        assert container.wait(timeout=60)["StatusCode"] == 0


def test_a_rollover_from_one_image_to_another_loses_no_request(
    checkout: Path,
    release: Release,
    pulled: str,
    registry: RegistryServer,
    client: DockerClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ADROIT_TARGET", "docker")
    flavors = (checkout / "flavors.yaml").read_bytes()
    new = publish("b", root=checkout, target="docker")
    new_image = f"{registry.host}/adroit/doubler@{new.manifest_digest}"
    client.images.pull(new_image)
    done(checkout, "sitevar", "set", "doubler", "a", "--why", "first")
    with (
        served(client, pulled, command=["--port=0"]) as (_, old_url),
        served(client, new_image, command=["--port=0"]) as (_, new_url),
    ):
        counted = ("--metrics", old_url, "--metrics", new_url, "--quiet", "2")
        both = ("--from", "a", "--to", "b", "--url", new_url, *SMALL)
        done(checkout, "rollover", "start", *both, *counted)
        with Load(f"file:{checkout}/.adroit/sitevars.json", {"a": old_url, "b": new_url}) as load:
            advance_to(checkout, "drained")
            done(checkout, "rollover", "finish", "doubler")
        assert load.failed == []
        assert load.answered["b"] > 0
    assert state(checkout) == "retired"
    assert "\na:" not in (checkout / "flavors.yaml").read_text()
    (checkout / "flavors.yaml").write_bytes(flavors)


def test_an_env_without_the_web_server_is_told_by_name_before_there_is_a_version(
    checkout: Path, registry: RegistryServer, client: DockerClient
) -> None:
    push_carved_env(registry, "adroit-env/sklearn:bare", less=["starlette", "uvicorn"])
    flavors = checkout / "flavors.yaml"
    before, b, after = flavors.read_text().partition("\nb:\n")
    flavors.write_text(before + b + after.replace("conda_env: plain", "conda_env: bare"))
    commit(checkout, "an env that is too small")
    text = flavors.read_text()
    store = open_places(open_checkout(checkout, {}).target("docker"), "doubler").store
    versions = [published.version for published in store.versions("doubler")]
    with pytest.raises(VerificationError, match="starlette"):
        publish("b", root=checkout, target="docker")
    assert flavors.read_text() == text
    assert [published.version for published in store.versions("doubler")] == versions
    assert client.containers.list(all=True) == []
