"""Each object is read at most once a command, however many flavors it is about.

Counted at the edges: a checkout's files where the one reader reads them, and every file that this
process opens for reading, as Python's own audit events tell of it.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from adroit_publish.checkout import Checkout, read_file
from adroit_publish.places import open_store
from adroit_publish.publish.planning import plan
from adroit_publish.publish.prepare import prepare
from adroit_publish.publish.prepare_republish import prepare_republish
from adroit_publish.publish.publish import publish
from adroit_publish.publish.release import (
    PublishJob,
    PublishOptions,
    RepublishJob,
    RepublishOptions,
)
from adroit_publish.publish.republish import republish
from adroit_publish.versions.inspect import status
from adroit_publish.writeback.releases import write_releases
from tests.support.checkouts import commit, make_checkout

_listening: list[Counter[str]] = []


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and _listening:
        path, _, flags = arguments
        if isinstance(flags, int) and flags & os.O_ACCMODE == os.O_RDONLY:
            _listening[-1][os.fsdecode(path) if isinstance(path, str | bytes) else ""] += 1


sys.addaudithook(_audit)


def reads(root: Path, command: Callable[[Checkout], object]) -> dict[str, int]:
    """Returns how often a command read each document of the store and file of the checkout."""
    by_reader: Counter[str] = Counter()

    def read(where: Path, path: str) -> bytes:
        by_reader[path] += 1
        return read_file(where, path)

    opened: Counter[str] = Counter()
    _listening.append(opened)
    try:
        command(Checkout(root, {}, read))
    finally:
        _listening.pop()
    files = ("flavors.yaml", "conda_envs.yaml", "config.yaml", "environment.yml")
    found = {
        str(Path(path).relative_to(root)): count
        for path, count in opened.items()
        if path.startswith(str(root))
        and (".adroit/bundles/" in path or path.endswith(files))
        and os.path.isfile(path)  # a directory is opened to be synced
    }
    for path, count in by_reader.items():
        assert count == found.get(path), f"{path} is read past the one reader"
    return found


@pytest.fixture(params=[1, 12])
def pending(request, tmp_path, trained):
    runs = [trained.good[number % 2] for number in range(request.param)]
    flavors = {f"f{number:02}": run for number, run in enumerate(runs)}
    return make_checkout(tmp_path / "repo", trained.tracking_uri, flavors)


@pytest.fixture
def stale(pending):
    checkout = Checkout(pending, {})
    jobs = prepare(checkout, list(checkout.flavors), PublishOptions(verify="none"))
    releases = [publish(job) for job in jobs if isinstance(job, PublishJob)]
    assert len(releases) == len(checkout.flavors)
    write_releases(checkout, releases)
    (pending / "projects/doubler/features.py").write_text("SCALE = 3\n")
    commit(pending, "change")
    return pending


def names(checkout: Checkout) -> list[str]:
    return list(checkout.flavors)


COMMANDS: dict[str, Callable[[Checkout], object]] = {
    "plan": lambda checkout: plan(checkout),
    "publish": lambda checkout: prepare(checkout, names(checkout), PublishOptions(verify="none")),
    "republish": lambda checkout: prepare_republish(
        checkout, names(checkout), RepublishOptions(verify="none")
    ),
    "status": lambda checkout: status(
        checkout, checkout.target(None), open_store(checkout.target(None)), {}
    ),
}
DECIDED_BY = {"flavors.yaml", "conda_envs.yaml", "environment.yml", "projects/doubler/config.yaml"}


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_of_published_flavors_each_file_and_document_is_read_once(stale, command):
    found = reads(stale, COMMANDS[command])
    assert found.keys() >= DECIDED_BY
    # For each version: its index, its manifest, and the layer that holds bundle.json.
    versions = {flavor.version for flavor in Checkout(stale, {}).flavors.values()}
    documents = [path for path in found if ".adroit/bundles" in path]
    assert len(documents) >= 3 * len(versions)
    assert {path: count for path, count in found.items() if count > 1} == {}


@pytest.mark.parametrize("command", ["plan", "publish"])
def test_of_pending_flavors_each_file_is_read_once(pending, command):
    found = reads(pending, COMMANDS[command])
    assert found.keys() >= DECIDED_BY
    assert {path: count for path, count in found.items() if count > 1} == {}


def test_the_step_that_publishes_reads_each_document_once(pending):
    job = prepare(Checkout(pending, {}), ["f00"], PublishOptions(verify="none"))[0]
    assert isinstance(job, PublishJob)
    assert {p: n for p, n in reads(pending, lambda _: publish(job)).items() if n > 1} == {}
    # The same again: the version is found, and the commit compares what is there by reading it.
    again = reads(pending, lambda _: publish(job))
    (index,) = (path for path in again if path.endswith("index.json"))
    assert {path: count for path, count in again.items() if count > 1} == {index: 2}


def test_the_step_that_republishes_reads_each_document_once(stale):
    job = prepare_republish(Checkout(stale, {}), ["f00"], RepublishOptions(verify="none"))[0]
    assert isinstance(job, RepublishJob)
    found = reads(stale, lambda _: republish(job))
    assert any("/blobs/" in path for path in found)
    assert {path: count for path, count in found.items() if count > 1} == {}
