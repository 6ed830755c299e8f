"""A version that was rolled back is held, whichever flavor of the model would get it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from adroit_publish import publish
from adroit_publish.checkout import open_checkout
from adroit_publish.config.flavors import parse_flavors
from adroit_publish.errors import RefusedError
from adroit_publish.publish.planning import plan
from adroit_publish.publish.prepare_republish import prepare_republish, prepare_stale
from adroit_publish.publish.release import Failure, RepublishJob, RepublishOptions
from tests.rollovers.test_way_back import published, rolling, root  # noqa: F401
from tests.support.checkouts import FLOW, commit, git
from tests.support.rolling import done, run

UNVERIFIED = RepublishOptions(verify="none")


@pytest.fixture
def rolled_back(root):  # noqa: F811
    """A merge, ``next`` republished from the live ``old`` next to it, and rolled back."""
    (root / "projects/doubler/features.py").write_text("SCALE = 3\n")
    commit(root, "a merge")
    code, said = republished(root, "--flavor", "old", "--new-flavor", "next")
    assert code == 0, said
    commit(root, "next")
    rolling(root, "pointed", share=10.0, names=("old", "next"))
    done(root, "rollover", "rollback", "doubler", "--why", "p99 is up", "--commit")
    return root


def republished(checkout, *arguments):
    command = [sys.executable, FLOW.parent / "republish.py", *arguments, "--verify", "none"]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def versions(checkout):
    flavors = parse_flavors((checkout / "flavors.yaml").read_bytes())
    return {name: str(flavor.version) for name, flavor in flavors.items()}


def add_flavor(checkout, name, version):
    entry = f"{name}:\n  config: projects/doubler/config.yaml\n  conda_env: plain\n"
    with (checkout / "flavors.yaml").open("a") as file:
        file.write(f"{entry}  version: {version}\n")
    commit(checkout, name)


def test_plan_and_stale_name_it_and_how_to_release_it(rolled_back):
    held = versions(rolled_back)["next"]
    rows = {row.flavor: row for row in plan(open_checkout(rolled_back))}
    assert (rows["old"].state.value, rows["old"].to_do) == ("held", False)
    (why,) = rows["old"].why
    assert held in why
    assert "p99 is up" in why
    assert "unhold next" in " ".join(rows["old"].notes)
    shown = {row["flavor"]: row for row in json.loads(done(rolled_back, "status", "--json"))}
    assert shown["old"]["state"] == "held"
    assert "unhold next" in shown["old"]["detail"]
    work, left_out = prepare_stale(open_checkout(rolled_back), UNVERIFIED)
    assert [job.flavor.name for job in work] == ["new"]  # of another run: another version
    (line,) = [line for line in left_out if line.startswith("old: ")]
    assert held in line
    assert "unhold next" in line


def test_the_live_flavor_stays_what_it_was_until_the_version_is_released(rolled_back):
    before = versions(rolled_back)
    code, said = republished(rolled_back, "--flavor", "old")
    assert code == 4, said
    assert f"{before['next']} was rolled back" in said
    assert "unhold next" in said
    assert versions(rolled_back) == before
    done(rolled_back, "unhold", "next", "--commit")
    (job,) = prepare_republish(open_checkout(rolled_back), ["old"], UNVERIFIED)
    assert isinstance(job, RepublishJob)


@pytest.mark.parametrize("flavor", ["another", "old"])
def test_any_flavor_of_the_model_is_refused_it_and_this_once_it_may_be_gone_past(
    rolled_back, flavor
):
    into = None if flavor == "old" else flavor
    options = RepublishOptions(verify="none", new_flavor=into)
    (failure,) = prepare_republish(open_checkout(rolled_back), ["old"], options)
    assert isinstance(failure, Failure)
    assert "was rolled back" in failure.error.what
    options = RepublishOptions(verify="none", new_flavor=into, despite_hold=True)
    (job,) = prepare_republish(open_checkout(rolled_back), ["old"], options)
    assert isinstance(job, RepublishJob)


def test_a_run_that_would_become_it_is_told_of_and_refused(rolled_back, trained):
    add_flavor(rolled_back, "again", trained.good[0])
    (row,) = plan(open_checkout(rolled_back), names=["again"])
    assert any("was rolled back" in note for note in row.notes)
    with pytest.raises(RefusedError, match="was rolled back"):
        publish("again", root=rolled_back, verify="none")


def test_other_source_is_another_version(rolled_back):
    (rolled_back / "projects/doubler/features.py").write_text("SCALE = 4\n")
    commit(rolled_back, "mended")
    (job,) = prepare_republish(open_checkout(rolled_back), ["old"], UNVERIFIED)
    assert isinstance(job, RepublishJob)


def test_no_rollover_begins_to_it_under_another_name(rolled_back):
    add_flavor(rolled_back, "same", versions(rolled_back)["next"])
    places = ("--url", "http://127.0.0.1:1", "--prometheus", "http://127.0.0.1:1")
    code, said = run(rolled_back, "rollover", "start", "--from", "old", "--to", "same", *places)
    assert code == 4, said
    assert "unhold next" in said


def test_unhold_releases_it_though_the_flavor_is_gone_from_the_file(rolled_back):
    git(rolled_back, "checkout", "-q", "HEAD~2", "flavors.yaml")
    assert "next" not in versions(rolled_back)
    commit(rolled_back, "next was not meant to be")
    said = done(rolled_back, "unhold", "next")
    assert "next is no longer held" in said
    last = json.loads(done(rolled_back, "history", "doubler", "--json"))[-1]
    assert (last["kind"], last["facts"]["flavor"]) == ("unheld", "next")
    (job,) = prepare_republish(open_checkout(rolled_back), ["old"], UNVERIFIED)
    assert isinstance(job, RepublishJob)
    assert run(rolled_back, "unhold", "nope")[0] == 2
