"""``python republish.py``, and --commit and --push of both flows, as they are run."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from adroit_publish import publish
from adroit_publish.config.flavors import parse_flavors
from adroit_publish.stores.bundle_store import BundleStore
from adroit_publish.stores.directory import DirectoryObjects
from adroit_publish.stores.records import records
from tests.support.checkouts import FLOW, commit, git, make_checkout

REPUBLISH = FLOW.parent / "republish.py"


def run(root: Path, *arguments: str, program: Path = REPUBLISH) -> tuple[int, str]:
    """Runs a flow in ``root``; returns its exit code and its output."""
    identity = {
        f"GIT_{who}_{what}": value
        for who in ("AUTHOR", "COMMITTER")
        for what, value in (("NAME", "t"), ("EMAIL", "t@example.invalid"))
    }
    done = subprocess.run(
        [sys.executable, str(program), *arguments],
        cwd=root,
        env=os.environ | {"HOME": str(root.parent)} | identity,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def versions(root: Path) -> dict[str, str | None]:
    flavors = parse_flavors((root / "flavors.yaml").read_bytes())
    return {name: flavor.version for name, flavor in flavors.items()}


def change_source(root: Path, text: str = "SCALE = 3\n") -> str:
    (root / "projects/doubler/features.py").write_text(text)
    return commit(root, "change")


def manifest_of(root: Path, version: str | None) -> dict:
    """Reads a manifest with json and hashlib alone."""
    bundles = root / ".adroit/bundles"
    index = json.loads((bundles / f"doubler/{version}/index.json").read_text())
    name = index["manifests"][0]["digest"].removeprefix("sha256:")
    data = (bundles / "blobs/sha256" / name).read_bytes()
    assert hashlib.sha256(data).hexdigest() == name
    return json.loads(data)


@pytest.fixture
def published(tmp_path, trained):
    """A checkout whose flavors a (20 MiB of weights) and b are published, and committed."""
    flavors = {"a": trained.weighty, "b": trained.good[0]}
    root = make_checkout(tmp_path / "repo", trained.tracking_uri, flavors)
    for flavor in flavors:
        publish(flavor, root=root, verify="process" if flavor == "b" else "none")
    commit(root, "published")
    return root


def test_the_proof_is_what_both_manifests_say(published):
    old = versions(published)["a"]
    change_source(published)
    code, output = run(published, "--flavor", "a", "--verify", "none")
    assert code == 0, output
    new = versions(published)["a"]
    assert f"republished  a: {old} -> {new}" in output
    before, after = manifest_of(published, old), manifest_of(published, new)

    def layers(manifest, *kinds):
        own = (each for each in manifest["layers"] if "adroit.layer" in each["annotations"])
        return {
            each["digest"]: each["size"]
            for each in own
            if each["annotations"]["adroit.layer"] in kinds
        }

    weights = layers(before, "model")
    assert weights == layers(after, "model")
    assert sum(weights.values()) > 20 << 20
    for digest, size in weights.items():
        assert f"{digest}  {size:,} bytes" in output
    sent = layers(after, "model", "runtime", "source", "record")
    for digest in layers(before, "model", "runtime", "source", "record"):
        sent.pop(digest, None)
    assert f"{sum(sent.values()):,} bytes sent" in output
    assert "changed    projects/doubler/features.py" in output
    assert len(list(published.glob(".metaflow/**/cards/*.html"))) == 1


def test_nothing_changed_is_nothing_to_do(published):
    before = versions(published)
    (published / "README.md").write_text("A readme makes nothing stale.\n")
    config = published / "projects/doubler/config.yaml"
    config.write_text("# Neither does a comment.\n" + config.read_text())
    commit(published, "words")
    code, output = run(published, "--flavor", "a,b")
    assert code == 0, output
    assert output.count("nothing to do") == 2
    code, output = run(published, "--stale", "--commit")
    assert code == 0, output
    assert "No flavor is stale." in output
    assert versions(published) == before


def test_the_card_has_the_checklist_of_a_live_rollover_and_the_record_has_not(published):
    point = ("sitevar", "set", "doubler", "a", "--why", "the first one")
    places = ("--url", "http://127.0.0.1:1", "--metrics", "http://127.0.0.1:1")
    begin = ("rollover", "start", "--from", "a", "--to", "b", *places)
    for arguments in (point, begin):
        command = [sys.executable, "-m", "adroit_publish", *arguments]
        environ = os.environ | {"PYTHONPATH": str(FLOW.parent)}
        subprocess.run(command, cwd=published, env=environ, check=True)
    change_source(published)
    code, output = run(published, "--flavor", "a", "--verify", "none", "--despite-rollover")
    assert code == 0, output
    (card,) = published.glob(".metaflow/**/cards/*.html")
    (data,) = re.findall(r'__MF_DATA__\["[^"]*"\] = "([^"]+)"', card.read_text())
    text = base64.b64decode(data).decode()
    assert "Rollover of doubler: a to b (proposed)" in text
    assert "\\u2611 new flavor published: b" in text
    (picture,) = re.findall(r"data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)", text)
    assert "Share of the traffic" in base64.b64decode(picture).decode()
    store = BundleStore(DirectoryObjects(published / ".adroit/bundles"))
    found = store.find("doubler", str(versions(published)["a"]))
    assert found is not None
    assert all("rollover" not in record.document for record in records(store, found))


def test_a_new_flavor_stands_beside_the_old_one(published):
    old = versions(published)["b"]
    change_source(published)
    code, output = run(published, "--flavor", "b", "--new-flavor", "b2", "--commit")
    assert code == 0, output
    now = versions(published)
    assert list(now) == ["a", "b", "b2"]
    assert now["b"] == old != now["b2"]
    assert git(published, "status", "--porcelain") == ""
    shown = git(published, "show", "--stat", "--format=%s", "HEAD")
    assert f"b2 {now['b2']}" in shown
    assert "1 file changed" in shown


def test_stale_takes_all_that_changed_and_one_that_fails_stops_no_other(published):
    before = versions(published)
    change_source(published)
    (published / ".adroit/bundles/doubler" / str(before["b"]) / "index.json").write_text("{}")
    code, output = run(published, "--stale", "--verify", "none", "--commit")
    assert code not in (0, 1), output
    now = versions(published)
    assert now["a"] != before["a"]
    assert now["b"] == before["b"]
    assert "FAILED     b" in output
    assert "republished  a" in output
    assert git(published, "log", "-1", "--format=%s").startswith("Publish a v")


def test_what_is_held_is_left_alone_and_named(published):
    before = versions(published)
    text = (published / "flavors.yaml").read_text()
    (published / "flavors.yaml").write_text(text.replace("# of b", '# of b\n  hold: "too slow"'))
    change_source(published)
    code, output = run(published, "--stale", "--verify", "none")
    assert code == 0, output
    assert "b is held: too slow" in output
    assert versions(published)["b"] == before["b"]
    code, output = run(published, "--flavor", "b", "--verify", "none")
    assert code == 4, output
    assert "--despite-hold" in output
    code, output = run(published, "--flavor", "b", "--verify", "none", "--despite-hold")
    assert code == 0, output
    assert versions(published)["b"] != before["b"]


def test_other_outputs_stop_it_and_leave_everything_as_it_was(published):
    """The model doubles; its handler now halves what comes out."""
    handler = """\
        from adroit.serving.mlflow_handler import MlflowHandler

        class Halving(MlflowHandler):
            def predict(self, inputs, params=None):
                return super().predict(inputs, params) / 2
        """
    project = published / "projects/doubler"
    lines = [line[8:] for line in handler.splitlines()]
    (project / "handler.py").write_text("\n".join(lines) + "\n")
    config = (project / "config.yaml").read_text()
    (project / "config.yaml").write_text(
        config.replace(
            "adroit.serving.mlflow_handler:MlflowHandler", "projects.doubler.handler:Halving"
        )
    )
    commit(published, "halve")
    before = (published / "flavors.yaml").read_bytes()
    stored = sorted((published / ".adroit/bundles/doubler").iterdir())
    code, output = run(published, "--flavor", "b", "--commit")
    assert code == 6, output
    assert "--accept-output-change" in output
    assert (published / "flavors.yaml").read_bytes() == before
    assert sorted((published / ".adroit/bundles/doubler").iterdir()) == stored
    assert git(published, "log", "-1", "--format=%s") == "halve"
    code, output = run(published, "--flavor", "b", "--accept-output-change")
    assert code == 0, output
    assert versions(published)["b"] not in before.decode()


def test_the_older_spelling_names_a_version(published):
    config = "projects/doubler/config.yaml"
    old = str(versions(published)["b"])
    change_source(published)
    older = ("--model_name", "doubler", "--version", old, "--config_path", config)
    code, output = run(published, *older, "--verify", "none", "-v")
    assert code == 0, output
    new = str(versions(published)["b"])
    assert new != old
    code, output = run(published, *older, "--verify", "none")  # nobody has the old one now
    assert code == 0, output
    assert f"no flavor has it: {old} -> {new}" in output
    text = (published / "flavors.yaml").read_text()
    (published / "flavors.yaml").write_text(text + text[text.index("b:") :].replace("b:", "c:", 1))
    code, output = run(
        published, "--model_name", "doubler", "--version", new, "--config_path", config
    )
    assert code == 2, output
    assert "b, c" in output
    assert "republish.py --flavor b" in output


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "--stale"),
        (["--flavor", "a", "--stale"], 2, "both --flavor and --stale"),
        (["--flavor", "nope"], 2, "a, b"),
        (["--model_name", "doubler"], 2, "--config_path"),
        (["--flavor", "a", "--push"], 4, "--push is refused"),
        (["--flavor", "a,b", "--new-flavor", "c"], 2, "one flavor"),
        (
            [
                *("--model_name", "doubler", "--config_path", "projects/doubler/config.yaml"),
                *("--version", "v00000000-000000000000"),
            ],
            2,
            "no version v00000000-000000000000",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_one_message(published, arguments, code, said):
    before = (published / "flavors.yaml").read_bytes()
    got, output = run(published, *arguments)
    assert got == code, output
    assert said in output
    assert "Traceback" not in output
    assert (published / "flavors.yaml").read_bytes() == before


S3_TARGET = """
[targets.s3]
tracking_uri = "{tracking_uri}"
bundles = "s3://{bucket}/bundles"
"""


@pytest.fixture
def team(tmp_path, trained, monkeypatch):
    """Four clones of one bare repository, each with a flavor to publish; and a bucket."""
    from tests.servers.object_servers import ACCESS_KEY, SECRET_KEY, running_moto

    with running_moto() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        bucket = server.new_bucket()
        root = make_checkout(
            tmp_path / "repo",
            trained.tracking_uri,
            dict.fromkeys("abcd", trained.good[0]),
            target_lines=S3_TARGET.format(tracking_uri=trained.tracking_uri, bucket=bucket),
        )
        bare = tmp_path / "bare.git"
        git(tmp_path, "clone", "-q", "--bare", str(root), str(bare))
        clones = []
        for name in "abcd":
            git(tmp_path, "clone", "-q", str(bare), name)
            clones.append(tmp_path / name)
        yield bare, clones


def test_four_jobs_push_at_once_and_a_fifth_that_conflicts_stops_with_both_values(team, trained):
    bare, clones = team
    arguments = ("--target=s3", "--verify=none", "--push")
    late = clones[0].parent / "late"
    git(bare.parent, "clone", "-q", str(bare), "late")

    def publish_own(clone: Path) -> tuple[int, str]:
        return run(clone, "run", f"--flavor={clone.name}", *arguments, program=FLOW)

    with ThreadPoolExecutor(4) as pool:
        for code, output in pool.map(publish_own, clones):
            assert code == 0, output
            assert "pushed to origin/main" in output
    data = git(bare, "show", "main:flavors.yaml").encode()
    landed = {name: flavor.version for name, flavor in parse_flavors(data + b"\n").items()}
    assert all(re.fullmatch(r"v[0-9a-f]{8}-[0-9a-f]{12}", str(v)) for v in landed.values())
    assert git(bare, "rev-list", "--count", "main") == "5"

    # The publisher's own commits leave nothing to do.
    git(clones[0], "pull", "-q", "--rebase")
    code, output = run(clones[0], "run", "--pending", *arguments, program=FLOW)
    assert (code, "No flavor waits" in output) == (0, True), output

    # A fifth job, whose checkout is older, wants another version of the same flavor.
    other = f"--mlflow-run-id={trained.good[1]}"
    code, output = run(late, "run", "--flavor=a", other, *arguments, program=FLOW)
    assert code == 4, output
    assert str(landed["a"]) in output
    assert trained.good[0] in output
    assert git(bare, "rev-list", "--count", "main") == "5"
