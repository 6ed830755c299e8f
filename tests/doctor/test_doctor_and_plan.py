"""``doctor`` has no opinion about a flavor: what ``plan`` decides changes no row of it.

The files that both read are another matter: what is wrong with them, both say in the same words.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from adroit_publish import publish
from adroit_publish.checkout import open_checkout
from adroit_publish.cli.doctor import read_metaflow
from adroit_publish.decide import State
from adroit_publish.doctor.checks import examine
from adroit_publish.publish.planning import plan
from tests.support.checkouts import commit, make_checkout

PROJECT = "projects/doubler"


@pytest.fixture
def checkout(tmp_path, trained):
    root = make_checkout(tmp_path / "repo", trained.tracking_uri, {"a": trained.good[0]})
    config = root / PROJECT / "config.yaml"
    config.write_text(config.read_text().partition("verify:")[0])
    commit(root, "accept no edit of what nothing imports")
    return root


def planned(root: Path):
    (row,) = plan(open_checkout(root, os.environ))
    return row


def rows(root: Path):
    """Doctor's rows; of the commit, which is another one each time, without its digest."""
    checks = examine(root, None, os.environ, read_metaflow())
    return [
        replace(check, found=check.found.rpartition(" ")[0])
        if check.name == "git checkout"
        else check
        for check in checks
    ]


def edit(root: Path, path: str, old: str, new: str) -> None:
    text = (root / path).read_text()
    assert old in text
    (root / path).write_text(text.replace(old, new))
    commit(root, "edit")


def test_no_row_of_doctor_depends_on_what_plan_decides(checkout, trained):
    states = {planned(checkout).state: rows(checkout)}
    publish("a", root=checkout, verify="none")
    commit(checkout, "published")
    published = planned(checkout)
    version = str(published.version)
    states[published.state] = rows(checkout)
    for path, old, new in (
        ("environment.yml", "3.11", "3.11, pip"),
        (f"{PROJECT}/features.py", "2", "3"),
        (f"{PROJECT}/config.yaml", "doubler\nserve:", "doubler\nserve:\n  workers: 2"),
        ("flavors.yaml", "# of a", "# of a\n  hold: p99 is up"),
        ("flavors.yaml", f"{version}   # of a\n  hold: p99 is up", "v00000000-000000000000"),
        ("flavors.yaml", "  version: v00000000-000000000000", "  version:"),
    ):
        edit(checkout, path, old, new)
        states[planned(checkout).state] = rows(checkout)
    assert set(states) == set(State) - {State.CANNOT, State.ROLLING_OVER}
    assert {check.name for check in states[State.PUBLISH]} > {"bundle store", "config.yaml"}
    models = "models: none yet", "models: doubler"  # in the store, before the publish and after it
    first = [
        replace(check, found=check.found.replace(*models))
        if check.name == "bundle store"
        else check
        for check in states[State.PUBLISH]
    ]
    assert all(found == first for state, found in states.items() if state is not State.PUBLISH)


@pytest.mark.parametrize(
    ("path", "old", "new", "check"),
    [
        (f"{PROJECT}/config.yaml", "model_name: doubler", "model_name: other", "config.yaml"),
        ("flavors.yaml", "conda_env: plain", "conda_env: plian", "conda_envs.yaml"),
        ("conda_envs.yaml", "plain:", "plain: [", "conda_envs.yaml"),
    ],
)
def test_files_that_plan_cannot_judge_by_are_problems_of_doctor(checkout, path, old, new, check):
    publish("a", root=checkout, verify="none")
    edit(checkout, path, old, new)
    row = planned(checkout)
    assert row.state is State.CANNOT
    assert row.error
    (problem,) = [found for found in rows(checkout) if found.state == "problem"]
    assert problem.name == check
    assert problem.found.startswith(row.error.what)
    assert problem.exit_code == row.error.exit_code
