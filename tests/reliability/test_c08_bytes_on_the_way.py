"""C08: bits flipped, bodies cut, swapped and replayed, in every download and upload.

A proxy stands before a real tracking server, a real object store and the storage of a Databricks
workspace. Each place is one fault in one transfer, at a byte of each class: the first, the last,
those at the edges of blocks, chunks and pieces, and any. Whatever a pull then gives has the right
bytes, or it is an error; and the same pull again, without a fault, has the right bytes. An upload
ends with the right bytes in the store, or as an error; then the same upload again heals it.

``swap`` answers with the server's headers and the bytes of another file, or of the same file before
it was replaced; ``replay`` answers with a whole answer, headers included, from before that.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import shutil
from dataclasses import dataclass, replace

import pytest
import requests

from adroit_publish.artifacts import databricks as databricks_artifacts
from adroit_publish.artifacts import s3 as s3_artifacts
from adroit_publish.artifacts.pull import open_root, pull_model
from adroit_publish.bundle.content import Inline
from adroit_publish.bundle.digest import Descriptor, Digest
from adroit_publish.errors import PublishError
from adroit_publish.mlflow.model import resolve_model
from adroit_publish.stores.blobs import blob_key
from adroit_publish.stores.bundle_store import BundleStore
from adroit_publish.stores.s3.objects import S3Objects
from tests.artifacts.test_artifacts import contents, model_at
from tests.servers.fake_databricks import TOKEN, FakeDatabricks
from tests.servers.fault_proxy import (
    FaultProxy,
    answer,
    cut_answer,
    cut_body,
    flip_answer,
    flip_body,
    swap_answer,
    swap_body,
)
from tests.servers.mlflow_servers import RUN_ID, log_model
from tests.servers.object_servers import ACCESS_KEY, SECRET_KEY, SHARED_BUCKET, seaweed

__all__ = ["seaweed"]
pytest_plugins = ["tests.servers.mlflow_servers"]

FLOOR = 2000 if os.environ.get("ADROIT_FULL") == "1" else 100
PIECE_BYTES = 1 << 16
DICE = random.Random(8)
SIZES = {f"large{n}.bin": 150_000 for n in range(5)} | {f"small{n}.bin": 999 for n in range(5)}
OLD = {name: DICE.randbytes(size) for name, size in SIZES.items()}
NOW = {name: DICE.randbytes(size) for name, size in SIZES.items()}
OTHER = DICE.randbytes(150_000)
KINDS = ("flip", "cut", "swap", "stale")
"""The kinds that a pull survives; a replay may end it, and gets one of its own."""


@dataclass(frozen=True)
class Place:
    """One fault in one transfer.

    Attributes:
        kind: ``flip``, ``cut``, ``swap`` (other bytes), ``stale`` (older bytes) or ``replay``.
        name: The file.
        at_byte: Where in the body.
        request: Which of the requests for the file it meets, from 0.
    """

    kind: str
    name: str
    at_byte: int
    request: int


def batches(requests_of):
    """Yields places without end: one for each file, and from time to time one replay alone.

    Args:
        requests_of: How many requests a file takes, by its name.
    """
    dice = random.Random(80)
    for number in itertools.count():
        if number % 4 == 3:
            name = dice.choice(list(NOW))
            yield [Place("replay", name, 0, dice.randrange(requests_of(name)))]
            continue
        yield [
            Place(
                KINDS[(number + index) % len(KINDS)],
                name,
                edge_of(size, dice),
                dice.randrange(requests_of(name)),
            )
            for index, (name, size) in enumerate(SIZES.items())
        ]


def edge_of(size, dice):
    """Returns a byte: the first, the last, one at the edge of a block, chunk or piece, or any."""
    edges = [0, 1, size // 2, size - 2, size - 1, dice.randrange(size)]
    edges += [edge for edge in (4095, 4096, 8191, 8192, 65534, 65535, 65536) if edge < size]
    return dice.choice(edges)


class Outcome:
    """What became of the places so far."""

    def __init__(self):
        self.injected = self.fired = self.violations = 0

    def judge(self, place, fault, given, wanted, again):
        """Counts a place.

        Args:
            place: The place.
            fault: What was injected.
            given: The bytes that came of it; None for an error.
            wanted: The right ones.
            again: The bytes of the same call without a fault.
        """
        if given is None and not fault.fired:
            return  # another fault of the batch ended the pull before this one's turn
        self.injected += 1
        self.fired += fault.fired > 0
        if given not in (None, wanted) or again != wanted:
            self.violations += 1
            print("violation:", place, "at first" if given not in (None, wanted) else "again")


def act_of(place, replayed):
    """Returns what the proxy does to the answer at a place."""
    at_byte = place.at_byte % min(SIZES[place.name], PIECE_BYTES)
    return {
        "flip": lambda: flip_answer(at_byte),
        "cut": lambda: cut_answer(at_byte),
        "swap": lambda: swap_answer(OTHER),
        "stale": lambda: swap_answer(OLD[place.name]),
        "replay": lambda: replayed[place.name],
    }[place.kind]()


def try_downloads(count, source, cache):
    """Pulls a model until so many faults have met a download."""
    outcome = Outcome()
    for batch in batches(source.requests_of):
        shutil.rmtree(cache, ignore_errors=True)
        faults = [
            source.proxy.inject(
                act_of(place, source.replayed),
                "GET",
                source.target(place.name),
                skip=place.request,
            )
            for place in batch
        ]
        given = pulled(source.model, cache)
        for fault in faults:
            fault.times = 0  # one that has met nothing is not to meet the next pull
        again = pulled(source.model, cache)
        for place, fault in zip(batch, faults, strict=True):
            outcome.judge(
                place, fault, given and given[place.name], NOW[place.name], again[place.name]
            )
        if outcome.injected >= count:
            return outcome


def pulled(model, cache):
    try:
        return contents(pull_model(model, cache, give_up_after_s=20))
    except PublishError:
        return None


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(s3_artifacts, "PIECE_BYTES", PIECE_BYTES)
    monkeypatch.setattr(databricks_artifacts, "PIECE_BYTES", PIECE_BYTES)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


class TrackingServer:
    """A model behind a real tracking server."""

    def __init__(self, url, proxy):
        self.proxy = proxy
        self.replayed = {}
        run_id, _ = log_model(url, None, "model")
        address = resolve_model(url, run_id, None).artifact_uri
        for files in (OLD, NOW):
            for name, data in files.items():
                requests.put(f"{address}/{name}", data=data, timeout=60).raise_for_status()
                kept = requests.get(f"{address}/{name}", timeout=60)
                self.replayed.setdefault(name, answer(200, {"ETag": kept.headers["ETag"]}, data))
        self.model = resolve_model(proxy.endpoint, run_id, None)

    def requests_of(self, name):
        return 2  # it states no digest

    def target(self, name):
        return f"/{name}"


class Bucket:
    """A model in a real object store."""

    def __init__(self, server, proxy, monkeypatch):
        self.proxy = proxy
        self.replayed = {}
        uri = f"s3://{server.new_place()}"
        for files in (OLD, NOW | {"MLmodel": b"flavors: {}\n"}):
            for name, data in files.items():
                key = f"{uri.rpartition('/')[2]}/{name}"
                put = server.client().put_object(Bucket=SHARED_BUCKET, Key=key, Body=data)
                self.replayed.setdefault(name, answer(200, {"ETag": put["ETag"]}, data))
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
        self.model = replace(model_at(uri), files=open_root(uri).list_files())

    def requests_of(self, name):
        return -(-SIZES[name] // PIECE_BYTES)

    def target(self, name):
        return f"/{name}"


class Databricks:
    """A model in a workspace; the proxy is before its storage."""

    def __init__(self, workspace, proxy):
        self.proxy = proxy
        workspace.storage = proxy.endpoint
        tags = {name: hashlib.md5(data).hexdigest() for name, data in OLD.items()}
        self.replayed = {
            name: answer(200, {"ETag": f'"{tags[name]}"'}, data) for name, data in OLD.items()
        }
        self.model = resolve_model("databricks", RUN_ID, None)

    def requests_of(self, name):
        return -(-SIZES[name] // PIECE_BYTES)

    def target(self, name):
        return rf"/{name}\?"


def test_c08_bytes_that_arrive_are_the_stores_or_an_error(
    proxied_server, seaweed, tmp_path, monkeypatch, capsys
):
    cache = tmp_path / "cache"
    share = -(-FLOOR // 4)
    outcomes = {}
    with FaultProxy(proxied_server) as proxy:
        source = TrackingServer(proxied_server, proxy)
        outcomes["tracking server"] = try_downloads(share, source, cache)
    with FaultProxy(seaweed.endpoint) as proxy:
        outcomes["S3 root"] = try_downloads(share, Bucket(seaweed, proxy, monkeypatch), cache)
    with FakeDatabricks(files=NOW | {"MLmodel": b"flavors: {}\n"}).running() as workspace:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("DATABRICKS_HOST", workspace.url)
        monkeypatch.setenv("DATABRICKS_TOKEN", TOKEN)
        with FaultProxy(workspace.storage) as proxy:
            outcomes["Databricks"] = try_downloads(share, Databricks(workspace, proxy), cache)
    outcomes["upload"] = try_uploads(share, seaweed)
    report(outcomes, capsys)


def try_uploads(count, server):
    """Puts one blob for each place; looks behind the back of the code at what is stored."""
    outcome = Outcome()
    bucket, _, prefix = server.new_place().partition("/")
    client = server.client()
    places = itertools.chain.from_iterable(batches(lambda name: 1))
    with FaultProxy(server.endpoint) as proxy:
        store = BundleStore(S3Objects(f"s3://{bucket}/{prefix}", endpoint=proxy.endpoint))
        for number, place in enumerate(place for place in places if place.kind != "replay"):
            data = number.to_bytes(4, "big") + NOW[place.name][4:]
            descriptor = Descriptor("application/octet-stream", Digest.of(data), len(data))
            act = {
                "flip": flip_body(place.at_byte),
                "cut": cut_body(place.at_byte),
                "swap": swap_body(OTHER),
                "stale": swap_body(OLD[place.name]),
            }[place.kind]
            fault = proxy.inject(act, "PUT", descriptor.digest.hex)
            key = f"{prefix}/{blob_key(descriptor.digest)}"
            given = stored_after(store, descriptor, data, client, bucket, key)
            fault.times = 0
            again = stored_after(store, descriptor, data, client, bucket, key)
            outcome.judge(place, fault, given, data, again)
            if outcome.injected >= count:
                return outcome


def stored_after(store, descriptor, data, client, bucket, key):
    """Returns what is stored once a put said that it succeeded; None where it failed."""
    try:
        store.put_blob(descriptor, Inline(data))
    except PublishError:
        return None
    return client.get_object(Bucket=bucket, Key=key)["Body"].read()


def report(outcomes, capsys):
    total = Outcome()
    with capsys.disabled():
        print()
        for name, one in outcomes.items():
            print(f"C08 {name}: injected={one.injected} fired={one.fired}")
            total.injected += one.injected
            total.fired += one.fired
            total.violations += one.violations
        print(f"C08 injected={total.injected} fired={total.fired} violations={total.violations}")
    assert all(one.injected == one.fired for one in outcomes.values())
    assert total.injected >= FLOOR
    assert total.violations == 0
