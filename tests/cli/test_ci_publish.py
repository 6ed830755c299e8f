"""What CI does: .ci/publish run for real against a bare repository, and the workflow around it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from adroit_publish.config.flavors import parse_flavors
from tests.servers.object_servers import ACCESS_KEY, SECRET_KEY, running_moto
from tests.support.checkouts import FLOW, commit, git, make_checkout
from tests.support.git_clones import is_own_commit
from tests.support.requirements import require

ROOT = FLOW.parent
WORKFLOW = ROOT / ".github/workflows/publish.yml"
SCRIPTS = [ROOT / ".ci/publish", ROOT / ".ci/run"]
TARGET = """
[targets.team]
tracking_uri = "{tracking_uri}"
bundles = "s3://{bucket}/bundles"
"""


@pytest.fixture
def merged(tmp_path, trained, monkeypatch):
    """CI's checkout of a bare repository: a waits, b is published and stale, c is broken."""
    with running_moto() as server:
        for name, value in {
            "AWS_ENDPOINT_URL": server.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
            "ADROIT_TARGET": "team",
            "ADROIT_PUBLISH_OPTIONS": "--verify=none",
            "PYTHON": sys.executable,
            "PYTHONPATH": str(ROOT),
            "HOME": str(tmp_path),
        }.items():
            monkeypatch.setenv(name, value)
        for who in ("AUTHOR", "COMMITTER"):
            monkeypatch.setenv(f"GIT_{who}_NAME", "ci")
            monkeypatch.setenv(f"GIT_{who}_EMAIL", "ci@example.invalid")
        lines = TARGET.format(tracking_uri=trained.tracking_uri, bucket=server.new_bucket())
        flavors = {"a": trained.good[0], "b": trained.good[1]}
        root = make_checkout(tmp_path / "repo", trained.tracking_uri, flavors, target_lines=lines)
        for name in ("publish_mlflow_model_flow.py", "republish.py"):
            shutil.copy(ROOT / name, root)
        (root / ".ci").mkdir()
        shutil.copy(ROOT / ".ci/publish", root / ".ci/publish")
        commit(root, "ci")
        bare = tmp_path / "bare.git"
        git(tmp_path, "clone", "-q", "--bare", str(root), str(bare))
        git(tmp_path, "clone", "-q", str(bare), "ci")
        yield tmp_path / "ci", bare


def run(checkout: Path, verb: str, **environ: str) -> tuple[int, str]:
    done = subprocess.run(
        [str(checkout / ".ci/publish"), verb],
        env=os.environ | environ,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def versions(bare: Path) -> dict[str, str | None]:
    data = git(bare, "show", "main:flavors.yaml").encode() + b"\n"
    return {name: flavor.version for name, flavor in parse_flavors(data).items()}


def test_a_merge_is_planned_published_pushed_and_then_there_is_nothing_to_do(merged, tmp_path):
    checkout, bare = merged
    summary = tmp_path / "summary.md"
    code, output = run(checkout, "plan", GITHUB_STEP_SUMMARY=str(summary))
    assert code == 0, output
    assert "### 2 of 2 flavors have something to do" in summary.read_text()
    assert git(checkout, "status", "--porcelain") == ""

    code, output = run(checkout, "publish")
    assert code == 0, output
    first = versions(bare)
    assert all(str(version).startswith("v") for version in first.values())
    assert git(bare, "rev-list", "--count", "main") == "3"
    assert is_own_commit(checkout, "HEAD")
    assert git(checkout, "status", "-sb") == "## main...origin/main"

    # The publisher's own commit leaves nothing to do.
    code, output = run(checkout, "publish")
    assert code == 0, output
    assert git(bare, "rev-list", "--count", "main") == "3"
    code, output = run(checkout, "plan")
    assert "### 0 of 2 flavors have something to do" in output

    # A change of the source is republished; a broken flavor stops no other, and is the exit code.
    (checkout / "projects/doubler/features.py").write_text("SCALE = 3\n")
    text = (checkout / "flavors.yaml").read_text()
    broken = (
        f"c:\n  config: projects/doubler/config.yaml\n  conda_env: plain\n  version: {'e' * 32}\n"
    )
    (checkout / "flavors.yaml").write_text(text + broken)
    commit(checkout, "a change, and a broken flavor")
    git(checkout, "push", "-q")
    code, output = run(checkout, "publish")
    assert code == 3, output
    second = versions(bare)
    assert second["c"] == "e" * 32
    assert {second[name] != first[name] for name in "ab"} == {True}


def test_a_file_with_a_mistake_fails_a_pull_request(merged):
    checkout, _ = merged
    (checkout / "flavors.yaml").write_text("a: [\n")
    code, output = run(checkout, "plan")
    assert code == 2
    assert "flavors.yaml:" in output


@pytest.mark.parametrize("python", ["/bin/false", "/nowhere/python"])
def test_a_plan_that_could_not_be_made_fails_a_pull_request(merged, python):
    code, output = run(merged[0], "plan", PYTHON=python)
    assert code not in (0, 10), output


def test_it_says_how_it_is_used(merged):
    code, output = run(merged[0], "deploy")
    assert (code, "usage" in output) == (2, True)
    code, output = run(merged[0], "plan", ADROIT_TARGET="")
    assert code != 0
    assert "ADROIT_TARGET=eng" in output


def test_the_scripts_are_clean():
    shellcheck = shutil.which("shellcheck")
    require(shellcheck, "shellcheck (apt install shellcheck)")
    subprocess.run([str(shellcheck), *map(str, SCRIPTS)], check=True)


def test_the_workflow_is_one_by_githubs_schema():
    check = Path(sys.executable).with_name("check-jsonschema")
    schema = ["--builtin-schema", "vendor.github-workflows"]
    subprocess.run([str(check), *schema, str(WORKFLOW)], check=True)


def test_a_pull_request_gets_no_secret_and_no_identity():
    jobs = YAML(typ="safe").load(WORKFLOW)["jobs"]
    plan, publish = jobs["plan"], jobs["publish"]
    assert plan["permissions"] == {"contents": "read"}
    assert "secrets." not in str(plan)
    assert "configure-aws-credentials" not in str(plan)
    assert plan["steps"][0]["with"]["persist-credentials"] is False
    assert publish["permissions"] == {"contents": "write", "id-token": "write"}
    assert "github.ref == 'refs/heads/main'" in publish["if"]
    assert "github.event_name == 'push'" in publish["if"]
    assert "Adroit-Publish:" in publish["if"]
    assert publish["concurrency"] == {"group": "publish", "cancel-in-progress": False}
    on = YAML(typ="safe").load(WORKFLOW)["on"]
    assert "pull_request_target" not in on
    assert {job["steps"][-1].get("run") or job["steps"][-1]["run"] for job in jobs.values()} == {
        ".ci/publish plan",
        ".ci/publish publish",
    }
