"""adroit_publish.gates.container: what is seen of an image that is run by a real Docker engine."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient

from adroit.serving.workers.native import THREAD_VARIABLES
from adroit_publish.bundle.record import Verification
from adroit_publish.errors import RefusedError, StoreError, VerificationError
from adroit_publish.gates import container, report
from adroit_publish.gates.container import predict_in_image
from tests.servers.docker_engine import docker_engine, engine_client
from tests.servers.eng_account import push_base
from tests.servers.registry_servers import PASSWORD, USERNAME, RegistryServer, docker_registry
from tests.support.env_images import PYTHON, push_carved_env, push_layout
from tests.support.serving_bundles import bundle, loader_model, predicting

DOUBLES = '[{"type": "double", "required": true}]'
BASE = "adroit-env/sklearn:1"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture(scope="module")
def client(registry: RegistryServer) -> Iterator[DockerClient]:
    """An engine that has the environment, so that each image costs it a small layer."""
    with (
        docker_engine() as engine,
        engine_client(engine) as client,
        pytest.MonkeyPatch.context() as patch,
    ):
        client.images.pull(f"{registry.host}/adroit-env/sklearn@{push_carved_env(registry, BASE)}")
        patch.setenv("DOCKER_HOST", engine.host)
        yield client


@pytest.fixture
def run(client: DockerClient, registry: RegistryServer, tmp_path: Path) -> Any:
    def run(model: dict[str, str], **options: Any) -> Verification:
        layout = bundle(tmp_path / "bundle", model)
        return predict_in_image(push_layout(registry, layout), python=PYTHON, **options)

    return run


@pytest.fixture(autouse=True)
def nothing_is_left(client: DockerClient) -> Iterator[None]:
    before = {image.id for image in client.images.list(all=True)}
    yield
    assert client.containers.list(all=True) == []
    assert {image.id for image in client.images.list(all=True)} == before


def failure(run: Any, body: str, **options: Any) -> str:
    with pytest.raises(VerificationError) as caught:
        run(loader_model(predicting(body)), **options)
    return str(caught.value)


def test_a_good_model_predicts_and_its_server_answers(run: Any) -> None:
    body = "return [x * 2.0 for x in model_input['x']]"
    seen = run(loader_model(predicting(body), outputs=DOUBLES))
    assert (seen.how, seen.predicted, seen.served, seen.outputs) == ("image", True, True, [2, 4])
    assert seen.load_seconds > 0
    assert 10 << 20 < seen.peak_memory_bytes < 2 << 30
    assert "mlflow-skinny" in seen.packages
    assert "boto3" not in seen.packages  # the image's, not this machine's


def test_a_model_without_an_input_example_is_loaded_and_its_server_answers_ping(run: Any) -> None:
    seen = run(loader_model(predicting("raise SystemExit"), example=False))
    assert (seen.predicted, seen.served, seen.outputs) == (False, True, None)


LOOKS_AROUND = """
import os, socket
def attempt(action):
    try:
        action()
        return "done"
    except OSError as error:
        return type(error).__name__
