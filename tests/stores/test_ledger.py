"""stores.ledger, and the commands ``history`` and ``versions`` as a user runs them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adroit_publish import publish
from adroit_publish.bundle.content import Inline
from adroit_publish.bundle.digest import Digest
from adroit_publish.bundle.document import canonical_json
from adroit_publish.errors import RefusedError, VerificationError
from adroit_publish.stores.bundle_store import BundleStore
from adroit_publish.stores.directory import DirectoryObjects
from adroit_publish.stores.ledger import LedgerEntry, Share, append, entries
from adroit_publish.stores.live import history, live_at
from adroit_publish.stores.s3.objects import S3Objects
from tests.servers.object_servers import ACCESS_KEY, SECRET_KEY
from tests.support.checkouts import FLOW, make_checkout

pytest_plugins = ["tests.servers.object_servers"]
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
OLD, NEW = "v0b5c5b2f-3f0c9a1b2c3d", "v5f2b9c01-aaaaaaaaaaaa"


@pytest.fixture
def store(tmp_path):
    return BundleStore(DirectoryObjects(tmp_path / "store"))


def live(*shares):
    return {"live": [{"flavor": f, "version": v, "weight": w} for f, v, w in shares]}


def point(store, key, now, *shares, who="ada", model="m"):
    return append(store, model, "pointed", live(*shares), key=key, who=who, now=now)


def files(store):
    return sorted(path for path in (store.objects.root / "ledger").rglob("*") if path.is_file())


def test_entries_come_back_in_order_with_what_was_said(store):
    point(store, "1", NOON, ("old", OLD, 100))
    facts = {"flavor": "old", "version": OLD, "why": "slow"}
    append(store, "m", "held", facts, key="2", who="bob", now=NOON + HOUR)
    first, second = entries(store, "m")
    assert (first.kind, first.who, first.utc) == ("pointed", "ada", NOON)
    assert (second.kind, second.who, second.facts) == ("held", "bob", facts)
    assert [path.name for path in files(store)] == ["00000001.json", "00000002.json"]
    assert (first.number, second.number) == (1, 2)
    assert entries(store, "other") == []


def test_a_step_that_is_done_again_is_recorded_once(store):
    first = point(store, "r1/pointed", NOON, ("new", NEW, 100))
    again = point(store, "r1/pointed", NOON + HOUR, ("new", NEW, 100), who="bob")
    assert again == first
    assert len(files(store)) == 1


def test_a_step_that_says_something_else_the_second_time_is_refused(store):
    point(store, "r1/pointed", NOON, ("new", NEW, 100))
    with pytest.raises(RefusedError) as error:
        point(store, "r1/pointed", NOON, ("old", OLD, 100))
    assert OLD in str(error.value)
    assert NEW in str(error.value)
    assert len(files(store)) == 1


def test_recorders_of_one_step_at_once_leave_one_entry(store):
    with ThreadPoolExecutor(8) as pool:
        for n in range(8):
            who, when = f"op{n}", NOON + n * HOUR
            pool.submit(point, store, "step", when, ("new", NEW, 100), who=who)
    (entry,) = entries(store, "m")
    assert entry == point(store, "step", NOON, ("new", NEW, 100))


def test_an_entry_is_never_dated_before_the_one_it_follows(store):
    point(store, "1", NOON, ("new", NEW, 100))
    append(
        store, "m", "rolled-back", live(("old", OLD, 100)), key="2", who="b", now=NOON - HOUR
    )  # a clock that is slow
    assert [entry.kind for entry in entries(store, "m")] == ["pointed", "rolled-back"]
    assert live_at(entries(store, "m"), NOON + HOUR).shares == (Share("old", OLD, 100.0),)


def test_a_changed_entry_is_found_whichever_byte_it_is(store):
    point(store, "1", NOON, ("new", NEW, 100))
    (path,) = files(store)
    data = path.read_bytes()
    path.chmod(0o644)
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(VerificationError, match="not what it was") as error:
            entries(store, "m")
        assert path.name in str(error.value)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_entry_that_is_taken_out_or_exchanged_breaks_the_chain(store, place):
    for number in range(4):
        point(store, f"{number}", NOON, ("new", NEW, 100))
    path, content = files(store)[place], files(store)[place].read_bytes()
    path.unlink()
    with pytest.raises(VerificationError, match="ledger"):
        entries(store, "m")
    # An entry that is whole by itself, in its place, and still not the one that stood there.
    other = BundleStore(DirectoryObjects(store.objects.root.parent / "other"))
    for number in range(place + 1):
        point(other, f"{number}", NOON, ("old", OLD, 100))
    path.write_bytes(files(other)[place].read_bytes())
    with pytest.raises(VerificationError, match="chain is broken"):
        entries(store, "m")
    path.write_bytes(content)
    assert len(entries(store, "m")) == 4


def test_the_chain_covers_what_was_entered_before_there_was_one(store):
    shutil.copytree(SAMPLES / "ledger", store.objects.root / "ledger")
    point(store, "chained", NOON, ("new", NEW, 100))
    assert [entry.number for entry in entries(store, "m")] == [0, 0, 0, 0, 0, 1]
    files(store)[1].unlink()
    with pytest.raises(VerificationError, match="chain is broken"):
        entries(store, "m")


def test_of_a_clock_that_is_ahead_the_others_learn_nothing(store):
    """The store's order stands; who comes later keeps their time and their name."""
    fast = point(store, "1", NOON + timedelta(minutes=5), ("new", NEW, 100), who="bob")
    right = point(store, "2", NOON + timedelta(minutes=1), ("old", OLD, 100), who="ada")
    assert [entry.who for entry in entries(store, "m")] == ["bob", "ada"]
    assert right.utc == NOON + timedelta(minutes=1)
    assert live_at(entries(store, "m"), fast.utc + HOUR).who == "ada"
    assert live_at(entries(store, "m"), right.utc).who == "ada"


