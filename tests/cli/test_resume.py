"""A flavor that fails fails the run, after its card; ``resume`` does what is missing."""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from adroit_publish import publish
from adroit_publish.config.flavors import parse_flavors
from tests.support.checkouts import FLOW, commit, git, make_checkout

REPUBLISH = FLOW.parent / "republish.py"
NOPE = "adroit.serving.mlflow_handler:Nope"
RIGHT = "adroit.serving.mlflow_handler:MlflowHandler"
LOOK = """
import sys, metaflow
metaflow.namespace(None)
flow = metaflow.Flow(sys.argv[1])
print(flow[sys.argv[2]].successful, flow.latest_successful_run and flow.latest_successful_run.id)
"""


@pytest.fixture
def checkout(tmp_path, trained):
    """Flavors a, of the project doubler, and b, of the project tripler, of which each has a run."""
    flavors = {"a": trained.good[0], "b": trained.good[1]}
    root = make_checkout(tmp_path / "repo", trained.tracking_uri, flavors)
    shutil.copytree(root / "projects/doubler", root / "projects/tripler")
    config = root / "projects/tripler/config.yaml"
    config.write_text(config.read_text().replace("doubler", "tripler"))
    text = (root / "flavors.yaml").read_text()
    first, second = text[: text.index("b:")], text[text.index("b:") :]
    (root / "flavors.yaml").write_text(first + second.replace("doubler", "tripler"))
    commit(root, "a second project")
    return root


