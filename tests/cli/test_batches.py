"""Many flavors in one run: how they are dealt to tasks, and what a task does with several."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from adroit_publish.checkout import open_checkout
from adroit_publish.cli.flow import batches
from adroit_publish.cli.flow.batches import TASKS, in_batches, work_on_batch
from adroit_publish.cli.flow.location import Location
from adroit_publish.cli.flow.steps import FlowRelease, work_on
from adroit_publish.config.flavors import parse_flavors
from adroit_publish.errors import ConfigError, StoreError
from adroit_publish.publish.prepare import prepare
from adroit_publish.publish.release import Failure, PublishOptions
from tests.support.checkouts import FLOW, make_checkout


@pytest.fixture
def checkout(tmp_path, trained):
    runs = {"a": trained.good[0], "heavy": trained.weighty, "b": trained.good[1]}
    return make_checkout(tmp_path / "repo", trained.tracking_uri, runs | {"none": "0" * 32})


@pytest.mark.parametrize(
    ("flavors", "per_task", "tasks", "largest"),
    [(1, None, 1, 1), (50, None, 50, 1), (120, None, 50, 3), (1000, None, 50, 20),
     (120, 1, 120, 1), (7, 3, 3, 3), (2, 9, 1, 2)],
)  # fmt: skip
def test_every_flavor_is_in_one_task_and_tasks_are_alike(flavors, per_task, tasks, largest):
    batches = in_batches([None] * flavors, per_task)
    assert len(batches) == tasks
    assert max(map(len, batches)) == largest
    assert max(map(len, batches)) - min(map(len, batches)) <= 1
    assert sorted(place for batch in batches for place in batch) == list(range(flavors))
    assert per_task or len(batches) <= TASKS


@pytest.mark.parametrize("per_task", [0, -1])
def test_a_task_without_flavors_is_refused(per_task):
    with pytest.raises(ConfigError, match="needs a flavor"):
        in_batches([None], per_task)


def test_the_largest_models_begin_first(checkout):
    prepared = prepare(open_checkout(checkout, {}), ["a", "heavy", "b"], PublishOptions())
    assert list(in_batches(prepared, None)[0]) == [1]
    assert [len(batch) for batch in in_batches(prepared, 2)] == [2, 1]


def test_a_task_goes_on_past_a_flavor_that_fails_and_tries_it_again(checkout, monkeypatch):
    names = ["a", "none", "heavy"]
    prepared = prepare(open_checkout(checkout, {}), names, PublishOptions(verify="none"))
    location = Location(str(checkout / "flow.py"), None, None, False, False)
    worked_on = []

    def away_at_first(item, *others):
        worked_on.append(item.flavor if isinstance(item, Failure) else item.flavor.name)
        if worked_on == ["a"] or worked_on[3:] == ["a"]:
            return Failure("a", StoreError("The store is away.", transient=True))
        return work_on(item, *others)

    monkeypatch.setattr(batches, "work_on", away_at_first)
    outcomes = work_on_batch(dict(enumerate(prepared)), location, 3)
    assert worked_on == ["a", "none", "heavy", "a", "a"]
    assert [type(outcomes[place]) for place in range(3)] == [FlowRelease, Failure, FlowRelease]


def test_one_run_with_several_flavors_a_task_publishes_all_but_the_broken_one(checkout):
    flow = [sys.executable, str(FLOW), "run", "--flavors-per-task=2", "--verify=none"]
    done = subprocess.run(
        [*flow, "--flavor=a,none,heavy,b"],
        cwd=checkout,
        env=os.environ | {"HOME": str(checkout.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 3, output
    assert len(set(re.findall(r"/publish/(\d+)", output))) == 2
    summary = [line for line in output.splitlines() if re.search(r"(published|FAILED) +\w", line)]
    named = [re.search(r"(?:published|FAILED) +(\w+)", line)[1] for line in summary]
    assert named == ["a", "none", "heavy", "b"]  # as they were asked for
    flavors = parse_flavors((checkout / "flavors.yaml").read_bytes())
    assert [name for name in flavors if str(flavors[name].version).startswith("v")] == [
        "a", "heavy", "b",
    ]  # fmt: skip
