"""Publishes to the Eng account while S3, the registry and AWS fail, one fault a test.

A fault proxy stands before each of the servers; what it counted is the proof of what was sent.
``ADROIT_FULL=1`` makes the large file 1 GiB in place of 64 MiB and prints the bytes on the wire.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from adroit_publish import publish
from adroit_publish.checkout import open_checkout
from adroit_publish.custody.check import verify
from adroit_publish.errors import PublishError, RefusedError, StoreError
from adroit_publish.places import open_places
from adroit_publish.registry.image_reference import Tag
from tests.servers.eng_account import ACCOUNT, BASE, eng_account
from tests.servers.fault_proxy import FaultProxy, answer, s3_error
from tests.servers.object_servers import boto3_session
from tests.support.checkouts import commit, make_checkout

MIB = 1 << 20
LARGE_BYTES = (1024 if os.environ.get("ADROIT_FULL") else 64) * MIB
SMALL_BYTES = 20 * MIB
ALWAYS = 10**6
MUTATING = ("PUT", "POST", "PATCH", "DELETE")
IN_S3, IN_REGISTRY = r"/blobs/sha256/", r"/uploads/"


@dataclass(frozen=True)
class Stage:
    """A checkout with one flavor ``a``, and the proxies before the account's servers."""

    root: Path
    s3: FaultProxy
    registry: FaultProxy
    aws: FaultProxy

    def publish(self):
        return publish("a", root=self.root, verify="none")

    def mutating(self):
        """The requests that could have changed something."""
        found = [seen for method in MUTATING for seen in self.s3.matching(method)]
        found += [seen for method in MUTATING for seen in self.registry.matching(method)]
        asked = self.aws.matching("POST")
        return found + [seen for seen in asked if "Create" in seen.headers.get("x-amz-target", "")]

    def sent_bytes(self):
        """Bytes of bodies that were sent to S3 and to the registry."""
        return self.s3.body_bytes("PUT"), self.registry.body_bytes("PUT")

    def forget(self):
        for proxy in (self.s3, self.registry, self.aws):
            proxy.requests.clear()


@pytest.fixture(scope="module")
def tracking(tmp_path_factory):
    """A tracking store, and a function that makes a run with a small and a large file in it."""
    from mlflow import MlflowClient

    directory = tmp_path_factory.mktemp("tracking")
    uri = f"sqlite:///{directory}/mlflow.db"
    client = MlflowClient(uri)
    experiment = client.create_experiment("faults", (directory / "store").as_uri())

    def log():
        run = client.create_run(experiment)
        folder = Path(run.info.artifact_uri.removeprefix("file://"), "model")
        (folder / "data").mkdir(parents=True)
        (folder / "MLmodel").write_text("flavors: {}\n")
        for name, size_bytes in (("small", SMALL_BYTES), ("large", LARGE_BYTES)):
            with (folder / "data" / name).open("wb") as file:
                file.write(os.urandom(64))
                file.truncate(size_bytes)
        history = json.dumps([{"artifact_path": "model", "model_uuid": "u"}])
        client.set_tag(run.info.run_id, "mlflow.log-model.history", history)
        client.set_terminated(run.info.run_id)
        return run.info.run_id

    return uri, log


@pytest.fixture(scope="module")
def eng(tmp_path_factory, tracking):
    with eng_account(tmp_path_factory.mktemp("eng"), tracking[0]) as account:
        yield account


@pytest.fixture
def stage(tmp_path, tracking, eng, monkeypatch):
    uri, log = tracking
    with (
        FaultProxy(eng.s3_endpoint, bucket_owner=ACCOUNT) as s3,
        FaultProxy(eng.registry.url) as registry,
        FaultProxy(eng.aws_endpoint) as aws,
    ):
        endpoints = {"AWS_ENDPOINT_URL": aws.endpoint, "AWS_ENDPOINT_URL_S3": s3.endpoint}
        for name, value in {**eng.environ, **endpoints}.items():
            monkeypatch.setenv(name, value)
        lines = eng.target_lines.replace(eng.registry.url, registry.endpoint)
        root = make_checkout(tmp_path / "repo", uri, {"a": log()}, target_lines=lines)
        envs = root / "conda_envs.yaml"
        envs.write_text(f"plain:\n  image: {BASE}\n  environment: environment.yml\n")
        commit(root, "an image for the env")
        yield Stage(root, s3, registry, aws)


def check_published(stage):
    """Everything of flavor ``a`` is in both places under one digest, by reading it back."""
    checkout = open_checkout(stage.root, {})
    places = open_places(checkout.target("eng"), "doubler")
    version = checkout.flavors["a"].version
    published = places.store.get(version)
    assert verify(places.store, published).problems == []
    assert places.images.resolve(Tag(version)).descriptor.digest == published.manifest.digest