def run(root: Path, program: Path, *arguments: str) -> tuple[int, str, str]:
    """Runs a flow; returns its exit code, its output and the id of its run."""
    done = subprocess.run(
        [sys.executable, str(program), *arguments, "--run-id-file=run-id"],
        cwd=root,
        env=os.environ | {"HOME": str(root.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    (root / ".git/info/exclude").write_text("run-id\n")
    return done.returncode, done.stdout + done.stderr, (root / "run-id").read_text()


def metaflow_says(root: Path, flow: str, run_id: str) -> list[str]:
    """Returns whether a run was successful, and the id of the flow's last one that was."""
    command = [sys.executable, "-c", LOOK, flow, run_id]
    done = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
    return done.stdout.split()


def card_of(root: Path, run_id: str) -> str:
    (card,) = root.glob(f".metaflow/**/{run_id}/**/cards/*.html")
    (data,) = re.findall(r'__MF_DATA__\["[^"]*"\] = "([^"]+)"', card.read_text())
    return base64.b64decode(data).decode()


def versions(root: Path) -> dict[str, str | None]:
    flavors = parse_flavors((root / "flavors.yaml").read_bytes())
    return {name: flavor.version and str(flavor.version) for name, flavor in flavors.items()}


def set_handler(root: Path, project: str, old: str, new: str) -> None:
    config = root / "projects" / project / "config.yaml"
    config.write_text(config.read_text().replace(old, new))
    commit(root, f"handler {new}")


def test_a_publish_of_which_one_flavor_failed_is_resumed(checkout):
    set_handler(checkout, "tripler", RIGHT, NOPE)
    code, output, first = run(checkout, FLOW, "run", "--flavor=a,b", "--commit")
    assert code == 6, output
    assert "FAILED     b: " in output
    assert "Traceback" not in output
    assert "Internal error" not in output
    after = versions(checkout)
    assert str(after["a"]).startswith("v")
    assert "b: not published" in card_of(checkout, first)
    assert metaflow_says(checkout, "PublishMlflowModelFlow", first) == ["False", "None"]

    code, output, again = run(checkout, FLOW, "resume", f"--origin-run-id={first}")
    assert code == 6, output  # the cause is still there
    assert metaflow_says(checkout, "PublishMlflowModelFlow", again) == ["False", "None"]

    set_handler(checkout, "tripler", NOPE, RIGHT)
    code, output, last = run(checkout, FLOW, "resume", f"--origin-run-id={again}")
    assert code == 0, output
    now = versions(checkout)
    assert now["a"] == after["a"]
    assert str(now["b"]).startswith("v")
    card = card_of(checkout, last)
    assert str(now["a"]) in card
    assert str(now["b"]) in card
    assert git(checkout, "status", "--porcelain") == ""
    assert metaflow_says(checkout, "PublishMlflowModelFlow", last) == ["True", last]


def test_a_flavor_that_start_refused_is_published_by_resume(checkout, trained):
    text = (checkout / "flavors.yaml").read_text()
    (checkout / "flavors.yaml").write_text(text.replace(trained.good[1], "e" * 32))
    code, output, first = run(checkout, FLOW, "run", "--pending")
    assert code == 3, output
    assert metaflow_says(checkout, "PublishMlflowModelFlow", first) == ["False", "None"]
    text = (checkout / "flavors.yaml").read_text()
    (checkout / "flavors.yaml").write_text(text.replace("e" * 32, trained.good[1]))
    code, output, last = run(checkout, FLOW, "resume", f"--origin-run-id={first}")
    assert code == 0, output
    assert all(str(version).startswith("v") for version in versions(checkout).values())
    assert metaflow_says(checkout, "PublishMlflowModelFlow", last) == ["True", last]


def test_a_run_that_start_refused_as_a_whole_begins_again(checkout, trained):
    text = (checkout / "flavors.yaml").read_text()
    (checkout / "flavors.yaml").write_text(text.replace(trained.good[1], "e" * 32))
    code, output, first = run(checkout, FLOW, "run", "--flavor=b")
    assert code == 3, output
    (checkout / "flavors.yaml").write_text(text)
    code, output, last = run(checkout, FLOW, "resume", f"--origin-run-id={first}")
    assert code == 0, output
    assert str(versions(checkout)["b"]).startswith("v")
    assert metaflow_says(checkout, "PublishMlflowModelFlow", last) == ["True", last]


def test_a_commit_that_was_refused_is_made_by_resume(checkout):
    lock = checkout / ".git" / (git(checkout, "symbolic-ref", "HEAD") + ".lock")
    lock.touch()
    code, output, first = run(checkout, FLOW, "run", "--flavor=a,b", "--commit")
    assert code not in (0, 1), output
    assert metaflow_says(checkout, "PublishMlflowModelFlow", first) == ["False", "None"]
    lock.unlink()
    code, output, last = run(checkout, FLOW, "resume", f"--origin-run-id={first}")
    assert code == 0, output
    assert all(str(version).startswith("v") for version in versions(checkout).values())
    assert git(checkout, "status", "--porcelain") == ""
    assert metaflow_says(checkout, "PublishMlflowModelFlow", last) == ["True", last]


def test_a_republish_of_which_one_flavor_failed_is_resumed(checkout):
    for flavor in ("a", "b"):
        publish(flavor, root=checkout)
    commit(checkout, "published")
    before = versions(checkout)
    (checkout / "projects/doubler/features.py").write_text("SCALE = 3\n")
    set_handler(checkout, "tripler", RIGHT, NOPE)
    code, output, first = run(checkout, REPUBLISH, "--stale")
    assert code == 6, output
    after = versions(checkout)
    assert after["a"] != before["a"]
    assert after["b"] == before["b"]
    assert metaflow_says(checkout, "RepublishModelFlow", first) == ["False", "None"]
    set_handler(checkout, "tripler", NOPE, RIGHT)
    (checkout / "projects/tripler/features.py").write_text("SCALE = 3\n")
    commit(checkout, "mended")
    code, output, last = run(checkout, REPUBLISH, "resume", f"--origin-run-id={first}")
    assert code == 0, output
    now = versions(checkout)
    assert now["a"] == after["a"]
    assert now["b"] != before["b"]
    assert metaflow_says(checkout, "RepublishModelFlow", last) == ["True", last]