def test_writers_of_different_steps_at_once_lose_nothing(store):
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda n: point(store, f"{n}", NOON, ("new", NEW, 100)), range(12)))
    assert [entry.number for entry in entries(store, "m")] == list(range(1, 13))
    assert {entry.key for entry in entries(store, "m")} == {str(n) for n in range(12)}


def test_an_entry_under_another_date_is_found(store):
    point(store, "1", NOON, ("new", NEW, 100))
    (path,) = files(store)
    path.rename(path.with_name("2025" + path.name[4:]))
    with pytest.raises(VerificationError):
        entries(store, "m")


def test_what_is_no_entry_is_found(store):
    point(store, "1", NOON, ("new", NEW, 100))
    (store.objects.root / "ledger/m/notes.txt").write_text("hello")
    with pytest.raises(VerificationError, match="not an entry"):
        entries(store, "m")


@pytest.mark.parametrize(
    ("model", "kind", "facts", "key"),
    [
        ("m", "published", {}, "k"),
        ("m", "pointed", {}, "k"),
        ("m", "pointed", {"live": [{"flavor": "f"}]}, "k"),
        ("m", "deleted", {"flavor": "f"}, "k"),
        ("m", "unheld", {"flavor": "f", "version": OLD}, ""),
        ("../m", "unheld", {"flavor": "f", "version": OLD}, "k"),
    ],
)
def test_an_entry_that_lacks_what_it_has_to_say_is_a_misuse(store, model, kind, facts, key):
    with pytest.raises((ValueError, KeyError)):
        append(store, model, kind, facts, key=key, who="w", now=NOON)
    assert not (store.objects.root / "ledger").exists()


def test_the_ledger_is_no_model_of_the_store(store):
    point(store, "1", NOON, ("new", NEW, 100))
    assert list(store.models()) == []


