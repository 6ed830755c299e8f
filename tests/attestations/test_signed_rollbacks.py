"""A rollback asks for no key and no signed ledger; what else moves a pointer does, beforehand."""

from __future__ import annotations

import shutil

import pytest

from adroit_publish import publish
from adroit_publish.checkout import open_checkout
from adroit_publish.config.flavors import parse_flavors
from adroit_publish.errors import PublishError
from adroit_publish.places import open_store
from adroit_publish.rollover.evidence import Evidence, PointerRead
from adroit_publish.rollovers.verbs import open_rolling
from adroit_publish.stores.bundle_store import BundleStore
from adroit_publish.stores.ledger import append, entries
from tests.attestations.test_signed_versions import NOW, Made, write_key
from tests.rollovers.test_rollover_command import make_published
from tests.rollovers.test_way_back import pointer, rolling, status
from tests.support.rolling import done, run


@pytest.fixture(scope="module")
def published(tmp_path_factory, trained):
    """A checkout whose flavors ``old`` and ``new`` are published and signed."""
    made = Made(tmp_path_factory.mktemp("signed"))
    made.keys.mkdir()
    write_key(made.keys, "team")
    make_published(made.root, trained, "file:.adroit/sitevars.json")
    made.demand("team", signing="team")
    for flavor, run_id in (("old", trained.good[0]), ("new", trained.good[1])):
        publish(flavor, root=made.root, run_id=run_id, verify="none")
    return made


@pytest.fixture
def made(published, tmp_path, monkeypatch):
    shutil.copytree(published.root.parent, tmp_path / "signed")
    made = Made(tmp_path / "signed")
    made.demand("team", signing="team")
    monkeypatch.chdir(made.root)
    done(made.root, "sitevar", "set", "doubler", "old", "--why", "the first one")
    return made


def hinder(made, trouble):
    """Takes away what a signed entry needs; returns what is said of it."""
    ledger = made.root / ".adroit/bundles/ledger/doubler"
    if trouble == "unsigned tip":
        facts = {"flavor": "other", "version": "", "why": "an older checkout"}
        store = BundleStore(made.store().objects)
        append(store, "doubler", "held", facts, key="k", who="mallory", now=NOW)
        return "The ledger's last entry is not signed as its target demands."
    if trouble == "no key":
        made.demand("team")
        return "What is entered here would not be accepted here."
    if trouble == "key that is gone":
        (made.keys / "team.pem").rename(made.keys / "team.away")
        return "A key cannot be read"
    (entry, *_) = sorted(ledger.iterdir())
    entry.chmod(0o644)
    entry.write_bytes(b"{")
    return "An entry of the ledger is not what it was."


TROUBLES = ["unsigned tip", "no key", "key that is gone", "damaged ledger"]


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_rollback_is_done_kept_and_held_whatever_the_ledger_and_the_key(made, trouble):
    rolling(made.root, "pointed", share=10.0)
    reason = hinder(made, trouble)
    said = done(made.root, "rollover", "rollback", "doubler", "--why", "p99 is up")
    assert pointer(made.root) == "old"
    assert status(made.root)["rollover"]["state"] == "rolled back"
    flavors = parse_flavors((made.root / "flavors.yaml").read_bytes())
    assert "p99 is up" in flavors["new"].hold
    assert reason in said
    if trouble == "damaged ledger":
        return
    assert "not signed: " in said
    *_, back, held = entries(BundleStore(made.store().objects), "doubler")
    assert (back.kind, held.kind, held.facts["version"]) == (
        "rolled-back", "held", flavors["new"].version
    )  # fmt: skip
    if trouble != "key that is gone":  # which the demand needs too, as its public half
        assert "p99 is up; not signed: " in done(made.root, "history", "doubler")
        assert run(made.root, "verify-ledger", "doubler")[0] == 6


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize(
    "command", [["sitevar", "set", "doubler", "new", "--why", "x"], ["hold", "new", "--why", "x"]]
)
def test_what_could_not_be_entered_is_refused_before_it_is_done(made, trouble, command):
    reason = hinder(made, trouble)
    flavors, before = (made.root / "flavors.yaml").read_bytes(), pointer(made.root)
    code, said = run(made.root, *command)
    assert code in (2, 4, 6), said
    assert reason in said
    assert (made.root / "flavors.yaml").read_bytes() == flavors
    assert pointer(made.root) == before == "old"


@pytest.mark.parametrize("trouble", ["unsigned tip", "no key", "damaged ledger"])
def test_no_rollover_begins_or_moves_on_where_it_could_not_be_entered(made, trouble):
    rollover = rolling(made.root, "pointing", share=10.0)  # on its way to all of the traffic
    reason = hinder(made, trouble)
    checkout = open_checkout(made.root, {})
    target = checkout.target("local")
    world = open_rolling(checkout, target, open_store(target)).world
    evidence = Evidence(pointer=PointerRead(world.now_s(), {"new": 10.0, "old": 90.0}))
    with pytest.raises(PublishError, match=reason):
        world.act(rollover, "point", evidence, lambda: None)
    assert pointer(made.root) == {"new": 10, "old": 90}
    done(made.root, "rollover", "abandon", "doubler", "--why", "x")
    evidence = ["--url", "http://127.0.0.1:1", "--prometheus", "http://127.0.0.1:1"]
    (made.root / ".adroit/sitevars.json").write_text('{"doubler": "old"}')
    code, said = run(made.root, "rollover", "start", "--from", "old", "--to", "new", *evidence)
    assert code in (4, 6), said
    assert reason in said


@pytest.mark.parametrize("trouble", ["unsigned tip", "damaged ledger"])
def test_a_publish_goes_on_and_warns(made, trained, trouble):
    reason = hinder(made, trouble)
    (made.root / "projects/doubler/features.py").write_text("SCALE = 3\n")
    release = publish(
        "new", root=made.root, run_id=trained.good[1], verify="none", allow_dirty=True
    )
    assert any(reason in warning for warning in release.warnings)
    store = open_store(open_checkout(made.root, {}).target("local"))
    assert store.find("doubler", release.version)
