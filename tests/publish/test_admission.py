"""A run that is not the flavor's, and one whose numbers do not pass, get no version unasked."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from textwrap import dedent

import pytest

from adroit_publish import publish, republish
from adroit_publish.checkout import open_checkout
from adroit_publish.cli.diff.sections import sections
from adroit_publish.decide import State
from adroit_publish.errors import ConfigError, RefusedError
from adroit_publish.places import open_store
from adroit_publish.publish.planning import plan
from adroit_publish.stores.ledger import append
from adroit_publish.stores.records import records
from adroit_publish.versions.diff import diff
from tests.support.checkouts import DOUBLER, commit, make_checkout


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Run ids by name; the model of each doubles its input."""
    import mlflow
    import pandas as pd
    from mlflow import MlflowClient

    directory = tmp_path_factory.mktemp("runs")
    code = directory / "model.py"
    code.write_text(dedent(DOUBLER))
    uri = f"sqlite:///{directory}/mlflow.db"
    client = MlflowClient(uri)
    mlflow.set_tracking_uri(uri)
    experiments = {
        name: client.create_experiment(name, artifact_location=(directory / name).as_uri())
        for name in ("doubler", "fraud")
    }
    example = pd.DataFrame({"x": [1.0, 2.0], "y": [3.0, 4.0]})

    def log(experiment, auc, rows=example, flow="DoublerFlow"):
        tags = {"metaflow.run": f"{flow}/1"}
        with mlflow.start_run(experiment_id=experiments[experiment], tags=tags) as run:
            mlflow.pyfunc.log_model(
                name="model",
                python_model=str(code),
                pip_requirements=["mlflow"],
                input_example=rows,
            )
            mlflow.log_metric("test_auc", auc)
        return str(run.info.run_id)

    made = {
        "uri": uri,
        "first": log("doubler", 0.9),
        "better": log("doubler", 0.95),
        "worse": log("doubler", 0.85),
        "fraud": log("fraud", 0.9),
        "other flow": log("doubler", 0.9, flow="FraudFlow"),
        "narrow": log("doubler", 0.9, rows=example[["x"]]),
    }
    mlflow.set_tracking_uri(None)
    return made


@pytest.fixture
def root(tmp_path, runs):
    return make_checkout(tmp_path / "repo", runs["uri"], {"a": runs["first"], "b": ""})


def gated(root: Path, gates: str) -> None:
    config = root / "projects/doubler/config.yaml"
    config.write_text(config.read_text() + f"gates:\n  {gates}\n")
    commit(root, "gates")


def versions(root: Path) -> list[str]:
    store = open_store(open_checkout(root, {}).target(None))
    return [str(published.version) for published in store.versions("doubler")]


def last_record(root: Path, version: str):
    store = open_store(open_checkout(root, {}).target(None))
    return records(store, store.get(version))[-1]


@pytest.mark.parametrize(
    ("name", "got", "wanted"),
    [
        ("fraud", "experiment: fraud (id 2)", "experiment: doubler (id 1)"),
        ("other flow", "flow: FraudFlow", "flow: DoublerFlow"),
        ("narrow", "signature: no other column", "signature: inputs y: double"),
    ],
)
def test_a_run_that_is_not_the_models_is_refused_with_both_sides_and_accepted_by_name(
    root, runs, name, got, wanted
):
    publish("a", root=root, verify="none")
    before = (root / "flavors.yaml").read_bytes(), versions(root)
    with pytest.raises(RefusedError) as caught:
        publish("b", root=root, run_id=runs[name], verify="none")
    assert got in caught.value.got
    assert wanted in caught.value.wanted
    assert "--accept-new-lineage" in caught.value.next_step
    assert ((root / "flavors.yaml").read_bytes(), versions(root)) == before

    release = publish("b", root=root, run_id=runs[name], verify="none", accept_new_lineage=True)
    record = last_record(root, release.version)
    assert [line.partition(":")[0] for line in record.accepted_lineage] == [got.partition(":")[0]]
    assert record.lineage == release.lineage
    assert any(line.startswith("accepted: ") for line in release.warnings)
    commit(root, "published")
    # From then on it is one of the model's own.
    assert publish("b", root=root, run_id=runs[name], verify="none").version == release.version


def test_a_record_of_before_says_what_it_says(root, runs, monkeypatch):
    """Versions whose records have no lineage are compared by their flow and their signature."""
    from adroit_publish.publish import finish as finishing

    real = finishing._record

    def of_before(*arguments):
        document = json.loads(real(*arguments))
        return json.dumps({key: document[key] for key in document if "lineage" not in key}).encode()

    monkeypatch.setattr(finishing, "_record", of_before)
    first = publish("a", root=root, verify="none")
    assert last_record(root, first.version).lineage is None
    for name, what in (("other flow", "flow"), ("narrow", "signature")):
        with pytest.raises(RefusedError, match=what):
            publish("b", root=root, run_id=runs[name], verify="none")
    assert publish("b", root=root, run_id=runs["fraud"], verify="none").news


