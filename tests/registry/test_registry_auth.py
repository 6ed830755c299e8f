from __future__ import annotations

import base64
import json
import os
import stat
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from adroit_publish.bundle.content import Inline
from adroit_publish.errors import ConfigError, RefusedError, StoreError
from adroit_publish.registry.auth import Authorization, is_for, parse_challenge
from adroit_publish.registry.client import Registry, default_endpoint
from adroit_publish.registry.docker_config import DockerCredentials, Login
from adroit_publish.registry.http import Answer, Endpoint, Http
from adroit_publish.registry.repository import ImageRepository
from tests.registry.test_registry import ANONYMOUS, blob_of, connect, read
from tests.servers.fake_registry import Fault, fake_registry


def docker_config(directory, config):
    (directory / "config.json").write_text(json.dumps(config))
    return DockerCredentials({"DOCKER_CONFIG": str(directory), "PATH": f"{directory}:/bin"})


def pair(text):
    return base64.b64encode(text.encode()).decode()


def logged_in(directory, host, text="me:pass:word"):
    return docker_config(directory, {"auths": {host: {"auth": pair(text)}}})


def helper(directory, name, script):
    path = directory / f"docker-credential-{name}"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_a_token_is_fetched_with_the_login_and_used_again(tmp_path):
    with fake_registry(bearer="me:pass:word") as server:
        repository = connect(server, credentials=logged_in(tmp_path, server.host))
        for n in range(3):
            repository.put_blob(blob_of(b"%d" % n), Inline(b"%d" % n))
        assert read(repository, blob_of(b"1")) == b"1"
        assert server.count("GET", "/token") == 2  # one to pull, one to push
        basic = [each for each in server.requests if each.authorization.startswith("Basic")]
        assert {each.path.partition("?")[0] for each in basic} == {"/token"}


def test_a_registry_that_wants_a_token_of_nobody_gets_one(tmp_path):
    with fake_registry(bearer="anonymous") as server:
        repository = connect(server)
        repository.put_blob(blob_of(b"x"), Inline(b"x"))
        assert read(repository, blob_of(b"x")) == b"x"


def test_a_mount_asks_for_a_token_good_for_both_repositories(tmp_path):
    with fake_registry(bearer="me:pass:word") as server:
        login = logged_in(tmp_path, server.host)
        source, repository = connect(server, "env", credentials=login), None
        source.put_blob(blob_of(b"x"), Inline(b"x"))
        repository = ImageRepository(source.registry, "model")
        assert repository.take_blob(blob_of(b"x"), source) is False


def test_a_token_that_is_refused_is_fetched_again(tmp_path):
    with fake_registry(bearer="me:pass:word", token_uses=2) as server:
        repository = connect(server, credentials=logged_in(tmp_path, server.host))
        data = bytes(3_000_000)
        heard = []
        for n in range(5):
            repository.put_blob(blob_of(data + b"%d" % n), Inline(data + b"%d" % n), heard.append)
        assert sum(heard) == 5 * 3_000_001
        assert server.count("GET", "/token") > 5


def test_an_identity_token_is_exchanged(tmp_path):
    with fake_registry(bearer="refresh-me") as server:
        config = {"auths": {server.host: {"identitytoken": "refresh-me"}}}
        repository = connect(server, credentials=docker_config(tmp_path, config))
        assert repository.put_blob(blob_of(b"x"), Inline(b"x")) is True
        assert server.count("POST", "/token") > 0


def test_a_wrong_password_is_refused_without_showing_it(tmp_path):
    for how in ({"bearer": "me:right"}, {"basic": "me:right"}):
        with fake_registry(**how) as server:
            repository = connect(server, credentials=logged_in(tmp_path, server.host))
            with pytest.raises(RefusedError, match="denies access") as error:
                repository.put_blob(blob_of(b"x"), Inline(b"x"))
            assert "pass:word" not in str(error.value)
            assert pair("me:pass:word") not in str(error.value)


def test_basic_is_told_only_after_it_was_asked_for(tmp_path):
    with fake_registry(basic="me:pass:word") as server:
        repository = connect(server, credentials=logged_in(tmp_path, server.host))
        repository.put_blob(blob_of(b"x"), Inline(b"x"))
        told = [each.authorization[:5] for each in server.requests]
        assert told[0] == ""
        assert set(told[1:]) == {"Basic"}


def test_no_credential_goes_to_a_realm_on_another_host(tmp_path):
    with fake_registry() as other, fake_registry(bearer="me:pass:word") as server:
        server.behaviour.realm = f"{other.url}/token"
        repository = connect(server, credentials=logged_in(tmp_path, server.host))
        with pytest.raises(RefusedError, match="sent to another host") as error:
            repository.put_blob(blob_of(b"x"), Inline(b"x"))
        assert other.host in str(error.value.got)
        assert other.requests == []


