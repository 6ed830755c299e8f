"""C08: bits flipped, bodies cut, swapped and replayed, in whole publishes.

A small sklearn model is published from a real tracking server, its files behind that server or in
an S3 root, to a real S3 store and a real registry. One message of all that a publish sends and gets
is damaged on its way: an answer of MLflow's API, a file, a listing, a blob, a manifest, the commit.
The publish either fails with one of our errors, flavors.yaml untouched and nothing there that is
not whole; or the version is the one that an undamaged publish gives, and every byte of it is in
both places, read around the proxy by code that is not the publisher's.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import random
import shutil
from textwrap import dedent

import pytest
import requests

from adroit_publish import publish
from adroit_publish.bundle.manifest import MANIFEST_MEDIA_TYPE
from adroit_publish.checkout import open_checkout
from adroit_publish.registry.image_reference import Tag
from adroit_publish.stores.s3 import http as s3_http
from tests.servers.eng_account import BASE, images, push_base
from tests.servers.fault_proxy import FaultProxy
from tests.servers.object_servers import ACCESS_KEY, SECRET_KEY, SHARED_BUCKET
from tests.servers.registry_servers import docker_registry
from tests.support.checkouts import commit, make_checkout
from tests.support.wire_faults import drive, taped

FLOOR = 134 if os.environ.get("ADROIT_FULL") == "1" else 6
"""For each of the three servers on the way."""


@pytest.fixture(scope="module")
def servers(tmp_path_factory, proxied_server, seaweed):
    with docker_registry(tmp_path_factory.mktemp("registry")) as registry:
        push_base(registry, BASE)
        yield proxied_server, seaweed, registry


@pytest.fixture
def proxies(servers, monkeypatch):
    """A proxy before each server; and what a process needs to publish through them."""
    tracking, store, registry = servers
    environ = {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_DEFAULT_REGION": "us-east-1",
        "DOCKER_CONFIG": "/nonexistent",
        "ADROIT_TARGET": "wire",
    }
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(s3_http, "connect", functools.cache(s3_http.connect))  # a fifth of a second
    with (
        FaultProxy(tracking) as before_tracking,
        FaultProxy(store.endpoint) as before_store,
        FaultProxy(registry.url) as before_registry,
    ):
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", before_store.endpoint)
        yield before_tracking, before_store, before_registry


def log(tracking, seed, artifacts):
    """Logs a linear model; those of two seeds are of equal length, file by file.

    Args:
        tracking: The tracking server.
        seed: Of what it was fitted to.
        artifacts: Where the files go; None for the server's own place.
    """
    import mlflow
    import numpy as np
    from sklearn.linear_model import LinearRegression

    draw = np.random.default_rng(seed)
    X, y = draw.normal(size=(40, 3)).astype("float32"), draw.normal(size=40)
    mlflow.set_tracking_uri(tracking)
    experiment = mlflow.create_experiment(os.urandom(6).hex(), artifact_location=artifacts)
    with mlflow.start_run(experiment_id=experiment, run_name="tiny") as run:
        mlflow.sklearn.log_model(
            LinearRegression().fit(X, y), name="model", pip_requirements=["scikit-learn"]
        )
    mlflow.set_tracking_uri(None)
    return run.info.run_id


class Publish:
    """A run published into a store and a repository that have nothing."""

    def __init__(self, root, run_id, servers, proxies, monkeypatch):
        self.root, self.run_id = root, run_id
        (self.tracking, self.store, self.registry) = servers
        self.proxies = proxies
        self.client = self.store.client()
        make_checkout(root / "repo", proxies[0].endpoint, {"a": run_id})
        envs = root / "repo/conda_envs.yaml"
        envs.write_text(f"plain:\n  image: {BASE}\n  environment: environment.yml\n")
        commit(root / "repo", "an image for the env")
        self.flavors = (root / "repo/flavors.yaml").read_bytes()
        self.monkeypatch = monkeypatch
        self.version = None
        name, _, tag = BASE.rpartition(":")
        base = json.loads(images(self.registry, name).resolve(Tag(tag)).data)
        self.base = {layer["digest"] for layer in base["layers"]}

    def prepare(self, number):
        shutil.rmtree(self.root / "repo/.adroit", ignore_errors=True)
        (self.root / "repo/flavors.yaml").write_bytes(self.flavors)
        self.prefix = self.store.new_place().rpartition("/")[2]
        self.name = f"adroit{self.prefix}/doubler"
        host = self.proxies[2].endpoint.removeprefix("http://")
        (self.root / "wire.toml").write_text(
            dedent(
                f"""\
                [targets.wire]
                tracking_uri = "{self.proxies[0].endpoint}"
                bundles = "s3://{SHARED_BUCKET}/{self.prefix}"
                images = "{host}/adroit{self.prefix}"
                """
            )
        )
        self.monkeypatch.setenv("ADROIT_CONFIG", str(self.root / "wire.toml"))

    def act(self):
        return publish("a", root=self.root / "repo", verify="none").version

    def problems(self, version):
        written = open_checkout(self.root / "repo", {}).flavors["a"].version
        self.version = self.version or version
        problems = [] if version == written == self.version else [f"{version}, {written} written"]
        return problems + self.not_whole(version) + self.others()

    def believed(self):
        changed = (self.root / "repo/flavors.yaml").read_bytes() != self.flavors
        return (["flavors.yaml is changed"] if changed else []) + self.others()

    def others(self):
        """What is wrong with whatever is named in one of the places."""
        prefix = f"{self.prefix}/doubler/"
        listed = self.client.list_objects_v2(Bucket=SHARED_BUCKET, Prefix=prefix)
        keys = [entry["Key"].removeprefix(prefix) for entry in listed.get("Contents", ())]
        committed = {key.partition("/")[0] for key in keys if key.endswith("/index.json")}
        url = f"{self.registry.url}/v2/{self.name}/tags/list"
        tags = requests.get(url, timeout=20).json().get("tags") or ()
        named = committed | {tag for tag in tags if tag.startswith("v")}
        problems = [problem for version in sorted(committed) for problem in self.not_whole(version)]
        return problems + [f"{version} is there" for version in sorted(named - {self.version})]

    def not_whole(self, version):
        """What is wrong with a version: its index, its blobs, its tag, its image."""
        try:
            index = json.loads(self.stored(f"doubler/{version}/index.json"))
            (named,) = index["manifests"]
            data = self.blob_of_store(named["digest"])
            manifest = json.loads(data)
            own = [layer for layer in manifest["layers"] if layer["digest"] not in self.base]
            for blob in (manifest["config"], *own):
                self.blob_of_store(blob["digest"])
            for blob in (manifest["config"], *manifest["layers"]):
                self.of_registry(f"blobs/{blob['digest']}", blob["digest"])
            self.of_registry(f"manifests/{version}", named["digest"])
            if not version.endswith(named["digest"].removeprefix("sha256:")[:12]):
                return [f"{version} names {named['digest']}"]
            keys = [f"doubler/{version}/referrers/{name}" for name in self.referrers(version)]
            records = [json.loads(self.stored(key)) for key in keys]
            for record in records:
                document = json.loads(self.blob_of_store(record["digest"]))
                for blob in document["layers"]:
                    self.blob_of_store(blob["digest"])
        except (AssertionError, self.client.exceptions.NoSuchKey) as error:
            return [f"{version}: {error!r}"]
        return [] if records else [f"{version} has no record"]

    def referrers(self, version):
        prefix = f"{self.prefix}/doubler/{version}/referrers/"
        listed = self.client.list_objects_v2(Bucket=SHARED_BUCKET, Prefix=prefix)
        return [entry["Key"].removeprefix(prefix) for entry in listed.get("Contents", ())]

    def stored(self, key):
        answer = self.client.get_object(Bucket=SHARED_BUCKET, Key=f"{self.prefix}/{key}")
        return answer["Body"].read()

    def blob_of_store(self, digest):
        data = self.stored(f"blobs/sha256/{digest.removeprefix('sha256:')}")
        assert f"sha256:{hashlib.sha256(data).hexdigest()}" == digest, "another blob in the store"
        return data

    def of_registry(self, path, digest):
        url = f"{self.registry.url}/v2/{self.name}/{path}"
        answer = requests.get(url, headers={"Accept": MANIFEST_MEDIA_TYPE}, timeout=20)
        assert answer.status_code == 200, f"{path} is not in the registry"
        got = f"sha256:{hashlib.sha256(answer.content).hexdigest()}"
        assert got == digest, f"another {path} in the registry"


@pytest.mark.parametrize("where", ["tracking server", "store", "registry"])
def test_c08_a_publish_ends_with_the_right_version_or_with_an_error(
    where, servers, proxies, tmp_path, monkeypatch, capsys
):
    position = ("tracking server", "store", "registry").index(where)
    proxy = proxies[position]
    # Before the store, downloads from an S3 root are damaged as well.
    root = f"s3://{SHARED_BUCKET}/runs/{os.urandom(6).hex()}" if where == "store" else None
    trials = []
    for seed in (1, 2):
        run_id = log(servers[0], seed, root)
        trials.append(Publish(tmp_path / f"{seed}", run_id, servers, proxies, monkeypatch))
    older = taped(proxy, trials[0], 0)
    taped(proxy, trials[1], 1)  # from here on its version is known
    outcome = drive(proxy, trials[1], older, FLOOR, random.Random(85 + position))
    with capsys.disabled():
        print("\n" + "\n".join(outcome.lines(f"publish, damaged before the {where}")))
    assert outcome.injected >= FLOOR
    assert not outcome.violations