def test_a_ledger_in_s3_is_the_same(seaweed, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", seaweed.endpoint)
    store = BundleStore(S3Objects(f"s3://{seaweed.new_place()}"))
    first = point(store, "1", NOON, ("old", OLD, 100))
    assert point(store, "1", NOON + HOUR, ("old", OLD, 100)) == first
    second = point(store, "2", NOON, ("old", OLD, 90), ("new", NEW, 10))
    assert entries(store, "m") == [first, second]
    assert second.utc > first.utc


steps = st.lists(
    st.tuples(
        st.sampled_from(["pointed", "rolled-back", "held", "deleted", "promoted"]),
        st.integers(0, 20),
        st.sampled_from(["a", "b", "c"]),
    ),
    max_size=12,
)


@given(steps, st.integers(-1, 21))
def test_what_was_live_is_what_the_last_pointer_before_said(told, hour):
    told = sorted(told, key=lambda step: step[1])
    found = [
        LedgerEntry(NOON + at * HOUR, "m", kind, "w", live((flavor, OLD, 100)) | {"flavor": flavor})
        for kind, at, flavor in told
    ]
    at_that_time = None
    for now in range(hour + 1):  # hour by hour, as a service would have seen it
        for kind, at, flavor in told:
            if at == now and kind in ("pointed", "rolled-back"):
                at_that_time = flavor
    got = live_at(found, NOON + hour * HOUR)
    assert (got.shares[0].flavor if got else None) == at_that_time


def test_weights_and_an_emptied_sitevar_are_told_apart_from_never(store):
    point(store, "1", NOON, ("old", OLD, 90), ("new", NEW, 10))
    point(store, "2", NOON + HOUR)
    found = entries(store, "m")
    assert live_at(found, NOON - HOUR) is None
    assert [share.weight for share in live_at(found, NOON).shares] == [90, 10]
    assert live_at(found, NOON + HOUR).shares == ()


# As a user runs it.


@pytest.fixture(scope="module")
def published(tmp_path_factory, trained):
    """A checkout with a published flavor, a ledger of two days beside it, and the release."""
    flavors = {"a": trained.good[0]}
    root = make_checkout(tmp_path_factory.mktemp("p") / "repo", trained.tracking_uri, flavors)
    release = publish("a", root=root)
    store = BundleStore(DirectoryObjects(root / ".adroit/bundles"))
    tomorrow = datetime.now(UTC).replace(hour=12) + timedelta(days=1)
    for key, days, kind, shares in [
        ("1", 0, "pointed", [("a", release.version, 100)]),
        ("2", 1, "pointed", [("a", release.version, 75), ("b", NEW, 25)]),
        ("3", 2, "rolled-back", [("a", release.version, 100)]),
    ]:
        now, facts = tomorrow + timedelta(days=days), live(*shares) | {"why": "because"}
        append(store, "doubler", kind, facts, key=key, who=f"op{key}", now=now)
    return root, release, tomorrow


def run(root, *arguments, code=0):
    done = subprocess.run(
        [sys.executable, "-m", "adroit_publish", *map(str, arguments)],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(FLOW.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stdout + done.stderr


def test_history_tells_publishes_and_pointers_in_order_and_by_whom(published):
    root, release, _ = published
    found = json.loads(run(root, "history", "doubler", "--json"))
    assert [entry["kind"] for entry in found] == ["published", "pointed", "pointed", "rolled-back"]
    assert [entry["who"] for entry in found] == ["tester", "op1", "op2", "op3"]
    assert found[0]["facts"] == {"version": release.version, "run_id": release.run_id}
    text = run(root, "history", "doubler")
    assert f"a {release.version} 75 %, b {NEW} 25 %; because" in text
    assert text.index("published") < text.index("pointed") < text.index("rolled-back")


def test_history_at_a_date_tells_what_was_live_at_its_end(published):
    root, release, tomorrow = published
    day = (tomorrow + timedelta(days=1)).date().isoformat()
    told = json.loads(run(root, "history", "doubler", "--at", day, "--json"))
    assert [(s["flavor"], s["version"], s["weight"]) for s in told["live"]] == [
        ("a", release.version, 75.0), ("b", NEW, 25.0)
    ]  # fmt: skip
    assert told["who"] == "op2"
    morning = run(root, "history", "doubler", "--at", f"{day}T11:59", "--json")
    assert [share["weight"] for share in json.loads(morning)["live"]] == [100.0]
    text = run(root, "history", "doubler", "--at", day)
    assert NEW in text
    assert "25 %" in text


def test_a_time_may_name_its_zone(published):
    root, _, tomorrow = published
    local = (tomorrow + timedelta(hours=5)).strftime("%Y-%m-%dT%H:%M:%S.999+05:00")
    told = json.loads(run(root, "history", "doubler", "--at", local, "--json"))
    assert told["who"] == "op1"


def test_history_from_before_the_ledger_is_nothing_and_no_failure(published):
    root = published[0]
    assert "Nothing of doubler" in run(root, "history", "doubler", "--at", "2020-01-01")
    told = json.loads(run(root, "history", "doubler", "--at", "2020-01-01", "--json"))
    assert (told["live"], told["since"]) == ([], None)


def test_a_date_that_is_none_is_one_message_and_exit_2(published):
    assert "2026-11-24" in run(published[0], "history", "doubler", "--at", "yesterday", code=2)


def test_the_history_of_a_model_outlives_its_last_version(published):
    root = published[0]
    store = BundleStore(DirectoryObjects(root / ".adroit/bundles"))
    point(store, "1", NOON, ("old", OLD, 100), model="gone")
    told = json.loads(run(root, "history", "gone", "--at", "2026-11-25", "--json"))
    assert told["live"] == [{"flavor": "old", "version": OLD, "weight": 100.0}]


def test_a_pointer_moved_by_hand_is_in_the_history_and_in_the_status(tmp_path, trained):
    flavors = {"a": trained.good[0], "b": trained.good[1]}
    root = make_checkout(tmp_path / "repo", trained.tracking_uri, flavors)
    versions = {flavor: publish(flavor, root=root).version for flavor in flavors}
    ledger_files = root / ".adroit/bundles/ledger/doubler"
    run(root, "sitevar", "set", "doubler", "a", "--why", "the first one")
    run(root, "sitevar", "set", "doubler", "a=90", "b=10", "--why", "a tenth")
    assert len(list(ledger_files.iterdir())) == 2
    newest = max(ledger_files.iterdir())
    newest.unlink()  # as if the command had been killed before it came to the ledger
    for _ in range(2):
        run(root, "sitevar", "set", "doubler", "a=90", "b=10", "--why", "a tenth")
        assert max(ledger_files.iterdir()).name == newest.name
    # A flavor that has another version by now changes nothing of what was entered.
    flavors_yaml = (root / "flavors.yaml").read_text()
    (root / "flavors.yaml").write_text(flavors_yaml.replace(versions["b"], versions["a"]))
    run(root, "sitevar", "set", "doubler", "a=90", "b=10", "--why", "a tenth")
    (root / "flavors.yaml").write_text(flavors_yaml)
    told = json.loads(run(root, "history", "doubler", "--at", "2999-01-01", "--json"))
    assert {(s["flavor"], s["version"], s["weight"]) for s in told["live"]} == {
        ("a", versions["a"], 90.0), ("b", versions["b"], 10.0)
    }  # fmt: skip
    text = run(root, "history", "doubler")
    assert text.count("pointed") == 2
    assert text.index("the first one") < text.index("a tenth")
    rows = json.loads(run(root, "status", "--json"))
    assert {row["flavor"]: row["live_percent"] for row in rows} == {"a": 90.0, "b": 10.0}
    assert "90 %" in run(root, "status")
    assert {row["flavor"]: row["live_version"] for row in rows} == versions
    # Republished in place: what is live is still what was pointed to, and both are shown.
    (root / "flavors.yaml").write_text(flavors_yaml.replace(versions["b"], versions["a"]))
    (told,) = [r for r in json.loads(run(root, "status", "--json")) if r["flavor"] == "b"]
    assert (told["version"], told["live_version"]) == (versions["a"], versions["b"])
    assert f"live as {versions['b']}" in run(root, "status")
    (root / "flavors.yaml").write_text(flavors_yaml)
    (root / ".adroit/sitevars.json").write_text("{")
    done = subprocess.run(
        [sys.executable, "-m", "adroit_publish", "status", "--json"],
        cwd=root, env=os.environ | {"PYTHONPATH": str(FLOW.parent)}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert [row["live_percent"] for row in json.loads(done.stdout)] == [None, None]
    assert "What is live cannot be told" in done.stderr


def test_the_clock_of_another_gives_nobody_anothers_change(tmp_path, trained):
    """Bob's clock was 5 minutes ahead when he moved the pointer; then alice moves it twice."""
    flavors = {"a": trained.good[0], "b": trained.good[1]}
    root = make_checkout(tmp_path / "repo", trained.tracking_uri, flavors)
    for flavor in flavors:
        publish(flavor, root=root)
    run(root, "sitevar", "set", "doubler", "a=90", "b=10", "--why", "of bob")
    # Bob's records, as they would be with his clock: 5 minutes ahead.
    history = root / ".adroit/bundles/sitevars/doubler/history"
    ahead = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()
    (change,) = history.iterdir()
    change.chmod(0o644)
    change.write_text(json.dumps(json.loads(change.read_text()) | {"utc": ahead, "who": "bob"}))
    for first, why in (("50", "hand one"), ("20", "hand two")):
        shares = (f"a={first}", f"b={100 - int(first)}")
        run(root, "sitevar", "set", "doubler", *shares, "--why", why)
    told = json.loads(run(root, "history", "doubler", "--json"))
    pointed = [(entry["who"], entry["facts"]["why"]) for entry in told if "live" in entry["facts"]]
    assert pointed == [("tester", "of bob"), ("tester", "hand one"), ("tester", "hand two")]
    now = json.loads(run(root, "history", "doubler", "--at", datetime.now(UTC).isoformat(),
                         "--json"))  # fmt: skip
    assert [share["weight"] for share in now["live"]] == [20.0, 80.0]
    # A hand in the document itself is entered, and its break is marked.
    (root / ".adroit/sitevars.json").write_text('{"doubler": "b"}')
    (found,) = json.loads(run(root, "verify-ledger", "doubler", "--json"))
    assert found["problems"] == []
    assert "the sitevar says b" in found["outside"]
    run(root, "sitevar", "set", "doubler", "a", "--why", "back")
    told = json.loads(run(root, "history", "doubler", "--json"))
    assert [entry["kind"] for entry in told[-2:]] == ["changed-outside", "pointed"]
    assert "by other means, noticed by tester" in run(root, "history", "doubler")
    assert "whole" in run(root, "verify-ledger")
    newest = max((root / ".adroit/bundles/ledger/doubler").iterdir())
    newest.chmod(0o644)
    newest.write_bytes(newest.read_bytes().replace(b"back", b"hack"))
    assert "NOT WHOLE" in run(root, "verify-ledger", code=6)


@pytest.mark.parametrize("command", ["history", "versions"])
def test_a_model_that_does_not_exist_ends_with_exit_2_and_near_names(published, command):
    root = published[0]
    assert "doubler" in run(root, command, "dobuler", code=2)
    told = json.loads(run(root, command, "dobuler", "--json", code=2))
    assert (told["error"], told["wanted"]) == ("ConfigError", "doubler")
    assert history(BundleStore(DirectoryObjects(root / ".adroit/bundles")), "dobuler") == []


# What other versions of this program wrote.

SAMPLES = Path(__file__).parent / "samples"


def put(store, facts):
    """Puts an entry as another version of this program would."""
    data = canonical_json(facts)
    step, digest = Digest.of(facts["key"].encode()).hex[:16], Digest.of(data)
    name = f"20261124T120000.000000Z-{step}{digest.hex[:16]}.json"
    store.objects.create(f"ledger/m/{name}", Inline(data), digest)


ENTRY = {
    "schema": 1,
    "utc": "2026-11-24T12:00:00+00:00",
    "model": "m",
    "kind": "held",
    "who": "ada",
    "facts": {"flavor": "a", "version": OLD},
    "key": "k",
}


def test_entries_of_the_first_release_are_read(store):
    shutil.copytree(SAMPLES / "ledger", store.objects.root / "ledger")
    found = entries(store, "m")
    kinds = ["pointed", "rolled-back", "held", "deleted", "pointed"]
    assert [entry.kind for entry in found] == kinds
    assert {entry.who for entry in found} == {"ada"}
    assert live_at(found, NOON).shares == (Share("a", OLD, 90), Share("b", NEW, 10))
    assert live_at(found, NOON + 5 * HOUR).shares == ()


def test_a_field_that_is_not_known_changes_no_entry(store):
    put(store, ENTRY | {"host": "laptop"})
    assert entries(store, "m")[0].facts == ENTRY["facts"]


@pytest.mark.parametrize("change", [{"schema": 3}, {"schema": 2}, {"kind": "split"}])
def test_an_entry_of_a_newer_number_or_kind_is_never_taken_for_less_than_it_says(store, change):
    put(store, ENTRY | change)
    with pytest.raises(VerificationError, match=r"(?s)newer version.*update this checkout"):
        entries(store, "m")


@pytest.mark.parametrize("change", [{"utc": "noon"}, {"facts": []}, {"who": None}, {"model": "n"}])
def test_a_damaged_entry_is_an_error_and_not_a_crash(store, change):
    put(store, ENTRY | change)
    with pytest.raises(VerificationError, match="damaged"):
        entries(store, "m")
