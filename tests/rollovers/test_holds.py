"""hold and unhold as a user runs them: in the file, in git, and in the history."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from adroit_publish.config.flavors import parse_flavors
from adroit_publish.custody.rolled_back import rolled_back
from adroit_publish.stores.bundle_store import BundleStore
from adroit_publish.stores.directory import DirectoryObjects
from adroit_publish.stores.ledger import append
from tests.support.checkouts import git, make_checkout
from tests.support.rolling import check_typed, done, named_commands, run

RUN = "0b5c5b2f6f0c4f6b9d0a3c1e2f4a5b6c"


@pytest.fixture
def clone(tmp_path):
    """A clone with flavors ``a`` and ``b``, and a bare repository that it pushes to."""
    root = make_checkout(tmp_path / "repo", "sqlite:///none.db", {"a": RUN, "b": RUN})
    git(tmp_path, "clone", "-q", "--bare", "repo", "bare.git")
    git(root, "remote", "add", "origin", str(tmp_path / "bare.git"))
    git(root, "fetch", "-q", "origin")
    git(root, "branch", "-q", "-u", "origin/main")
    return root


def held(text):
    return {name: flavor.hold for name, flavor in parse_flavors(text.encode()).items()}


def test_a_hold_by_hand_is_in_the_history_once_and_says_what_to_commit(clone):
    for _ in range(2):
        said = done(clone, "hold", "a", "--why", "p99 is up")
    assert "a is held: p99 is up" in said
    assert "git commit" not in said  # the second time there is nothing to commit by this command
    assert "git commit flavors.yaml -m 'End the hold of a'" in done(clone, "unhold", "a")
    assert "a was not held" in done(clone, "unhold", "a")
    below = done(clone / "projects/doubler", "hold", "a", "--why", "again")
    assert "git commit ../../flavors.yaml -m 'Hold a'" in below
    done(clone, "unhold", "a")
    told = json.loads(done(clone, "history", "doubler", "--json"))
    assert [(e["kind"], e["facts"]["flavor"], e["facts"]["why"]) for e in told] == [
        ("held", "a", "p99 is up"), ("unheld", "a", None),
        ("held", "a", "again"), ("unheld", "a", None),
    ]  # fmt: skip
    assert git(clone, "status", "--porcelain") == ""


def test_a_hold_is_committed_or_pushed_where_that_is_asked(clone):
    (clone / "environment.yml").write_text("dependencies: [python=3.12]\n")
    done(clone, "hold", "a", "--why", "slow", "--commit")
    assert held(git(clone, "show", "HEAD:flavors.yaml"))["a"] == "slow"
    assert held(git(clone, "show", "origin/main:flavors.yaml"))["a"] is None
    assert git(clone, "log", "-1", "--format=%s") == "Hold a"
    assert "environment.yml" in git(clone, "status", "--porcelain")  # nothing else is committed
    git(clone, "push", "-q", "origin", "HEAD:main")
    said = done(clone, "unhold", "a", "--push")
    assert "pushed to origin/main" in said
    bare = clone.parent / "bare.git"
    assert held(git(bare, "show", "main:flavors.yaml")) == {"a": None, "b": None}


def test_a_flavor_that_does_not_exist_is_exit_2_and_nothing_is_entered(clone):
    assert run(clone, "hold", "nope", "--why", "x")[0] == 2
    assert not (clone / ".adroit/bundles/ledger").exists()


def damage_ledger(clone, model):
    ledger = clone / ".adroit/bundles/ledger" / model
    ledger.mkdir(parents=True)
    (ledger / "00000001.json").write_text("{}")


def test_unhold_reads_no_ledger_but_its_own_models(clone):
    done(clone, "hold", "a", "--why", "p99 is up")
    damage_ledger(clone, "another")
    said = done(clone, "unhold", "a")
    assert "a is no longer held" in said
    assert "another" not in said


def test_a_ledger_that_cannot_be_read_is_named_and_passed_over_where_a_flavor_is_gone(clone):
    damage_ledger(clone, "another")
    facts = {"flavor": "gone", "version": "v1", "rollover": "0001", "why": "p99 is up"}
    store = BundleStore(DirectoryObjects(clone / ".adroit/bundles"))
    append(store, "doubler", "held", facts, key="k", who="ada", now=datetime.now(UTC))
    said = done(clone, "unhold", "gone")
    assert "gone is no longer held" in said
    assert "the ledger of another cannot be read" in said
    assert "verify-ledger another" in said
    code, said = run(clone, "unhold", "nope")
    assert (code, "the ledger of another cannot be read" in said) == (2, True), said


def test_what_is_held_is_told_of_a_damaged_ledger_with_what_to_do_next(clone):
    facts = {"flavor": "a", "version": "v1", "rollover": "0001", "why": "p99 is up"}
    store = BundleStore(DirectoryObjects(clone / ".adroit/bundles"))
    append(store, "doubler", "held", facts, key="k", who="ada", now=datetime.now(UTC))
    (clone / ".adroit/bundles/ledger/doubler/00000002.json").write_text("{")
    warnings: list[str] = []
    assert rolled_back(store, "doubler", warnings.append).keys() == {"v1"}
    (warning,) = warnings
    assert "what cannot be read of it holds no version" in warning
    (command,) = named_commands(warning)
    check_typed(command)
    assert command == "verify-ledger doubler"
