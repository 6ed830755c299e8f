"""CI and a live rollover: its two flavors are left alone, by name, whoever asks."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from adroit_publish import publish
from adroit_publish.checkout import open_checkout
from adroit_publish.cli.doctor import read_metaflow
from adroit_publish.doctor.checks import examine
from adroit_publish.errors import RefusedError
from adroit_publish.publish.planning import plan
from adroit_publish.publish.prepare import prepare
from adroit_publish.publish.prepare_republish import prepare_republish, prepare_stale
from adroit_publish.publish.release import (
    Failure,
    PublishOptions,
    RepublishJob,
    RepublishOptions,
)
from tests.rollovers.test_way_back import published, rolling, root  # noqa: F401
from tests.support.checkouts import FLOW, commit
from tests.support.rolling import done, run


@pytest.fixture
def stale(root):  # noqa: F811
    """A rollover at 10 %, and a merge that makes both of its flavors stale."""
    (root / "projects/doubler/features.py").write_text("SCALE = 3\n")
    commit(root, "a merge")
    rolling(root, "pointed", share=10.0)
    return root


def test_plan_and_stale_name_the_rollover_and_skip_its_two_flavors(stale):
    rows = plan(open_checkout(stale))
    assert {row.flavor: (row.state.value, row.to_do) for row in rows} == {
        "old": ("rolling over", False), "new": ("rolling over", False)
    }  # fmt: skip
    assert all("old -> new" in row.why[0] for row in rows)
    work, left_out = prepare_stale(open_checkout(stale), RepublishOptions(verify="none"))
    assert work == ()
    assert all("live rollover, old -> new" in line for line in left_out)
    assert len(left_out) == 2


def test_no_row_of_doctor_depends_on_it(root):  # noqa: F811
    (root / "projects/doubler/features.py").write_text("SCALE = 3\n")
    commit(root, "a merge")
    before = examine(root, None, os.environ, read_metaflow())
    rolling(root, "pointed", share=10.0)
    assert {row.state.value for row in plan(open_checkout(root))} == {"rolling over"}
    assert examine(root, None, os.environ, read_metaflow()) == before


def test_status_shows_both_flavors_of_a_rollover_stale_or_not(root):  # noqa: F811
    rolling(root, "pointed", share=10.0)
    rows = {row["flavor"]: row for row in json.loads(done(root, "status", "--json"))}
    for name in ("old", "new"):
        assert rows[name]["state"] == "rolling over"
        assert rows[name]["detail"] == "rollover 0001 of doubler: old -> new, pointed"
    done(root, "rollover", "abandon", "doubler", "--why", "x")
    states = {row["state"] for row in json.loads(done(root, "status", "--json"))}
    assert states == {"published"}


def test_by_hand_it_is_refused_but_into_another_flavor_or_on_record(stale):
    checkout = open_checkout(stale)
    (failure,) = prepare_republish(checkout, ["new"], RepublishOptions(verify="none"))
    assert isinstance(failure.error, RefusedError)
    assert "--despite-rollover" in str(failure.error)
    options = RepublishOptions(verify="none", new_flavor="newer")
    (job,) = prepare_republish(checkout, ["new"], options)
    assert isinstance(job, RepublishJob)
    options = RepublishOptions(verify="none", despite_rollover=True)
    (job,) = prepare_republish(checkout, ["new"], options)
    assert "old -> new, pointed" in job.options.went_past[0]


def test_what_went_past_it_is_in_the_record(stale):
    republish = [sys.executable, FLOW.parent / "republish.py", "--flavor", "new"]
    options = ["--verify", "none", "--despite-rollover"]
    subprocess.run([*republish, *options], cwd=stale, check=True, capture_output=True)
    (version,) = {row.version for row in plan(open_checkout(stale), names=["new"])}
    (record,) = json.loads(done(stale, "show", str(version), "--json"))["records"]
    assert "old -> new, pointed" in record["went_past"][0]


def test_what_is_unchanged_can_still_be_healed(stale):
    commit_back = (stale / "projects/doubler/features.py").write_text("SCALE = 2\n")
    assert commit_back
    commit(stale, "and back")
    (release,) = prepare(open_checkout(stale), ["new"], PublishOptions(verify="none"))
    assert not release.news
    assert publish("new", root=stale, verify="none").news is False


def test_a_live_flavor_that_is_republished_in_place_is_told_of(root):  # noqa: F811
    (root / "projects/doubler/features.py").write_text("SCALE = 3\n")
    commit(root, "a merge")
    rows = {row.flavor: row for row in plan(open_checkout(root))}
    assert any("this flavor is live: use --new-flavor" in note for note in rows["old"].notes)
    assert not any("is live" in note for note in rows["new"].notes)
    jobs = prepare_republish(open_checkout(root), ["old", "new"], RepublishOptions(verify="none"))
    assert [job.live_in_place for job in jobs] == [True, False]


def test_a_new_flavor_that_would_be_the_old_one_again_is_refused(root):  # noqa: F811
    options = RepublishOptions(verify="none", new_flavor="next")
    (failure,) = prepare_republish(open_checkout(root), ["old"], options)
    assert isinstance(failure, Failure)
    assert failure.error.exit_code == 4
    assert "next would be old again" in failure.error.what
    assert "commit" in str(failure.error.next_step)


def test_one_command_moves_every_live_rollover_and_ends_with_the_worst_code(root):  # noqa: F811
    assert run(root, "rollover", "advance", "--all")[0] == 0
    rolling(root, "pointed", share=10.0)
    code, output = run(root, "rollover", "advance", "--all")
    assert (code, "doubler" in output) == (10, True), output
    done(root, "sitevar", "set", "doubler", "old=60", "new=40", "--why", "by hand")
    code, output = run(root, "rollover", "advance", "--all")
    assert (code, "held" in output) == (4, True), output
    assert run(root, "rollover", "advance", "doubler", "--all")[0] == 2
