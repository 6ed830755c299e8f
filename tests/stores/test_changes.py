"""Changes of the sitevar by many writers: each under its author, the last one last."""

from __future__ import annotations

import os
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from adroit_publish.stores.bundle_store import BundleStore
from adroit_publish.stores.chain import last_number
from adroit_publish.stores.changes import SitevarChange, enter_change
from adroit_publish.stores.directory import DirectoryObjects
from adroit_publish.stores.ledger import Step, entries, pointed_to
from adroit_publish.stores.live import live_at

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def live(flavor):
    return [{"flavor": flavor, "version": f"v-{flavor}", "weight": 100.0}]


def weights(flavor):
    return {flavor: 100.0} if flavor else {}


class Writers:
    """A sitevar, a ledger, and writers who each look, change and enter."""

    def __init__(self, root: Path) -> None:
        self.store = BundleStore(DirectoryObjects(root))
        self.pointer: str | None = None
        self.changed: list[tuple[str, str | None, str, int]] = []
        self.entered: set[str] = set()

    def change(self, who: str, flavor: str) -> None:
        since = last_number(self.store, "m")
        self.changed.append((who, self.pointer, flavor, since))
        self.pointer = flavor

    def enter(self, index: int, skew: timedelta = timedelta(0)) -> None:
        who, before, after, since = self.changed[index]
        step = Step("pointed", {"live": live(after), "why": who}, f"by {who}", who)
        made = SitevarChange(weights(before), weights(after), since, lambda: weights(self.pointer))
        enter_change(self.store, "m", step, made, NOON + skew)
        self.entered.add(who)


def test_who_comes_late_is_entered_as_the_author_of_what_another_noticed(tmp_path):
    writers = Writers(tmp_path)
    writers.change("ada", "x")
    writers.enter(0)
    writers.change("bob", "y")
    writers.change("eve", "z")
    writers.enter(2)
    noticed = entries(writers.store, "m")[1]
    assert (noticed.kind, noticed.who, noticed.facts["noticed_by"]) == (
        "changed-outside", "unknown", "eve"
    )  # fmt: skip
    writers.enter(1)
    told = entries(writers.store, "m")
    assert [(entry.kind, entry.who) for entry in told[2:]] == [
        ("pointed", "eve"), ("explained", "bob")
    ]  # fmt: skip
    assert told[3].facts["entry"] == noticed.number
    assert live_at(told, NOON + timedelta(days=1)).shares[0].version == "v-z"
    assert live_at(told[:2] + told[3:], NOON + timedelta(days=1)).who == "bob"


def test_there_and_back_again_ends_where_it_is(tmp_path):
    writers = Writers(tmp_path)
    writers.change("ada", "x")
    writers.enter(0)
    writers.change("bob", "y")
    writers.change("eve", "x")
    writers.enter(2)
    writers.enter(1)
    assert pointed_to(entries(writers.store, "m")) == {"x": 100.0}


def test_what_was_changed_by_other_means_is_entered_as_such(tmp_path):
    writers = Writers(tmp_path)
    writers.change("ada", "x")
    writers.enter(0)
    writers.pointer = "by hand"
    writers.change("bob", "y")
    writers.enter(1)
    told = entries(writers.store, "m")
    assert [entry.kind for entry in told] == ["pointed", "changed-outside", "pointed"]
    assert told[1].facts["live"] == [{"flavor": "by hand", "version": "", "weight": 100.0}]
    assert told[1].who == "unknown"


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from("xyzw"), min_size=1, max_size=5),
    st.data(),
)
def test_in_whatever_order_writers_come_the_last_change_is_last(flavors, data):
    """Writers enter in any order, their clocks off by 10 minutes; changes repeat no flavor."""
    flavors = [flavor + str(number) for number, flavor in enumerate(flavors)]
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as directory:
        writers = Writers(Path(directory))
        waiting: list[int] = []
        for index, flavor in enumerate(flavors):
            writers.change(f"w{index}", flavor)
            waiting.append(index)
            while waiting and data.draw(st.booleans()):
                enter_one(writers, waiting, data)
        while waiting:
            enter_one(writers, waiting, data)
        told = entries(writers.store, "m")
        assert pointed_to(told) == {writers.pointer: 100.0}
        own = {entry.key: entry for entry in told if entry.who != "unknown"}
        assert own.keys() == {f"by w{index}" for index in range(len(flavors))}
        for index, flavor in enumerate(flavors):
            entry = own[f"by w{index}"]
            assert entry.who == f"w{index}"
            assert entry.facts["live"][0]["flavor"] == flavor


def enter_one(writers, waiting, data):
    index = data.draw(st.sampled_from(waiting))
    waiting.remove(index)
    writers.enter(index, timedelta(minutes=data.draw(st.sampled_from([-10, 0, 10]))))