def test_a_realm_without_tls_is_refused(tmp_path):
    with (
        fake_registry(bearer="anonymous", realm="http://auth.example/token") as server,
        pytest.raises(RefusedError, match="not encrypted"),
    ):
        connect(server).put_blob(blob_of(b"x"), Inline(b"x"))


@pytest.mark.parametrize(
    ("realm", "registry", "allowed"),
    [
        ("https://auth.docker.io", "https://registry-1.docker.io", True),
        ("https://gitlab.com", "https://registry.gitlab.com", True),
        ("https://quay.io", "https://quay.io", True),
        ("https://reg.corp.example", "https://reg.corp.example:5050", True),
        ("https://auth.corp.example", "https://reg.corp.example", True),
        ("https://evilcorp.example", "https://reg.corp.example", False),
        ("https://docker.io.evil.example", "https://registry-1.docker.io", False),
        ("https://evil.io", "https://quay.io", False),
        ("https://evil.co.uk", "https://corp.co.uk", False),
        ("https://evil.azurecr.io", "https://corp.azurecr.io", False),
        (
            "https://x.dkr.ecr.us-east-1.amazonaws.com",
            "https://1.dkr.ecr.us-east-1.amazonaws.com",
            False,
        ),
        ("https://10.0.0.2", "https://10.0.0.1", False),
        ("http://127.0.0.1:2", "http://127.0.0.1:1", False),
        ("http://127.0.0.1:1", "http://127.0.0.1:1", True),
        ("http://localhost:1", "https://registry.example", False),
    ],
)
def test_a_realm_gets_credentials_only_of_its_own_registry(realm, registry, allowed):
    assert is_for(Endpoint.parse(realm), Endpoint.parse(registry)) is allowed


def test_challenges_are_read_as_servers_write_them():
    bearer = 'Bearer realm="https://a/t?x=1,2",service="s, t", scope="repository:a:pull,push"'
    for headers in ([bearer], ["Basic realm=x", bearer], [f'Basic realm="x", {bearer}']):
        found = parse_challenge(headers)
        assert (found.scheme, found.realm, found.service) == ("bearer", "https://a/t?x=1,2", "s, t")
    assert parse_challenge(['Basic realm="Bearer of news"']).scheme == "basic"
    assert parse_challenge(["Negotiate", ""]) is None


def test_a_redirected_blob_is_read_without_the_credential(tmp_path):
    seen = []

    class Storage(BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append(dict(self.headers))
            self.send_response(200)
            self.send_header("Content-Length", "4")
            self.end_headers()
            self.wfile.write(b"data")

        def log_message(self, *_):
            pass

    storage = ThreadingHTTPServer(("127.0.0.1", 0), Storage)
    Thread(target=storage.serve_forever, args=(0.02,), daemon=True).start()
    with fake_registry(basic="me:pass:word") as server:
        server.behaviour.blobs_at = f"http://127.0.0.1:{storage.server_address[1]}"
        repository = connect(server, credentials=logged_in(tmp_path, server.host))
        repository.put_blob(blob_of(b"data"), Inline(b"data"))
        assert read(repository, blob_of(b"data")) == b"data"
    storage.shutdown()
    storage.server_close()
    assert len(seen) == 1
    assert "Authorization" not in seen[0]


def test_a_redirect_off_loopback_without_tls_and_one_without_end_are_refused():
    with fake_registry() as server:
        repository = connect(server)
        repository.put_blob(blob_of(b"data"), Inline(b"data"))
        server.behaviour.blobs_at = "http://storage.example"
        with pytest.raises(RefusedError, match="must not be asked"):
            read(repository, blob_of(b"data"))
        server.behaviour.blobs_at = f"{server.url}/v2/adroit/model/blobs"
        with pytest.raises(StoreError, match="without end"):
            read(repository, blob_of(b"data"))


def test_a_token_server_that_gives_no_token_is_named():
    with fake_registry(bearer="anonymous") as server:
        for body in (b"[]", b"<html>", b'{"token": "a\\nb"}', b'{"token": 1}'):
            server.faults.append(Fault("GET", "/token", status=200, body=body))
            with pytest.raises(StoreError, match="gave no token"):
                connect(server).put_blob(blob_of(b"x"), Inline(b"x"))


def test_a_denied_permission_is_refused_with_the_registrys_words():
    with fake_registry() as server:
        body = json.dumps({"errors": [{"code": "DENIED", "message": "no push here"}]}).encode()
        server.faults.append(Fault("POST", status=403, body=body))
        with pytest.raises(RefusedError, match="403 Forbidden DENIED: no push here"):
            connect(server).put_blob(blob_of(b"x"), Inline(b"x"))


def test_credentials_are_found_as_docker_finds_them(tmp_path):
    helper(
        tmp_path, "one", 'read host; echo "{\\"Username\\":\\"u\\",\\"Secret\\":\\"of $host\\"}"'
    )
    helper(tmp_path, "all", "echo 'credentials not found in native keychain'; exit 1")
    helper(tmp_path, "token", """echo '{"Username":"<token>","Secret":"t"}'""")
    config = {
        "credsStore": "all",
        "credHelpers": {"a.example": "one", "t.example": "token"},
        "auths": {
            "a.example": {},
            "https://b.example/v1/": {"auth": pair("bob:x:y")},
            "https://index.docker.io/v1/": {"auth": pair("hub:h")},
            "d.example": {"auth": ""},
            "e.example": {"username": "eve", "password": "p"},
        },
    }
    credentials = docker_config(tmp_path, config)
    assert credentials.get("a.example") == Login("u", "of a.example")
    assert credentials.get("t.example") == Login("", "t")
    assert credentials.get("b.example") == Login("bob", "x:y")
    assert credentials.get("docker.io") == Login("hub", "h")
    assert credentials.get("e.example") == Login("eve", "p")
    for unknown in ("d.example", "b.example.evil.example", "example", "b.example:5000"):
        assert credentials.get(unknown) is None
    assert "x:y" not in repr(credentials.get("b.example"))


def test_a_docker_config_that_is_damaged_says_where(tmp_path):
    for text in (
        "{",
        "[]",
        '{"auths": {"h": {"auth": "!"}}}',
        '{"auths": {"h": {"auth": "eA=="}}}',
    ):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ConfigError, match=r"config\.json"):
            DockerCredentials({"DOCKER_CONFIG": str(tmp_path)}).get("h")


