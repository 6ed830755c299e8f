"""A secret in what would be packed stops a publish in its first step; nothing is uploaded."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from adroit_publish import publish, republish
from adroit_publish.bundle.digest import Digest
from adroit_publish.cli.commands import cli
from adroit_publish.errors import DirtyTree, RefusedError
from tests.support.checkouts import commit, make_checkout

TOKEN = "ghp_" + "a1B2c3D4e5F6" * 3
LEAK = f"TOKEN = '{TOKEN}'\n"


@pytest.fixture
def checkout(tmp_path, trained, monkeypatch):
    root = make_checkout(tmp_path / "repo", trained.tracking_uri, {"a": trained.good[0]})
    monkeypatch.chdir(root)
    return root


def write(root, path, text):
    place = root / "projects/doubler" / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)


def config(root, section):
    place = root / "projects/doubler/config.yaml"
    place.write_text(place.read_text() + section)


def run(*arguments):
    done = CliRunner().invoke(cli, [*arguments, "--json"], catch_exceptions=False)
    return done.exit_code, json.loads(done.stdout)


def packed(root, version):
    index = json.loads((root / ".adroit/bundles/doubler" / version / "index.json").read_text())
    blobs = root / ".adroit/bundles/blobs/sha256"
    hexadecimal = index["manifests"][0]["digest"].removeprefix("sha256:")
    manifest = json.loads((blobs / hexadecimal).read_text())
    source = next(
        layer for layer in manifest["layers"] if "source" in json.dumps(layer["annotations"])
    )
    return (blobs / source["digest"].removeprefix("sha256:")).read_bytes()


@pytest.mark.parametrize(
    ("path", "text", "shown"),
    [
        ("client.py", LEAK, "projects/doubler/client.py:1: GitHub token"),
        ("secrets/prod.pem", "x\n", "projects/doubler/secrets/prod.pem: private key"),
    ],
)
def test_a_secret_of_the_project_is_refused_before_anything_is_pulled(checkout, path, text, shown):
    write(checkout, path, text)
    commit(checkout, "a secret")
    with pytest.raises(RefusedError) as refused:
        publish("a", root=checkout, verify="none")
    assert shown in str(refused.value)
    assert TOKEN not in str(refused.value)
    assert not list((checkout / ".adroit/bundles").rglob("*.json"))
    assert not (checkout / ".adroit/cache").exists()
    code, plans = run("plan")
    assert plans[0]["state"] == "cannot"
    assert shown in plans[0]["error"]["got"]
    assert code != 0


def test_a_secret_in_the_serve_section_is_part_of_bundle_json_and_refused(checkout):
    place = checkout / "projects/doubler/config.yaml"
    kwargs = f"model_name: doubler\n      api_token: {TOKEN}"
    place.write_text(place.read_text().replace("      model_name: doubler", f"      {kwargs}"))
    commit(checkout, "a secret")
    with pytest.raises(RefusedError, match=r"config\.yaml \(serve\)"):
        publish("a", root=checkout, verify="none")


def test_a_republish_and_its_plan_are_refused_as_well(checkout):
    version = publish("a", root=checkout, verify="none").version
    flavors = checkout / "flavors.yaml"
    assert version in flavors.read_text()
    write(checkout, "client.py", LEAK)
    commit(checkout, "a secret")
    with pytest.raises(RefusedError, match="looks like secrets"):
        republish("a", root=checkout, verify="none")
    _, plans = run("plan")
    assert "client.py:1: GitHub token" in plans[0]["error"]["got"]


def test_a_waiver_is_by_digest_and_lands_in_the_record(checkout):
    write(checkout, "client.py", LEAK)
    config(checkout, f"security: {{allow_secrets: ['{Digest.of(LEAK.encode())}']}}\n")
    commit(checkout, "no secret at all")
    version = publish("a", root=checkout, verify="none").version
    _, shown = run("show", version)
    findings = shown["records"][0]["verification"]["findings"]
    assert "waived: projects/doubler/client.py:1: GitHub token" in [f["what"] for f in findings]
    write(checkout, "client.py", LEAK + "X = 1\n")
    commit(checkout, "other bytes")
    with pytest.raises(RefusedError):
        republish("a", root=checkout, verify="none")


def test_what_is_no_source_is_left_out_and_stops_nothing(checkout):
    write(checkout, ".env.production", LEAK)
    write(checkout, ".ipynb_checkpoints/a.py", LEAK)
    config(checkout, "source: {include: [lib]}\n")
    (checkout / "lib/mlruns").mkdir(parents=True)
    (checkout / "lib/mlruns/x.yaml").write_text(LEAK)
    (checkout / "lib/tills.py").write_text("RATE = 2\n")
    commit(checkout, "settings")
    write(checkout, ".env", LEAK)  # and git does not know this one
    data = packed(checkout, publish("a", root=checkout, verify="none").version)
    assert b"lib/tills.py" in data
    assert TOKEN.encode() not in data
    assert b".env" not in data


def test_a_secret_or_an_output_that_git_does_not_know_is_not_to_be_committed(checkout):
    write(checkout, "id_rsa", "x")
    write(checkout, "train.csv", "1,2\n")
    with pytest.raises(DirtyTree) as refused:
        publish("a", root=checkout, verify="none")
    step = str(refused.value.next_step)
    assert step.startswith("do not commit id_rsa")
    assert "add train.csv to .gitignore" in step
    assert "commit them" not in step
    write(checkout, "features.py", "SCALE = 3\n")
    with pytest.raises(DirtyTree, match="commit the others"):
        publish("a", root=checkout, verify="none")


def test_plan_names_data_that_would_be_packed(checkout):
    write(checkout, "table.csv", "1,2\n" * 2_500_000)
    commit(checkout, "data")
    _, plans = run("plan")
    assert any("table.csv would be packed, 10,000,000 bytes" in note for note in plans[0]["notes"])