def test_plan_shows_the_run_and_what_would_be_refused(root, runs):
    publish("a", root=root, verify="none")
    flavors = root / "flavors.yaml"
    flavors.write_text(
        flavors.read_text().replace("version:    # of b", f"version: {runs['fraud']}")
    )
    (row,) = plan(open_checkout(root, {}), None, ["b"])
    assert (row.state, row.error.exit_code) == (State.CANNOT, 4)
    assert row.run["experiment"] == "fraud"
    assert row.run["metrics"] == {"test_auc": 0.9}
    assert row.run["started_utc"].startswith("20")
    done = subprocess.run(
        [sys.executable, "-m", "adroit_publish", "plan", "--flavor=b"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 4
    assert f"run {row.run['name']!r} of experiment fraud, started 20" in done.stdout
    assert "metric test_auc: 0.9" in done.stdout


def test_a_gate_on_a_metric_refuses_before_the_model_is_pulled_and_is_accepted_with_a_reason(
    root, runs
):
    gated(root, "test_auc: {min: 0.8, max_drop: 0.01}")
    first = publish("a", root=root, verify="none")
    assert [result.problem for result in first.gates] == [None]
    with pytest.raises(RefusedError, match=r"0\.05 less than the live version's") as caught:
        publish("b", root=root, run_id=runs["worse"], verify="none")
    assert '--accept-gate "test_auc=REASON"' in caught.value.next_step
    assert not any(runs["worse"][:8] in path.name for path in (root / ".adroit/cache").iterdir())

    accepted = ["test_auc=a test set without duplicates"]
    with pytest.raises(ConfigError, match="NAME=REASON"):
        publish("b", root=root, run_id=runs["worse"], verify="none", accept_gates=["test_auc"])
    worse = publish("b", root=root, run_id=runs["worse"], verify="none", accept_gates=accepted)
    (kept,) = last_record(root, worse.version).gates
    assert (kept["gate"], kept["value"], kept["live"]) == ("test_auc", 0.85, 0.9)
    assert kept["accepted"] == "a test set without duplicates"

    checkout = open_checkout(root, {})
    store = open_store(checkout.target(None))
    facts = sections(diff(checkout, store, first.version, worse.version))[0].rows
    assert any("a test set without duplicates" in "".join(row) for row in facts)
    shown = subprocess.run(
        [sys.executable, "-m", "adroit_publish", "show", worse.version],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin"},
    )
    assert "accepted: a test set without duplicates" in shown.stdout


def test_the_live_version_is_the_one_that_most_requests_go_to(root, runs):
    gated(root, "test_auc: {max_drop: 0.01}")
    live = publish("a", root=root, verify="none")
    publish("b", root=root, run_id=runs["worse"], verify="none", accept_gates=["test_auc=a trial"])
    last = {"flavor": "b", "version": versions(root)[-1], "weight": 10.0}
    shares = [{"flavor": "a", "version": live.version, "weight": 90.0}, last]
    store = open_store(open_checkout(root, {}).target(None))
    now = datetime.now(UTC)
    append(store, "doubler", "pointed", {"live": shares}, key="k", who="tester", now=now)
    with pytest.raises(RefusedError, match=r"live 0\.9"):
        publish("b", root=root, run_id=runs["worse"], verify="none")


def test_plan_shows_each_gate(root, runs):
    gated(root, "test_auc: {min: 0.92}\n  loss: {max: 1}")
    (row,) = plan(open_checkout(root, {}), None, ["a"])
    assert row.state == State.CANNOT
    assert [result.problem for result in row.gates] == ["less than 0.92", "there is no such value"]
    assert json.dumps(row.as_dict()["gates"])


def test_a_gate_on_what_is_measured_refuses_after_the_verification_and_nothing_is_visible(root):
    gated(root, "load_s: {max: 0.0001}\n  peak_mib: {min: 1}\n  size_mib: {max: 0.0001}")
    with pytest.raises(RefusedError) as caught:
        publish("a", root=root)
    assert "load_s" in caught.value.got
    assert "size_mib" in caught.value.got
    assert "peak_mib" not in caught.value.got
    assert versions(root) == []
    release = publish("a", root=root, accept_gates=["load_s=cold", "size_mib=it is so"])
    assert {result.gate: result.accepted for result in release.gates} == {
        "load_s": "cold", "peak_mib": None, "size_mib": "it is so",
    }  # fmt: skip


def test_latency_is_measured_by_row_and_a_republish_has_to_pass_too(root):
    gated(root, "latency_ms_per_row: {max: 60000}\n  test_auc: {min: 0.8}")
    first = publish("a", root=root)
    latency = {result.gate: result.value for result in first.gates}["latency_ms_per_row"]
    seconds = first.verification["predict_seconds"]
    assert latency == pytest.approx(seconds * 1000 / 2)  # the input example has two rows
    config = root / "projects/doubler/config.yaml"
    config.write_text(config.read_text().replace("60000", "0.000001"))
    (root / "projects/doubler/features.py").write_text("SCALE = 3\n")
    commit(root, "a stricter gate")
    with pytest.raises(RefusedError, match="latency_ms_per_row"):
        republish("a", root=root)
    again = republish("a", root=root, accept_gates=["latency_ms_per_row=slow machine"])
    assert [result.gate for result in again.gates] == ["latency_ms_per_row"]
    assert again.lineage == first.lineage


def test_what_nobody_measured_passes_no_gate(root):
    gated(root, "load_s: {max: 100}")
    with pytest.raises(RefusedError, match="there is no such value"):
        publish("a", root=root, verify="none")