status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
return [
    sorted(os.environ),
    [os.getuid(), os.getgid()],
    [status[key].strip() for key in ("CapEff", "CapBnd", "NoNewPrivs")],
    attempt(lambda: open("/opt/adroit/new", "w")),
    attempt(lambda: open("/tmp/new", "w")),
    attempt(lambda: socket.create_connection(("10.0.0.1", 443), 5)),
    [name for _, name in socket.if_nameindex()],
    len([name for name in os.listdir("/proc") if name.isdigit()]),
]
"""


def test_a_model_finds_no_credentials_no_network_and_nothing_to_write_to(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = {"httpProxy": "http://user:secret@proxy:1"}
    (tmp_path / "config.json").write_text(json.dumps({"proxies": {"default": proxy}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    names, who, rights, root, tmp, network, interfaces, processes = run(
        loader_model(predicting(LOOKS_AROUND))
    ).outputs
    image = {"HOME", "HOSTNAME", "PATH", "PYTHONDONTWRITEBYTECODE", "PYTHONPATH"}
    others = {name for name in names if "MLFLOW_" not in name}  # those MLflow sets itself
    assert others == image | set(THREAD_VARIABLES)
    assert who == [65432, 65432]
    assert rights == ["0" * 16, "0" * 16, "1"]
    assert (root, tmp, network) == ("OSError", "done", "OSError")
    assert interfaces == ["lo"]
    assert processes == 5  # the reporter, the server, its loader and two workers


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise RuntimeError('no such weights')", "no such weights"),
        ("import os; os._exit(0)", "the server ended (exit code 0) before it answered"),
        ("import ctypes; ctypes.string_at(0)", "the server ended (SIGSEGV) before it answered"),
        ("import no_such_package_here", "conda environment"),
    ],
)
def test_a_model_that_does_not_answer_has_failed(run: Any, body: str, said: str) -> None:
    message = failure(run, body)
    assert said in message
    assert "in a container" in message


def test_a_model_that_writes_for_ever_is_ended_in_time(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "TIMEOUT_S", 6.0)
    body = "import os\nwhile True: os.write(2, b'x' * 65536)"
    assert "still running after 6 s" in failure(run, body)


def test_a_model_that_takes_more_memory_than_there_is_is_killed(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = "blocks = []\nwhile True: blocks.append(b'x' * (16 << 20))"
    monkeypatch.setattr(container, "_memory_bytes", lambda machine: 400 << 20)
    assert "takes more memory" in failure(run, body)


def test_a_model_whose_server_refuses_its_input_example_has_failed(run: Any) -> None:
    once = (
        "import os\nif os.path.exists('/tmp/asked'): raise ValueError('only once')\n"
        "open('/tmp/asked', 'w').close()\nreturn [1.0, 2.0]"
    )
    message = failure(run, once)
    assert "its server does not answer" in message
    assert "only once" in message


def test_the_bytes_of_a_pull_are_told_as_they_arrive(run: Any) -> None:
    weights = {"weights": "x" * (32 << 20)}
    arrived: list[int] = []
    run(loader_model(predicting("return [1]"), files=weights), pulled=arrived.append)
    assert 16 << 20 < sum(arrived) < 40 << 20


def test_what_the_env_holds_is_told_before_the_failure_it_may_explain(run: Any) -> None:
    def check(env: Any) -> None:
        raise VerificationError(f"{env.python.rpartition('.')[0]} {env.packages['numpy']}")

    body = "raise RuntimeError('later')"
    assert "later" not in failure(run, body, check_env=check)


def test_without_an_engine_the_refusal_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    with pytest.raises(RefusedError, match="--verify process") as caught:
        predict_in_image(f"127.0.0.1:1/a@sha256:{'0' * 64}", python=PYTHON)
    assert "unix:///nonexistent/docker.sock" in str(caught.value)


def test_an_image_that_is_not_there_is_an_error_of_the_store(registry: RegistryServer) -> None:
    with pytest.raises(StoreError, match="cannot pull") as caught:
        predict_in_image(f"{registry.host}/nothing@sha256:{'0' * 64}", python=PYTHON)
    assert "sha256:000" in str(caught.value)


def test_a_tag_is_misuse() -> None:
    with pytest.raises(ValueError, match="by its digest"):
        predict_in_image("127.0.0.1:1/a:latest", python=PYTHON)


def test_the_login_that_is_given_is_used_and_no_other(
    tmp_path: Path, client: DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    login = {"username": USERNAME, "password": PASSWORD}
    with docker_registry(tmp_path) as server:
        digest = push_base(server, "plain:1")
    with docker_registry(tmp_path, login=True) as server:
        reference = f"{server.host}/plain@{digest}"
        good = base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()
        (tmp_path / "config.json").write_text(json.dumps({"auths": {server.host: {"auth": good}}}))
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
        with pytest.raises(RefusedError, match="denies"):
            predict_in_image(reference, python=PYTHON)
        with pytest.raises(VerificationError, match="does not start") as caught:
            predict_in_image(reference, python=PYTHON, auth=login)
    assert PYTHON in str(caught.value)
    assert PASSWORD not in str(caught.value)
