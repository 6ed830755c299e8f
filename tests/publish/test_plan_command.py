"""``plan``, ``hold`` and ``unhold``, on a real checkout with published flavors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from adroit_publish import publish, republish
from adroit_publish.checkout import open_checkout
from adroit_publish.decide import State
from adroit_publish.errors import ConfigError
from adroit_publish.publish.planning import plan
from tests.support.checkouts import commit, git, make_checkout


@pytest.fixture
def checkout(tmp_path, trained):
    """a and b are published; c holds a run id."""
    flavors = {"a": trained.weighty, "b": trained.good[0], "c": trained.good[1]}
    root = make_checkout(tmp_path / "repo", trained.tracking_uri, flavors)
    for flavor in "ab":
        publish(flavor, root=root, verify="none")
    commit(root, "published")
    return root


def states(root: Path, *names: str) -> dict[str, State]:
    return {each.flavor: each.state for each in plan(open_checkout(root, {}), None, names)}


def run(root: Path, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "adroit_publish", *arguments],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin"},
    )
    return done.returncode, done.stdout + done.stderr


def files(root: Path) -> dict[str, int]:
    kept = (path for path in root.rglob("*") if ".git/" not in str(path) and path.is_file())
    return {str(path): path.stat().st_mtime_ns for path in kept}


def test_what_makes_nothing_stale(checkout):
    project = checkout / "projects/doubler"
    (checkout / "README.md").write_text("words\n")
    (checkout / "projects/other").mkdir()
    (checkout / "projects/other/model.py").write_text("OTHER = 1\n")
    (project / "config.yaml").write_text("# words\n" + (project / "config.yaml").read_text())
    (project / "flow.py").write_text("TRAINING = 1\n")
    (project / "notes.md").write_text("words\n")
    commit(checkout, "nothing that serves")
    assert states(checkout, "a", "b") == {"a": State.UP_TO_DATE, "b": State.UP_TO_DATE}
    assert run(checkout, "plan", "--flavor=a,b")[0] == 0


def test_a_changed_include_makes_a_flavor_stale(checkout):
    config = checkout / "projects/doubler/config.yaml"
    config.write_text(config.read_text() + "source:\n  include: [projects/common]\n")
    (checkout / "projects/common").mkdir()
    shared = checkout / "projects/common/text.py"
    shared.write_text("A = 1\n")
    commit(checkout, "include")
    republish("a", root=checkout, verify="none")
    assert states(checkout, "a") == {"a": State.UP_TO_DATE}
    shared.write_text("A = 2\n")
    commit(checkout, "change the include")
    (row,) = plan(open_checkout(checkout, {}), None, ["a"])
    assert (row.state, row.why) == (State.REPUBLISH, ("changed projects/common/text.py",))


def test_it_foretells_the_version_the_bytes_and_the_line_and_writes_nothing(checkout):
    (checkout / "projects/doubler/features.py").write_text("SCALE = 3\n")
    commit(checkout, "change")
    before = files(checkout)
    (row,) = plan(open_checkout(checkout, {}), None, ["a"])
    assert files(checkout) == before
    release = republish("a", root=checkout, verify="none")
    (place,) = release.places
    assert row.new_version == release.version
    assert row.send_bytes == {place: release.sent_bytes(place)}
    assert row.reuse_bytes == {place: release.reused_bytes(place)}
    lines = (checkout / "flavors.yaml").read_text().splitlines()
    assert row.line
    assert lines[row.line.number - 1] == row.line.after != row.line.before


def test_a_run_id_is_resolved_and_what_cannot_be_is_a_row(checkout, trained):
    text = (checkout / "flavors.yaml").read_text()
    text += (
        f"d:\n  config: projects/doubler/config.yaml\n  conda_env: plain\n  version: {'f' * 32}\n"
    )
    text += "e:\n  config: projects/doubler/config.yaml\n  conda_env: plain\n"
    text += "f:\n  config: projects/doubler/config.yaml\n  conda_env: plain\n"
    text += "  version: v00000000-000000000000\n"
    (checkout / "flavors.yaml").write_text(text)
    rows = {each.flavor: each for each in plan(open_checkout(checkout, {}), None, ())}
    assert {name: row.state for name, row in rows.items()} == {
        "a": State.UP_TO_DATE,
        "b": State.UP_TO_DATE,
        "c": State.PUBLISH,
        "d": State.CANNOT,
        "e": State.NO_VERSION,
        "f": State.OTHER_TARGET,
    }
    assert rows["c"].model == f"model of run {trained.good[1]}"
    assert rows["c"].line
    assert rows["c"].line.after == f"  version: v{trained.good[1][:8]}-...   # of c"
    assert "f" * 32 in str(rows["d"].error)
    code, output = run(checkout, "plan", "--json")
    assert code == 3
    assert {row["flavor"]: row["state"] for row in json.loads(output)}["d"] == "cannot"


def test_something_to_do_is_exit_code_10_and_a_table_for_a_summary(checkout):
    code, output = run(checkout, "plan", "--flavor", "a,c", "--markdown")
    assert code == 10
    assert "1 of 2 flavors have something to do" in output
    assert output.count("\n|") == 4
    code, output = run(checkout, "plan", "--flavor", "nope")
    assert code == 2, output


def test_a_held_flavor_is_named_with_its_reason_until_it_is_no_longer(checkout):
    before = (checkout / "flavors.yaml").read_bytes()
    code, output = run(checkout, "hold", "c", "--why", "p99 is up | by half")
    assert code == 0, output
    assert states(checkout, "c") == {"c": State.HELD}
    code, output = run(checkout, "plan", "--flavor=c", "--markdown")
    assert (code, "p99 is up &#124; by half" in output) == (0, True)
    assert run(checkout, "hold", "nope", "--why", "x")[0] == 2
    assert run(checkout, "unhold", "c")[0] == 0
    assert (checkout / "flavors.yaml").read_bytes() == before
    assert "was not held" in run(checkout, "unhold", "c")[1]
    assert git(checkout, "status", "--porcelain") == ""


def test_another_env_digest_is_told_and_makes_nothing_stale(checkout):
    (checkout / "environment.yml").write_text("dependencies: [python=3.11, pip]\n")
    commit(checkout, "env")
    (row,) = plan(open_checkout(checkout, {}), None, ["a"])
    assert row.state is State.ENV_MOVED
    assert not row.to_do
    assert "republish.py --flavor a --env" in row.notes[0]


def test_an_unknown_target_is_an_error_of_the_request(checkout):
    with pytest.raises(ConfigError, match="local"):
        plan(open_checkout(checkout, {}), "nowhere", ())
