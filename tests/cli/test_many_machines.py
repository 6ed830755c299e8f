"""Steps on machines that have no checkout: a code package of .py files, S3, and a clone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from adroit_publish.config.flavors import parse_flavors
from adroit_publish.errors import ConfigError, SourceError, StoreError
from adroit_publish.git.clone import check_repository, clone
from tests.servers.object_servers import ACCESS_KEY, SECRET_KEY, running_moto
from tests.support.checkouts import FLOW, commit, git, make_checkout

ROOT = FLOW.parent
TARGET = """
[targets.team]
tracking_uri = "{tracking_uri}"
bundles = "s3://{bucket}/bundles"
"""


@pytest.fixture
def cluster(tmp_path, trained, monkeypatch):
    """A bare repository, S3 for bundles and for Metaflow, and a code package of .py files alone."""
    with running_moto() as server:
        for name, value in {
            "AWS_ENDPOINT_URL": server.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
            "METAFLOW_S3_ENDPOINT_URL": server.endpoint,
            "METAFLOW_DATASTORE_SYSROOT_S3": f"s3://{server.new_bucket()}/metaflow",
        }.items():
            monkeypatch.setenv(name, value)
        for who in ("AUTHOR", "COMMITTER"):
            monkeypatch.setenv(f"GIT_{who}_NAME", "ci")
            monkeypatch.setenv(f"GIT_{who}_EMAIL", "ci@example.invalid")
        lines = TARGET.format(tracking_uri=trained.tracking_uri, bucket=server.new_bucket())
        flavors = {"a": trained.good[0], "b": trained.good[1]}
        root = make_checkout(tmp_path / "repo", trained.tracking_uri, flavors, target_lines=lines)
        bare = tmp_path / "bare.git"
        git(tmp_path, "clone", "-q", "--bare", str(root), str(bare))
        package = tmp_path / "package"
        package.mkdir()
        programs = [ROOT / "publish_mlflow_model_flow.py", ROOT / "republish.py"]
        for path in [*programs, *ROOT.glob("adroit*/**/*.py")]:
            place = package / path.relative_to(ROOT)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())
        yield bare, package, tmp_path


HOST_OF_ITS_OWN = """
import os, sys, tempfile

if "step" in sys.orig_argv and "run" not in sys.orig_argv:
    os.environ["HOME"] = tempfile.mkdtemp(dir=os.environ["HOSTS"])
    os.chdir(os.environ["HOME"])
"""
"""A sitecustomize.py: each step's process begins in a directory and a home of its own."""


def run(package: Path, hosts: Path, *arguments: str) -> tuple[int, str]:
    """Runs a flow on S3, each of its steps as on a host of its own: no file but the package's."""
    for directory in (hosts / "site", hosts / "tmp"):
        directory.mkdir(parents=True, exist_ok=True)
    (hosts / "site/sitecustomize.py").write_text(HOST_OF_ITS_OWN)
    environ = {
        "PYTHONPATH": f"{hosts}/site:{package}",
        "HOSTS": str(hosts),
        "HOME": str(hosts),
        "TMPDIR": str(hosts / "tmp"),
        "METAFLOW_USER": "pod",
        "METAFLOW_DATASTORE_SYSROOT_LOCAL": str(hosts / "metadata"),
    }
    done = subprocess.run(
        [sys.executable, str(package / arguments[0]), "--datastore=s3", *arguments[1:]],
        cwd=hosts,
        env=os.environ | environ,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def landed(bare: Path) -> dict[str, str | None]:
    data = git(bare, "show", "main:flavors.yaml").encode() + b"\n"
    return {name: flavor.version for name, flavor in parse_flavors(data).items()}


def test_steps_without_a_checkout_publish_and_push_from_a_clone(cluster):
    bare, package, tmp_path = cluster
    place = ("--target=team", "--verify=none", f"--repo={bare}", "--branch=main", "--push")
    flow = ("publish_mlflow_model_flow.py", "run", "--pending")
    code, output = run(package, tmp_path / "hosts", *flow, *place)
    assert code == 0, output
    first = landed(bare)
    assert all(str(version).startswith("v") for version in first.values())
    assert git(bare, "rev-list", "--count", "main") == "2"
    git(tmp_path, "clone", "-q", str(bare), "mine")
    (tmp_path / "mine/projects/doubler/features.py").write_text("SCALE = 3\n")
    commit(tmp_path / "mine", "change")
    git(tmp_path / "mine", "push", "-q")
    code, output = run(package, tmp_path / "hosts", "republish.py", "run", "--stale", *place)
    assert code == 0, output
    second = landed(bare)
    assert {second[name] == first[name] for name in first} == {False}
    hosts = tmp_path / "hosts"
    assert len(list(hosts.glob("tmp*"))) > 8  # each step had its own
    assert not list(hosts.glob("tmp/adroit-clone-*"))


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--repo=REPO"], 2, "--repo goes with --push"),
        (["--repo=https://jane:secret@example.com/x", "--push"], 2, "an address that holds one"),
        (["--repo=https://secret@example.com/x", "--push"], 2, "an address that holds one"),
        (["--repo=ext::sh -c id", "--push"], 2, "https://HOST/PATH"),
        (["--repo=/nowhere.git", "--push"], 5, "git clone failed"),
        (["--repo=REPO", "--branch=nope", "--push"], 5, "branch nope"),
    ],
)
def test_what_cannot_be_cloned_or_would_be_lost_is_refused(cluster, options, code, said):
    bare, package, tmp_path = cluster
    options = [option.replace("REPO", str(bare)) for option in options]
    flow = ("publish_mlflow_model_flow.py", "run", "--pending", "--target=team")
    got, output = run(package, tmp_path / "hosts", *flow, *options)
    assert got == code, output
    assert said in output
    assert "secret" not in output.replace("SECRET", "")


def test_a_clone_is_of_the_commit_that_was_planned(tmp_path):
    origin = tmp_path / "origin"
    origin.mkdir()
    git(origin, "init", "-q", "-b", "main")
    (origin / "x").write_text("1")
    first = commit(origin, "first")
    (origin / "x").write_text("2")
    commit(origin, "second")
    clone(str(origin), "main", tmp_path / "clone", first)
    assert (tmp_path / "clone/x").read_text() == "1"
    with pytest.raises(SourceError):
        clone(str(origin), "main", tmp_path / "other", "f" * 40)
    with pytest.raises(StoreError):
        clone(str(tmp_path / "nowhere"), None, tmp_path / "third")
    with pytest.raises(ConfigError):
        clone("--upload-pack=touch x", None, tmp_path / "fourth")
    for address in ("https://h/p", "ssh://git@h/p.git", "git@h:o/r.git", "/a/b", "file:///a"):
        check_repository(address)


@pytest.mark.parametrize("flow", ["publish_mlflow_model_flow.py", "republish.py"])
def test_both_flows_render_as_argo_workflows(cluster, flow):
    _, package, tmp_path = cluster
    options = ("--with=kubernetes:image=python:3.11", "argo-workflows", "create", "--only-json")
    code, output = run(package, tmp_path / "hosts", flow, *options)
    assert code == 0, output
    rendered = json.loads(output[output.index("{") : output.rindex("}") + 1])
    steps = {template["name"] for template in rendered["spec"]["templates"]}
    assert {"start", "record", "end"} <= steps
    parameters = {each["name"] for each in rendered["spec"]["arguments"]["parameters"]}
    assert {"flavor", "repo", "branch", "push"} <= parameters