def of_large_bodies(change, times=1):
    """Makes an act of ``change(exchange, fired before)`` for bodies of more than half the large."""
    fired = []
    lock = threading.Lock()

    def act(exchange):
        if int(exchange.seen.headers.get("content-length", 0)) <= 32 * MIB:
            return
        with lock:
            if len(fired) >= times:
                return
            fired.append(exchange.seen)
        change(exchange)

    act.fired = fired
    return act


def half(exchange):
    exchange.cut_at_bytes = int(exchange.seen.headers["content-length"]) // 2


class Watched:
    """The client's stream; calls ``hook`` once so much of the body has been read."""

    def __init__(self, stream, at_bytes, hook):
        self._stream, self._left, self._hook = stream, at_bytes, hook

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def read(self, size):
        data = self._stream.read(size)
        before, self._left = self._left, self._left - len(data)
        if before > 0 >= self._left:
            self._hook()
        return data


def told(text):
    if os.environ.get("ADROIT_FULL"):
        print(text)


# The connection


def test_a_connection_cut_at_half_of_a_large_blob_is_finished_by_trying_again(stage):
    cut_s3, cut_registry = of_large_bodies(half), of_large_bodies(half)
    stage.s3.inject(cut_s3, "PUT", times=ALWAYS)
    stage.registry.inject(cut_registry, "PUT", times=ALWAYS)
    stage.publish()
    assert (len(cut_s3.fired), len(cut_registry.fired)) == (1, 1)
    in_s3, in_registry = stage.sent_bytes()
    told(f"cut at half: {in_s3:,} bytes to S3, {in_registry:,} to the registry")
    # What was cut is sent again: half a part of 64 MiB to S3, half the blob to the registry.
    whole = LARGE_BYTES + SMALL_BYTES
    assert whole <= in_s3 <= whole + 32 * MIB + MIB
    assert whole <= in_registry <= whole + LARGE_BYTES // 2 + MIB
    check_published(stage)


PUBLISH = "import sys; from adroit_publish import publish; "
PUBLISH += "publish('a', root=sys.argv[1], verify='none')"


@pytest.mark.parametrize("place", ["s3", "registry"])
def test_a_publish_killed_at_half_of_a_large_blob_sends_no_stored_layer_again(stage, place):
    children = []
    proxy = getattr(stage, place)

    def is_stored():
        small = [seen for seen in proxy.matching("PUT") if seen.body_bytes > SMALL_BYTES]
        return any(seen.status in (200, 201, 204) for seen in small)

    def kill():
        wait_until(is_stored)
        children[0].send_signal(signal.SIGKILL)

    def watch(exchange):
        at = int(exchange.seen.headers["content-length"]) // 2
        exchange.client = Watched(exchange.client, at, kill)

    act = of_large_bodies(watch)
    fault = proxy.inject(act, "PUT", times=ALWAYS)
    command = [sys.executable, "-c", PUBLISH, str(stage.root)]
    path = {"PYTHONPATH": str(Path(__file__).parents[2])}
    children.append(subprocess.Popen(command, env=os.environ | path))
    assert children[0].wait(120) == -signal.SIGKILL
    assert len(act.fired) == 1
    fault.times = 0
    before = stored(stage)
    first = stage.sent_bytes()
    stage.forget()

    stage.publish()

    assert not stored(stage) & before
    again = stage.sent_bytes()
    told(f"killed at half to {place}: {first} bytes before, {again} after (S3, registry)")
    assert stage.__getattribute__(place).body_bytes("PUT") <= LARGE_BYTES + MIB
    check_published(stage)


def stored(stage):
    """The blobs whose sending was answered with success, by place and digest."""
    found = set()
    for name, proxy in (("s3", stage.s3), ("registry", stage.registry)):
        for seen in proxy.matching("PUT"):
            digest = re.search(r"sha256(?::|%3A|/)([0-9a-f]{64})", seen.target)
            whole = seen.status in (200, 201, 204) and "partNumber" not in seen.target
            if digest and whole and seen.passed and "/manifests/" not in seen.target:
                found.add((name, digest[1]))
    return found


