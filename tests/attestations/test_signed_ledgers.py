"""A ledger whose last entry has to be signed, so that nobody can write another one in its place."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from securesystemslib.signer import CryptoSigner

from adroit_publish.attestations.demand import Demand
from adroit_publish.bundle.digest import Digest
from adroit_publish.bundle.document import canonical_json
from adroit_publish.custody.rolled_back import rolled_back
from adroit_publish.errors import PublishError, VerificationError
from adroit_publish.stores.bundle_store import BundleStore
from adroit_publish.stores.chain import check_enterable, read_chain, unsigned_tip
from adroit_publish.stores.directory import DirectoryObjects
from adroit_publish.stores.ledger import append, entries, pointed_to
from adroit_publish.stores.live import history

NOW = datetime(2026, 11, 28, tzinfo=UTC)


class Ledgers:
    """One place, as its team, as somebody with another key, and as a mere writer sees it."""

    def __init__(self, directory):
        self.place = directory / "store"
        self.objects = DirectoryObjects(self.place)
        keys = {}
        for name in ("team", "others"):
            path = directory / f"{name}.pem"
            path.write_bytes(CryptoSigner.generate_ed25519().private_bytes)
            keys[name] = f"file:{path}"
        self.team = BundleStore(self.objects, Demand("prod", (keys["team"],)), keys["team"])
        self.others = BundleStore(self.objects, None, keys["others"])
        self.writer = BundleStore(self.objects)

    def entry(self, number, model="m"):
        return self.place / f"ledger/{model}/{number:08}.json"

    def point(self, store, flavor, key, model="m"):
        live = [{"flavor": flavor, "version": "", "weight": 100.0}]
        append(store, model, "pointed", {"live": live}, key=key, who="ada", now=NOW)

    def clear(self):
        for path in self.place.glob("ledger/m/*"):
            path.unlink()


@pytest.fixture
def ledgers(tmp_path):
    ledgers = Ledgers(tmp_path)
    ledgers.point(ledgers.team, "a", "first")
    ledgers.point(ledgers.team, "b", "second")
    return ledgers


def refused(ledgers, *said):
    told = str(unsigned_tip(read_chain(ledgers.team, "m")))
    for words in ("not signed as its target demands", *said):
        assert words in told
    with pytest.raises(VerificationError, match="not signed as its target demands"):
        ledgers.point(ledgers.team, "c", "next")  # which would vouch for it


def test_what_the_team_enters_is_signed_and_read_by_anybody(ledgers):
    for store in (ledgers.team, ledgers.writer):
        assert pointed_to(entries(store, "m")) == {"b": 100.0}
    assert json.loads(ledgers.entry(2).read_text())["signature"]["payload"] == ""


def test_a_ledger_that_was_written_anew_is_refused(ledgers):
    ledgers.clear()
    ledgers.point(ledgers.writer, "evil", "first")
    assert pointed_to(entries(ledgers.writer, "m")) == {"evil": 100.0}
    refused(ledgers, "no signature")


def test_an_entry_that_nobody_signed_is_refused(ledgers):
    ledgers.point(ledgers.writer, "evil", "third")
    refused(ledgers, "no signature", "00000003.json")


def test_an_entry_that_others_signed_is_refused(ledgers):
    ledgers.point(ledgers.others, "evil", "third")
    refused(ledgers, "another signature")


def test_an_entry_with_the_signature_of_another_is_refused(ledgers):
    ledgers.point(ledgers.writer, "evil", "third")
    entry = json.loads(ledgers.entry(3).read_text())
    del entry["digest"]
    entry["signature"] = json.loads(ledgers.entry(2).read_text())["signature"]
    data = canonical_json(entry | {"digest": str(Digest.of(canonical_json(entry)))})
    ledgers.entry(3).chmod(0o644)
    ledgers.entry(3).write_bytes(data)
    assert pointed_to(entries(ledgers.writer, "m")) == {"evil": 100.0}
    refused(ledgers, "another signature")


def test_the_signed_ledger_of_another_model_is_refused(ledgers):
    ledgers.point(ledgers.team, "evil", "first", model="other")
    ledgers.clear()
    ledgers.entry(1).write_bytes(ledgers.entry(1, "other").read_bytes())
    with pytest.raises(VerificationError, match="damaged"):
        entries(ledgers.team, "m")


@pytest.mark.parametrize("demands", [True, False])
def test_the_ledger_of_another_target_with_the_same_key_is_refused(ledgers, tmp_path, demands):
    key, objects = ledgers.team.signing_key, DirectoryObjects(tmp_path / "eng")
    eng = BundleStore(objects, Demand("eng", (key,)) if demands else None, key, "eng")
    ledgers.point(eng, "evil", "first")
    if demands:
        assert unsigned_tip(read_chain(eng, "m")) is None
    ledgers.clear()
    ledgers.entry(1).write_bytes((tmp_path / "eng/ledger/m/00000001.json").read_bytes())
    refused(ledgers, "for another target: eng")


def test_entries_from_before_signatures_are_covered_by_the_first_signed_one(ledgers):
    ledgers.clear()
    ledgers.point(ledgers.writer, "a", "first")
    refused(ledgers, "by `signing_key` alone")
    signing = BundleStore(ledgers.objects, None, ledgers.team.signing_key, "prod")
    ledgers.point(signing, "b", "second")
    assert pointed_to(entries(ledgers.team, "m")) == {"b": 100.0}


def test_an_entry_that_nobody_signed_is_read_and_told_of(ledgers):
    ledgers.point(ledgers.writer, "c", "third")
    for key in (None, ledgers.team.signing_key):
        reading = BundleStore(ledgers.objects, ledgers.team.demand, key)
        assert pointed_to(entries(reading, "m")) == {"c": 100.0}
        assert unsigned_tip(read_chain(reading, "m"))
    assert unsigned_tip(read_chain(ledgers.writer, "m")) is None


HELD = {"flavor": "b", "version": "v", "rollover": "0001", "why": "p99 is up"}


def enter(store, kind, facts, key):
    return append(store, "m", kind, facts, key=key, who="ada", now=NOW)


def keyless(ledgers, directory, key):
    """The team's target where nobody can sign: no key, one that is gone, one of others."""
    addresses = {"none": None, "gone": f"file:{directory}/gone.pem"}
    address = addresses.get(key, ledgers.others.signing_key)
    return BundleStore(ledgers.objects, ledgers.team.demand, address)


