"""ECR's API by moto; the blobs go to docker-registry, reached by ``images_endpoint``."""

from __future__ import annotations

import boto3
import pytest
from moto.server import ThreadedMotoServer

from adroit_publish.bundle.content import Inline
from adroit_publish.errors import RefusedError, StoreError
from adroit_publish.registry.client import Registry
from adroit_publish.registry.docker_config import Login
from adroit_publish.registry.ecr import Ecr, EcrHost, parse_ecr_host
from adroit_publish.registry.image_reference import Tag
from adroit_publish.registry.repository import ImageRepository
from tests.registry.test_registry import blob_of, push_image, read
from tests.servers.fake_registry import fake_registry
from tests.servers.registry_servers import docker_registry

HOST = "123456789012.dkr.ecr.us-east-1.amazonaws.com"


@pytest.fixture(scope="module")
def moto():
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def session(moto, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto)
    return boto3.Session("AKIAX", "secret", region_name="us-east-1")


def test_a_host_of_ecr_says_account_and_region():
    assert parse_ecr_host(HOST) == EcrHost("123456789012", "us-east-1")
    china = "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn"
    assert parse_ecr_host(china) == EcrHost("123456789012", "cn-north-1")
    for other in (
        "ghcr.io",
        "public.ecr.aws",
        f"{HOST}.evil.example",
        "1.dkr.ecr.us-east-1.amazonaws.com",
        "evil.example/" + HOST,
    ):
        assert parse_ecr_host(other) is None


def test_a_repository_is_made_once_with_immutable_tags_and_scanning(session):
    ecr = Ecr(session, "123456789012", "us-east-1")
    assert ecr.ensure_repository("adroit/first") is True
    assert ecr.ensure_repository("adroit/first") is False
    made = session.client("ecr").describe_repositories(repositoryNames=["adroit/first"])
    (repository,) = made["repositories"]
    assert repository["imageTagMutability"] == "IMMUTABLE"
    assert repository["imageScanningConfiguration"] == {"scanOnPush": True}


def test_a_login_is_asked_for_once_and_again_when_it_is_refused(session):
    ecr = Ecr(session, "123456789012", "us-east-1")
    login = ecr.get(HOST)
    assert login.username == "AWS"
    assert login.secret == "123456789012-auth-token"
    assert login.secret not in repr(login)
    assert ecr.get(HOST) is login
    assert ecr.renew(HOST) is not login


def test_an_image_is_published_to_a_registry_behind_an_endpoint(session, tmp_path):
    ecr = Ecr(session, "123456789012", "us-east-1")
    ecr.ensure_repository("adroit/model")
    with docker_registry(tmp_path) as server:
        repository = ImageRepository(Registry(HOST, ecr, server.url), "adroit/model")
        manifest, data = push_image(repository, b"layer")
        assert repository.tag(Tag("v1"), manifest, data) is True
        assert repository.location == f"{HOST}/adroit/model"
        assert read(repository, blob_of(b"layer")) == b"layer"


def test_the_login_is_told_to_the_endpoint_and_renewed_when_it_has_expired(session):
    class Expiring(Ecr):
        asked = 0

        def get(self, host):
            self.asked += 1
            return super().get(host) if self.asked > 1 else Login("AWS", "expired")

    with fake_registry(basic="AWS:123456789012-auth-token") as server:
        ecr = Expiring(session, "123456789012", "us-east-1")
        repository = ImageRepository(Registry(HOST, ecr, server.url, give_up_s=2), "adroit/model")
        assert repository.put_blob(blob_of(b"x"), Inline(b"x")) is True
        assert ecr.asked == 2


def denying(code, status=400, message="not authorized"):
    """An AWS endpoint that answers everything with one error."""
    import json
    import threading
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Denied(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            target = self.headers["X-Amz-Target"].rpartition(".")[2]
            self.server.asked.append(target)
            answer = code if isinstance(code, str) else code[target]
            body = json.dumps({"__type": answer, "message": message}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Denied)
    server.asked = []
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server


@pytest.fixture
def denied(monkeypatch):
    servers = []

    def start(*args, **kwargs):
        server = denying(*args, **kwargs)
        servers.append(server)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_address[1]}")
        session = boto3.Session("AKIAX", "secret", region_name="us-east-1")
        return Ecr(session, "123456789012", "us-east-1"), server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_creation_that_is_denied_names_the_permission(denied):
    ecr, server = denied(
        {
            "DescribeRepositories": "RepositoryNotFoundException",
            "CreateRepository": "AccessDeniedException",
        }
    )
    with pytest.raises(RefusedError, match="the permission ecr:CreateRepository"):
        ecr.ensure_repository("adroit/model")
    assert server.asked == ["DescribeRepositories", "CreateRepository"]


def test_a_repository_that_another_publish_made_first_is_success(denied):
    ecr, _ = denied(
        {
            "DescribeRepositories": "RepositoryNotFoundException",
            "CreateRepository": "RepositoryAlreadyExistsException",
        }
    )
    assert ecr.ensure_repository("adroit/model") is False


def test_a_token_that_is_denied_names_the_permission(denied):
    ecr, _ = denied("AccessDeniedException")
    with pytest.raises(RefusedError, match="ecr:GetAuthorizationToken"):
        ecr.get(HOST)


def test_expired_credentials_are_refused_and_a_failing_ecr_is_transient(denied):
    ecr, _ = denied("ExpiredTokenException")
    with pytest.raises(RefusedError, match="expired"):
        ecr.get(HOST)
    ecr, _ = denied("ServerException", status=500)
    with pytest.raises(StoreError) as error:
        ecr.get(HOST)
    assert error.value.transient
