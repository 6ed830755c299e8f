"""The way back, as a user takes it on the day it goes wrong; and the ways out of every state."""

from __future__ import annotations

import json
import shutil
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adroit_publish.config.flavors import parse_flavors
from adroit_publish.rollover.checks import Checks
from adroit_publish.rollover.evidence import AnsweringRead, Evidence, FlavorsRead, PointerRead
from adroit_publish.rollover.rules import Advance, Do, Missing, commands, next_step
from adroit_publish.rollover.state import LIVE, Rollover, Side, Transition
from adroit_publish.stores.bundle_store import BundleStore
from adroit_publish.stores.directory import DirectoryObjects
from adroit_publish.stores.ledger import entries
from adroit_publish.stores.rollovers import Rollovers
from adroit_publish.version import Versions
from tests.rollovers.test_rollover_command import make_published
from tests.servers.object_servers import free_ports
from tests.servers.odd_servers import odd_server, saying
from tests.support.rolling import done, run


@pytest.fixture(scope="module")
def published(tmp_path_factory, trained):
    """A checkout whose flavors ``old`` and ``new`` are published."""
    root = tmp_path_factory.mktemp("published") / "repo"
    return make_published(root, trained, "file:.adroit/sitevars.json")


@pytest.fixture
def root(published, tmp_path):
    """A copy of it, with a ledger that begins with ``old``."""
    root = tmp_path / "repo"
    shutil.copytree(published, root)
    done(root, "sitevar", "set", "doubler", "old", "--why", "the first one")
    return root


def sides(root, names=("old", "new")):
    flavors = parse_flavors((root / "flavors.yaml").read_bytes())
    store = store_of(root)
    for name in names:
        version = flavors[name].version
        bundle_id = str(Versions(store).open(store.find("doubler", version)).bundle.bundle_id)
        yield Side(name, str(version), bundle_id)


def store_of(root):
    return BundleStore(DirectoryObjects(root / ".adroit/bundles"))


def rolling(
    root, state, *, old_urls=(), share=100.0, urls=("http://127.0.0.1:1",), names=("old", "new")
):
    """A rollover that has come to ``state``, and the sitevar as it left it."""
    old, new = sides(root, names)
    checks = Checks(
        urls, None, ("prometheus:http://127.0.0.1:1",), 60.0, 0.01, 1e-6, 120.0, tuple(old_urls)
    )
    now_s = time.time()
    history = tuple(
        Transition(now_s - 60, "ada", before, after)
        for before, after in ((None, "proposed"), ("proposed", state))
    )
    rollover = Rollover(
        "0001", "doubler", old, new, (10.0, 100.0), checks, state, (share,), history=history,
        moved_s=now_s - 60, resume="pointed" if state == "held" else None,
        goal={"pointing": 100.0, "rolling back": 0.0}.get(state),
    )  # fmt: skip
    Rollovers(DirectoryObjects(root / ".adroit/bundles")).create(rollover)
    shares = [f"{flavor}={percent}" for flavor, percent in rollover.weights(share).items()]
    done(root, "sitevar", "set", "doubler", *shares, "--why", "as the rollover did")
    return rollover


def pointer(root):
    return json.loads((root / ".adroit/sitevars.json").read_text())["doubler"]


def status(root):
    return json.loads(done(root, "rollover", "status", "doubler", "--json"))


def answering(side):
    identity = {"bundle_id": side.bundle_id, "instance_id": "i-1"}
    return odd_server(saying(200, json.dumps(identity).encode()))


def test_back_to_servers_that_are_gone_is_refused_and_told_of_before(root):
    (port,) = free_ports(1)
    rolling(root, "drained", old_urls=[f"http://127.0.0.1:{port}"])
    (warning,) = status(root)["warnings"]
    assert "no server of old" in warning
    code, said = run(root, "rollover", "rollback", "doubler", "--why", "x")
    assert (code, pointer(root)) == (4, "new")
    assert "no server of old" in said
    assert "--force" in said
    done(root, "rollover", "rollback", "doubler", "--why", "they answer all the same", "--force")
    assert pointer(root) == "old"
    history = status(root)["rollover"]["history"]
    assert "forced" in history[-2]["why"]


def test_the_old_side_is_watched_all_along(root):
    old, _ = sides(root)
    with answering(old) as url:
        rolling(root, "pointed", old_urls=[url], share=10.0)
        assert "the old version last answered at" in done(root, "rollover", "status", "doubler")
        run(root, "rollover", "advance", "doubler")
        assert status(root)["answered"]["servers"] == 1
    gone = status(root)
    assert gone["answered"]["servers"] == 1  # as it was when it last answered
    assert any("no server of old" in warning for warning in gone["warnings"])