@pytest.mark.parametrize("key", ["none", "gone", "of others"])
def test_what_could_not_be_signed_is_refused_but_for_a_rollback(ledgers, tmp_path, key):
    store = keyless(ledgers, tmp_path, key)
    with pytest.raises(PublishError):
        check_enterable(store, "m")
    with pytest.raises(PublishError):
        ledgers.point(store, "c", "third")
    live = {"live": [{"flavor": "a", "version": "", "weight": 100.0}]}
    enter(store, "rolled-back", live, "back")
    entry = enter(store, "held", HELD, "hold")
    assert entry.facts["not_signed"]
    assert (entry.number, pointed_to(entries(ledgers.team, "m"))) == (4, {"a": 100.0})
    shown = [bool(one.facts.get("not_signed")) for one in history(ledgers.team, "m")]
    assert shown == [False, False, True, True]
    assert list(rolled_back(ledgers.team, "m")) == ["v"]


def test_a_rollback_signs_for_no_entry_that_nobody_signed(ledgers):
    ledgers.point(ledgers.writer, "evil", "third")
    with pytest.raises(VerificationError, match="not signed as its target demands"):
        check_enterable(ledgers.team, "m")
    entry = enter(ledgers.team, "held", HELD, "hold")
    assert "not signed as its target demands" in entry.facts["not_signed"]
    assert unsigned_tip(read_chain(ledgers.team, "m"))


def test_an_unsigned_hold_holds_and_an_unsigned_release_does_not(ledgers):
    warnings = []
    enter(ledgers.writer, "held", HELD, "hold")
    assert list(rolled_back(ledgers.team, "m", warnings.append)) == ["v"]
    assert "not signed" in warnings[0]
    signing = BundleStore(ledgers.objects, None, ledgers.team.signing_key, "prod")
    enter(signing, "held", HELD, "hold again")
    enter(ledgers.writer, "unheld", HELD, "release")
    assert list(rolled_back(ledgers.team, "m")) == ["v"]
    assert list(rolled_back(ledgers.writer, "m")) == []
    enter(signing, "unheld", HELD, "release again")
    assert list(rolled_back(ledgers.team, "m")) == []


@pytest.mark.parametrize("damaged", [1, 3])
def test_a_damaged_ledger_holds_what_can_be_read_and_says_so(ledgers, damaged):
    warnings = []
    enter(ledgers.team, "held", HELD, "hold")
    enter(ledgers.team, "unheld", HELD, "release")
    assert not rolled_back(ledgers.team, "m", warnings.append)
    assert not warnings
    entry = ledgers.entry(damaged)
    entry.chmod(0o644)
    entry.write_bytes(entry.read_bytes().replace(b"ada", b"eve"))
    assert list(rolled_back(ledgers.team, "m", warnings.append)) == ["v"]
    assert "not what it was" in warnings[0]
    entry.write_bytes(b"{")
    assert list(rolled_back(ledgers.team, "m")) == (["v"] if damaged == 1 else [])
