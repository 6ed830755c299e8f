"""adroit_publish.envs.build: an env's image made by a real Docker engine, and pushed."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import sys
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from textwrap import dedent

import pytest
from docker import DockerClient

from adroit_publish.checkout import open_checkout
from adroit_publish.config.conda_envs import CondaEnv
from adroit_publish.config.environment_yml import Environment, parse_environment
from adroit_publish.envs.build import PACKAGES_LABEL, BuiltEnv, build_env
from adroit_publish.envs.recipe import conda_recipe, pip_recipe
from adroit_publish.errors import ConfigError, RefusedError, StoreError
from tests.servers.docker_engine import docker_engine, engine_client
from tests.servers.registry_servers import RegistryServer, docker_registry
from tests.support.env_images import push_python

MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"
ENV = CondaEnv("tiny", "envs/tiny:1", "linux/amd64", "/opt/conda/envs/adroit/bin/python", "e.yml")
SECRET = "canary-of-the-index"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A package index on loopback with one package, ``tiny`` 1.5, and a conda channel."""
    root = tmp_path_factory.mktemp("index")
    write_wheel(root / "simple" / "tiny", "tiny", "1.5")
    (root / "channel" / "noarch").mkdir(parents=True)
    (root / "channel" / "noarch" / "repodata.json").write_text("{}")
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(root))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def write_wheel(directory: Path, name: str, version: str) -> None:
    directory.mkdir(parents=True)
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": b"ANSWER = 42\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},{digest_of(data)},{len(data)}\n" for path, data in files.items())
    with zipfile.ZipFile(directory / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, data in files.items():
            wheel.writestr(path, data)
        wheel.writestr(f"{info}/RECORD", record + f"{info}/RECORD,,\n")


def digest_of(data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
    return f"sha256={digest}"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as server:
        push_python(server, "envs/python:1")
        yield server


@pytest.fixture(scope="module")
def client() -> Iterator[DockerClient]:
    with (
        docker_engine() as engine,
        engine_client(engine) as client,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("DOCKER_HOST", engine.host)
        yield client


def checkout(root: Path, host: str, *, python: str = MINOR, more: str = "", channel: str) -> Path:
    (root / "flavors.yaml").write_text("")
    (root / "conda_envs.yaml").write_text("tiny:\n  image: envs/tiny:1\n  environment: e.yml\n")
    (root / "adroit.toml").write_text(
        dedent(
            f"""\
            default_target = "docker"
            [targets.docker]
            tracking_uri = "sqlite:///nothing.db"
            bundles = "file:.adroit/bundles"
            images = "{host}/adroit"
            """
        )
    )
    lines = f"channels: ['{channel}']\ndependencies:\n- python={python}\n- pip\n{more}"
    (root / "e.yml").write_text(lines + "- pip:\n  - tiny==1.5\n")
    return root


def built(root: Path, **options: str) -> tuple[BuiltEnv, list[str]]:
    opened, log = open_checkout(root, {}), list[str]()
    target = opened.target("docker")
    return build_env(opened, target, "tiny", heard=log.append, **options), log


NOWHERE = "http://127.0.0.1:1/no/channel"


def test_the_pip_part_is_installed_on_a_base_and_pushed(
    tmp_path: Path,
    registry: RegistryServer,
    client: DockerClient,
    index: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", index.replace("//", f"//u:{SECRET}@") + "/simple")
    root = checkout(tmp_path, registry.host, channel=NOWHERE)
    env, log = built(root, base="envs/python:1")
    assert env.how.startswith(f"pip on {registry.host}/envs/python@sha256:")
    assert log[0] == f"env tiny: built with {env.how}"
    assert env.packages["tiny"] == "1.5"
    assert env.packages["python"].startswith(MINOR)

    image = client.images.pull(f"{registry.host}/envs/tiny@{env.digest}")
    assert json.loads(image.labels[PACKAGES_LABEL]) == env.packages
    command = [ENV.python, "-c", "import tiny, sys; print(tiny.ANSWER, sys.prefix)"]
    said = client.containers.run(image, command, network_mode="none", remove=True)
    assert said.decode().split() == ["42", "/opt/conda/envs/adroit"]
    told = json.dumps([image.attrs, image.history()])
    assert SECRET not in told
    assert index not in told
    assert client.containers.list(all=True) == []


def test_a_package_that_the_index_lacks_is_told_with_the_end_of_the_log(
    tmp_path: Path,
    registry: RegistryServer,
    client: DockerClient,
    index: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", f"{index}/simple")
    root = checkout(tmp_path, registry.host, channel=NOWHERE)
    (root / "e.yml").write_text(f"dependencies: [python={MINOR}, pip: [tiny==7]]\n")
    with pytest.raises(StoreError, match="No matching distribution found for tiny==7") as caught:
        built(root, base="envs/python:1")
    assert "could not be built" in caught.value.what


def test_a_base_of_another_python_is_refused_by_the_build(
    tmp_path: Path, registry: RegistryServer, client: DockerClient
) -> None:
    root = checkout(tmp_path, registry.host, channel=NOWHERE, python="3.7")
    with pytest.raises(StoreError, match="returned a non-zero code"):
        built(root, base="envs/python:1")


def test_without_channels_a_base_is_asked_for(
    tmp_path: Path, registry: RegistryServer, client: DockerClient
) -> None:
    root = checkout(tmp_path, registry.host, channel=NOWHERE)
    with pytest.raises(RefusedError, match="no base image is given") as caught:
        built(root)
    assert "make build_env ENV=tiny BASE=" in str(caught.value)
    assert NOWHERE in str(caught.value)


def test_conda_packages_that_pip_cannot_install_are_refused_by_name(
    tmp_path: Path, registry: RegistryServer, client: DockerClient
) -> None:
    root = checkout(tmp_path, registry.host, channel=NOWHERE, more="- openjdk=21\n")
    with pytest.raises(RefusedError, match="openjdk=21"):
        built(root, base="envs/python:1")


def test_channels_that_answer_mean_micromamba(
    tmp_path: Path, registry: RegistryServer, client: DockerClient, index: str
) -> None:
    """Docker Hub is no part of the tests: it is enough that this build wants its image."""
    root = checkout(tmp_path, registry.host, channel=f"{index}/channel")
    opened, log = open_checkout(root, {}), list[str]()
    with pytest.raises((StoreError, RefusedError)):
        build_env(opened, opened.target("docker"), "tiny", heard=log.append)
    assert log[0] == "env tiny: built with micromamba"


def test_an_env_without_an_environment_or_a_target_without_images_is_refused(
    tmp_path: Path,
) -> None:
    root = checkout(tmp_path, "127.0.0.1:1", channel=NOWHERE)
    toml = (root / "adroit.toml").read_text()
    (root / "adroit.toml").write_text(toml.replace("images", "# images"))
    with pytest.raises(ConfigError, match="nowhere to push"):
        built(root)
    (root / "conda_envs.yaml").write_text("tiny:\n  image: envs/tiny:1\n")
    with pytest.raises(ConfigError, match=r"no environment\.yml"):
        built(root)


# Recipes and environment.yml, as text.


def test_micromamba_creates_the_whole_environment_where_it_serves() -> None:
    recipe = conda_recipe(ENV, b"name: x\n")
    assert recipe.files == {"environment.yml": b"name: x\n"}
    assert "create --yes --prefix /opt/conda/envs/adroit --file" in recipe.dockerfile


def test_what_pip_is_told_stays_in_the_first_stage() -> None:
    recipe = pip_recipe(ENV, Environment((), "3.11", (), ("a==1",)), "h/base@sha256:1")
    first, _, second = recipe.dockerfile.partition("FROM h/base@sha256:1\n")
    assert "ARG PIP_INDEX_URL" in first
    assert second == "COPY --from=build /opt/conda/envs/adroit /opt/conda/envs/adroit\n"
    assert recipe.files == {"requirements.txt": b"a==1\n"}


def test_environment_yml_is_read_as_far_as_a_build_needs_it() -> None:
    text = b"""
        name: x
        channels: [conda-forge, nodefaults]
        dependencies: [python=3.11.7, pip, 'openjdk>=21', {pip: [numpy==2.4.6, 'a[b]>1']}]
        """
    assert parse_environment(text, "e.yml") == Environment(
        ("conda-forge",), "3.11", ("openjdk>=21",), ("numpy==2.4.6", "a[b]>1")
    )


@pytest.mark.parametrize(
    "dependencies",
    ["{}", "python", "[1]", "[{pip: numpy}]", "[{pip: [-r other.txt]}]", "[{npm: [x]}]", "['-x']"],
)
def test_dependencies_that_are_none_are_refused(dependencies: str) -> None:
    with pytest.raises(ConfigError, match=r"e\.yml:1: .*'dependencies' must list"):
        parse_environment(f"dependencies: {dependencies}\n".encode(), "e.yml")