@pytest.mark.parametrize(
    "trouble", ["republished", "no file", "foreign pointer", "store of images"]
)
def test_what_does_not_matter_then_does_not_stand_against_the_way_back(root, trouble):
    """A moved version (CI's republish), a broken clone, a sitevar that was edited by hand."""
    old, _ = sides(root)
    state = "pointed"
    with answering(old) as url:
        rolling(root, state, old_urls=[url])
        if trouble == "republished":
            text = (root / "flavors.yaml").read_text()
            (root / "flavors.yaml").write_text(text.replace(old.version, "v11111111-222222222222"))
            assert run(root, "rollover", "advance", "doubler")[0] == 4  # held
        elif trouble == "no file":
            (root / "flavors.yaml").write_text("{")
        elif trouble == "foreign pointer":
            (root / ".adroit/sitevars.json").write_text('{"doubler": {"old": 40, "new": 60}}')
        else:
            shutil.rmtree(root / ".adroit/bundles/blobs")
        said = done(root, "rollover", "rollback", "doubler", "--why", "p99 is up")
    assert pointer(root) == "old"
    assert status(root)["rollover"]["state"] == "rolled back"
    if trouble == "republished":
        assert "flavors.yaml here says v11111111-222222222222" in said
    if trouble == "no file":
        assert "could not be checked: flavors" in said
        assert "new is not held" in said
    else:
        flavors = parse_flavors((root / "flavors.yaml").read_bytes())
        assert flavors["new"].hold == "rolled back: p99 is up"
    kinds = [entry.kind for entry in entries(store_of(root), "doubler")]
    assert kinds[-2:] == ["rolled-back", "held"]
    if trouble == "foreign pointer":
        assert kinds[-3] == "changed-outside"
    (found,) = json.loads(done(root, "verify-ledger", "doubler", "--json"))
    assert (found["problems"], found["outside"]) == ([], None)


def test_every_command_that_status_names_can_be_typed(root):
    rolling(root, "held", share=10.0)
    lines = done(root, "rollover", "status", "doubler").splitlines()
    named = [line.split("adroit_publish ")[1] for line in lines if line.startswith("next:")]
    assert [line.split()[1] for line in named] == ["advance", "rollback", "abandon"]
    for line in reversed(named):
        assert run(root, *line.split())[0] != 2, line
        shutil.rmtree(root / ".adroit/bundles/rollovers")
        rolling(root, "held", share=10.0)


@pytest.mark.parametrize("state", LIVE)
def test_from_every_state_a_command_leads_out_that_needs_to_know_nothing(state):
    rollover = some_rollover(state)
    ways = [way for way in commands(rollover) if leads_out(rollover, way, Evidence())]
    assert "abandon" in ways
    if state in ("pointing", "pointed", "draining", "drained", "retiring", "held"):
        assert "rollback" in ways


@given(
    st.sampled_from(LIVE),
    st.sampled_from([None, {}, {"a": 40.0, "b": 60.0}, {"other": 100.0}, {"a": 100.0}]),
    st.sampled_from([None, "v1", "v9", ""]),
    st.sampled_from([None, 0, 2]),
)
def test_whatever_is_read_the_way_back_is_open_unless_it_is_known_to_lead_nowhere(
    state, weights, version, servers
):
    now_s = 1000.0
    read = {
        "pointer": None if weights is None else PointerRead(now_s, weights),
        "flavors": None if version is None else FlavorsRead(now_s, version or None, version),
        "answering": None if servers is None else AnsweringRead(now_s, servers, None),
    }
    evidence, rollover = Evidence(**read), some_rollover(state)
    assert leads_out(rollover, "abandon", evidence)
    if state == "rolling back":
        step = next_step(rollover, evidence, now_s, who="w", command="rollback", why="x")
        assert isinstance(step, Missing) == (weights is None)
    elif "rollback" in commands(rollover):
        assert leads_out(rollover, "rollback", evidence) == (servers != 0)
        assert leads_out(rollover, "rollback", evidence, force=True)


def leads_out(rollover, command, evidence, *, force=False):
    step = next_step(rollover, evidence, 1000.0, who="w", command=command, why="x", force=force)
    assert isinstance(step, Advance | Missing | Do)
    return isinstance(step, Advance)


def some_rollover(state):
    checks = Checks(("http://new",), None, ("prometheus:http://p",), 60.0, 0.01, 1e-6, 120.0)
    entry = Transition(0.0, "w", None, state)
    return Rollover(
        "0001", "m", Side("a", "v1", "sha256:1"), Side("b", "v2", "sha256:2"), (100.0,), checks,
        state, (10.0,), goal={"pointing": 100.0, "rolling back": 0.0}.get(state), history=(entry,),
        resume="pointed" if state == "held" else None,
    )  # fmt: skip
