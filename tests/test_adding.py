"""Adding is easy: a toy of each kind, entered where the real ones are.

docs/architecture.md says in which files; each kind needs three at most.
"""

from __future__ import annotations

import json
import re
import threading
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from adroit_publish import publish
from adroit_publish.bundle.digest import Digest, verified
from adroit_publish.bundle.imports import BundleFinding
from adroit_publish.cli.commands import cli
from adroit_publish.cli.options import at_target
from adroit_publish.config.addresses import STORAGE
from adroit_publish.errors import StoreError, VerificationError
from adroit_publish.evidence.sources import SOURCES
from adroit_publish.evidence.traffic import TrafficReading
from adroit_publish.places import STORES
from adroit_publish.publish.source import GATES
from adroit_publish.rollover.evidence import Counts
from adroit_publish.stores.contract import KeyTaken, Stat, unheard
from tests.support.checkouts import make_checkout
from tests.support.objects_contract import *  # noqa: F403  the toy store is a whole one
from tests.test_floors import FLOORS

ROOT = Path(__file__).parents[1]


class MemoryObjects:
    """A store in this process's memory, whole: it passes the suite of every place of objects."""

    location, on_this_machine, checksum_reads = "memory:", True, False

    def __init__(self):
        self.objects: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def check(self): ...

    def stat(self, key, *, checksum=False, content=None):
        data = self.objects.get(key)
        return None if data is None else Stat(len(data), Digest.of(data), Digest.of(data))

    def create(self, key, content, digest, progress=unheard):
        pieces = verified(content.chunks(), digest, content.size_bytes, key)
        data = b"".join(bytes(piece) for piece in pieces)
        with self._lock:
            if key in self.objects:
                raise KeyTaken(key)
            self.objects[key] = data
        progress(len(data))

    def replace(self, key, content, digest, seen):
        data = b"".join(map(bytes, verified(content.chunks(), digest, content.size_bytes, key)))
        with self._lock:
            if self.stat(key) != seen:
                raise KeyTaken(key)
            self.objects[key] = data

    def read(self, key, start=0, stop=None):
        if key not in self.objects:
            raise StoreError("There is no such object.", where=key)
        yield self.objects[key][start:stop]

    def keys(self, prefix):
        return iter(sorted(key for key in self.objects if key.startswith(prefix)))

    def children(self, prefix):
        below = (key.removeprefix(prefix) for key in self.keys(prefix))
        return iter(sorted({rest.partition("/")[0] for rest in below}))

    def delete(self, key):
        self.objects.pop(key, None)


@pytest.fixture
def objects():
    return MemoryObjects()


@pytest.fixture
def checkout(tmp_path, trained, monkeypatch, objects):
    """A checkout whose target keeps its bundles in memory, with flavors a and b published."""
    monkeypatch.setitem(STORES, "memory", lambda target: objects)
    monkeypatch.setitem(STORAGE, "memory", lambda uri, base: uri)
    flavors = {"a": trained.good[0], "b": trained.good[1]}
    root = make_checkout(tmp_path / "repo", trained.tracking_uri, flavors)
    config = root / "adroit.toml"
    config.write_text(config.read_text().replace("file:.adroit/bundles", "memory:here"))
    monkeypatch.chdir(root)
    for flavor in flavors:
        publish(flavor, root=root, verify="none", allow_dirty=True)
    return root


def run(*arguments):
    done = CliRunner().invoke(cli, [*arguments, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_a_store_is_added_by_the_scheme_of_a_target(checkout, objects):
    versions = [row["version"] for row in run("versions", "doubler")]
    assert len(versions) == 2
    for version in versions:
        assert f"doubler/{version}/index.json" in objects.objects
        assert run("verify", version)["problems"] == []
    assert not (checkout / ".adroit/bundles").exists()


def test_a_source_of_traffic_is_added_by_its_scheme(checkout, monkeypatch):
    asked = []

    class Toy:
        watches = True

        def __init__(self, urls, state):
            self.urls, self.state = urls, state or {"looks": 0}

        def read(self, bundle_ids, window_s):
            asked.append((self.urls, tuple(bundle_ids)))
            self.state = {"looks": self.state["looks"] + 1}
            counts = {bundle_id: Counts(7, 0) for bundle_id in bundle_ids}
            return TrafficReading(datetime.now(UTC), window_s, counts)

    monkeypatch.setitem(SOURCES, "toy", Toy)
    run("sitevar", "set", "doubler", "a", "--why", "the first one")
    start = ("--from", "a", "--to", "b", "--url", "http://127.0.0.1:1")
    rollover = run("rollover", "start", *start, "--traffic", "toy:any words")["rollover"]
    assert rollover["checks"]["traffic"] == ["toy:any words"]
    both = (rollover["old"]["bundle_id"], rollover["new"]["bundle_id"])
    assert (["any words"], both) in asked


def test_a_command_is_added_to_the_list(checkout, monkeypatch):
    @click.command()
    @at_target
    @click.argument("model")
    def count(context, model):
        """Count the versions of MODEL."""
        print(len(list(context.store.versions(model))))

    monkeypatch.setitem(cli.commands, "count", count)
    assert run("count", "doubler") == 2
    refused = CliRunner().invoke(cli, ["count", "doubler", "--json", "--target", "nowhere"])
    assert (refused.exit_code, json.loads(refused.stdout)["error"]) == (2, "ConfigError")


def test_a_gate_is_added_by_its_name(checkout, monkeypatch, trained):
    def no_todo(job, files, imports):
        for path, content in files.items():
            if path.startswith("source/") and b"TODO" in content.open().read():
                raise VerificationError("Something is still to be done.", where=path)
            if path.endswith("features.py"):
                yield BundleFinding("toy", "The toy has seen the features.")

    monkeypatch.setitem(GATES, "no todo", no_todo)
    text = (checkout / "flavors.yaml").read_text().replace("b:", "c:", 1)
    (checkout / "flavors.yaml").write_text(re.sub(r"version: \S+", f"version: {trained.spy}", text))
    version = publish("c", root=checkout, verify="none", allow_dirty=True).version
    (record,) = run("show", version)["records"]
    assert "The toy has seen the features." in json.dumps(record["verification"]["findings"])
    (checkout / "projects/doubler/features.py").write_text("TODO = 1\n")
    with pytest.raises(VerificationError, match="still to be done"):
        publish("a", root=checkout, verify="none", allow_dirty=True)


def test_the_guide_names_the_files_and_they_are_three_at_most():
    text = (ROOT / "docs/architecture.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| a ")]
    kinds = [row.split("|")[1].strip() for row in rows]
    assert kinds == ["a store", "a source of traffic", "a command", "a gate"]
    for row in rows:
        files = [
            file for file in re.findall(r"`([\w/]+\.py)`", row) if not file.startswith("tests/")
        ]
        assert 1 <= len(files) <= 3
        for file in files:
            assert "NAME" in file or (ROOT / "adroit_publish" / file).is_file()


def test_the_drawing_is_the_floors_of_the_house():
    text = (ROOT / "docs/architecture.md").read_text()
    drawn = [
        tuple(re.findall(r"`(\w+)`", line.split("|")[2]))
        for line in text.splitlines()
        if re.match(r"\| \d ", line)
    ]
    floors = [tuple(room for room in floor if "__" not in room) for floor in FLOORS]
    assert drawn == floors[::-1]