def test_a_helper_that_fails_is_refused_with_its_words(tmp_path):
    credentials = docker_config(tmp_path, {"credHelpers": {"h": "broken", "i": "missing"}})
    helper(tmp_path, "broken", "echo 'token expired' >&2; exit 1")
    with pytest.raises(RefusedError, match="token expired"):
        credentials.get("h")
    with pytest.raises(RefusedError, match="docker-credential-missing"):
        credentials.get("i")
    with pytest.raises(ConfigError, match="name is malformed"):
        docker_config(tmp_path, {"credsStore": "../evil"}).get("h")


def test_the_docker_config_is_found_by_environment_then_home(tmp_path):
    os.makedirs(tmp_path / ".docker")
    docker_config(tmp_path / ".docker", {"auths": {"h": {"auth": pair("home:x")}}})
    assert DockerCredentials({"HOME": str(tmp_path)}).get("h") == Login("home", "x")
    other = tmp_path / "other"
    assert DockerCredentials({"HOME": str(tmp_path), "DOCKER_CONFIG": str(other)}).get("h") is None


def test_a_registry_is_reached_by_tls_but_on_loopback():
    assert str(default_endpoint("ghcr.io")) == "https://ghcr.io"
    assert str(default_endpoint("docker.io")) == "https://registry-1.docker.io"
    assert str(default_endpoint("reg.example:5000")) == "https://reg.example:5000"
    assert str(default_endpoint("127.0.0.1:5000")) == "http://127.0.0.1:5000"
    assert str(default_endpoint("[::1]:5000")) == "http://[::1]:5000"
    for url in ("http://reg.example", "ftp://127.0.0.1", "https://u:p@reg.example", "https://[x"):
        with pytest.raises(ConfigError) as error:
            Registry("reg.example", ANONYMOUS, url)
        assert "u:p" not in str(error.value)


def test_a_registry_elsewhere_cannot_point_to_this_machine():
    registry = Registry("reg.example", ANONYMOUS)
    start = "https://reg.example/v2/a/blobs/x"
    for location in ("http://127.0.0.1:1/x", "https://localhost/x", "https://[::1]/x", "http://[x"):
        with pytest.raises(RefusedError, match="must not be asked"):
            registry.place(start, location)
    storage, target, ours = registry.place(start, "https://storage.example/x?sig=1")
    assert (str(storage), target, ours) == ("https://storage.example", "/x?sig=1", False)
    assert registry.place(start, "../y?a=1") == (registry.endpoint, "/v2/a/y?a=1", True)
    assert registry.place(start, "http://reg.example/z") == (registry.endpoint, "/z", True)

    headers = Message()
    headers["WWW-Authenticate"] = 'Bearer realm="http://127.0.0.1:1/token"'
    authorization = Authorization("reg.example", registry.endpoint, ANONYMOUS, Http(), 1.0)
    with pytest.raises(RefusedError, match="names this machine"):
        authorization.answer(Answer(401, headers, b""), (), None)


@pytest.mark.parametrize("auth", [17, ["x"], "ä", "/w==", pair(":only a secret")])
def test_a_login_of_the_docker_config_that_cannot_be_read_is_our_error(tmp_path, auth):
    credentials = docker_config(tmp_path, {"auths": {"h": {"auth": auth}, "i": {}}})
    with pytest.raises(ConfigError, match="docker login h"):
        credentials.get("h")
    assert credentials.get("i") is None