def wait_until(condition, timeout_s=60):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_429_and_503_with_retry_after_are_waited_for(stage):
    slow = {"Retry-After": "1"}
    faults = [
        stage.s3.inject(s3_error(503, "SlowDown", slow), "PUT", IN_S3, times=2),
        stage.registry.inject(answer(429, slow), "POST", IN_REGISTRY, times=2),
        stage.registry.inject(answer(503, slow), "PUT", IN_REGISTRY, times=1),
    ]
    began = time.monotonic()
    stage.publish()
    assert [fault.fired for fault in faults] == [2, 2, 1]
    assert time.monotonic() - began >= 1
    check_published(stage)


# Credentials


def fails(stage, kind, match):
    """Publishes, which has to fail so; flavors.yaml stays as it is."""
    before = (stage.root / "flavors.yaml").read_bytes()
    with pytest.raises(kind, match=match) as error:
        stage.publish()
    assert (stage.root / "flavors.yaml").read_bytes() == before
    assert isinstance(error.value, PublishError)
    return error.value


def test_credentials_expired_before_are_refused_with_nothing_sent(stage):
    expired = "<ErrorResponse><Error><Code>ExpiredToken</Code></Error></ErrorResponse>"
    stage.aws.inject(answer(403, {"Content-Type": "text/xml"}, expired.encode()), times=ALWAYS)
    error = fails(stage, RefusedError, "expired")
    assert "log in again" in error.next_step
    assert stage.mutating() == []


@pytest.mark.parametrize(
    ("place", "act", "match"),
    [
        ("s3", s3_error(400, "ExpiredToken"), "expired"),
        ("s3", s3_error(403, "AccessDenied"), "den|allowed|may not"),
        ("registry", answer(403, {}, b'{"errors": [{"code": "DENIED"}]}'), "denies access"),
    ],
    ids=["expired", "denied", "registry"],
)
def test_credentials_that_expire_in_the_middle_are_refused_and_the_same_command_goes_on(
    stage, place, act, match
):
    proxy = getattr(stage, place)

    def refuse_the_large_one(exchange):
        if int(exchange.seen.headers.get("content-length", 0)) > 32 * MIB:
            wait_until(lambda: any(where == place for where, _ in stored(stage)))
            act(exchange)

    fault = proxy.inject(refuse_the_large_one, "PUT", times=ALWAYS)
    error = fails(stage, RefusedError, match)
    assert error.exit_code == 4
    fault.times = 0
    before = stored(stage)
    assert before
    stage.forget()
    stage.publish()
    assert not stored(stage) & before
    check_published(stage)


# The registry and ECR


def test_a_registry_without_room_is_named_and_the_same_command_goes_on(stage):
    said = {"code": "UNKNOWN", "message": "unknown error", "detail": "no space left on device"}
    full = answer(500, {}, json.dumps({"errors": [said]}).encode())
    fault = stage.registry.inject(full, "PUT", IN_REGISTRY, times=ALWAYS)
    error = fails(stage, StoreError, "no room")
    assert (error.exit_code, error.transient) == (5, False)
    fault.times = 0
    before = stored(stage)
    stage.forget()
    stage.publish()
    assert not stored(stage) & before
    check_published(stage)


def test_a_wrong_account_is_refused_with_no_mutating_request(stage):
    toml = stage.root / "adroit.toml"
    toml.write_text(toml.read_text().replace(f'account = "{ACCOUNT}"', 'account = "999999999999"'))
    error = fails(stage, RefusedError, "another account")
    assert (error.got, error.wanted) == (ACCOUNT, "999999999999")
    assert stage.mutating() == []
    assert stage.aws.count() >= 1


def test_a_bucket_of_another_account_is_refused_with_no_mutating_request(stage):
    stage.s3.bucket_owner = "888888888888"
    fails(stage, RefusedError, "bucket")
    assert stage.mutating() == []
    assert stage.s3.count() >= 1


def test_a_repository_that_may_not_be_created_is_refused_before_any_byte(stage, eng):
    client = boto3_session().client("ecr", endpoint_url=eng.aws_endpoint)
    names = [found["repositoryName"] for found in client.describe_repositories()["repositories"]]
    if "adroit/doubler" in names:
        client.delete_repository(repositoryName="adroit/doubler", force=True)
    denied = {"__type": "AccessDeniedException", "message": "not authorized"}
    refuse = answer(
        400, {"Content-Type": "application/x-amz-json-1.1"}, json.dumps(denied).encode()
    )

    def act(exchange):
        if exchange.seen.headers.get("x-amz-target", "").endswith(".CreateRepository"):
            refuse(exchange)

    stage.aws.inject(act, times=ALWAYS)
    error = fails(stage, RefusedError, "denies access")
    assert "ecr:CreateRepository" in error.next_step
    assert not any(stage.s3.count(method) for method in MUTATING)
    assert not any(stage.registry.count(method) for method in MUTATING)
