"""What a run was trained on: from the tracking store into the record, the card and ``show``."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Dataset as Logged
from mlflow.entities import DatasetInput, InputTag, Run, RunData, RunInfo, RunInputs

from adroit_publish import publish, republish
from adroit_publish.bundle.lineage import Dataset
from adroit_publish.cli.flow.card import components
from adroit_publish.mlflow.datasets import datasets_of
from tests.support.checkouts import FLOW, Trained, commit, make_checkout


def run_with(*logged: DatasetInput) -> Run:
    info = RunInfo("a" * 32, "1", "me", "FINISHED", 0, 0, "active")
    return Run(info, RunData(), RunInputs(dataset_inputs=list(logged)))


def logged(source: str, context: str | None = "training", name: str = "homes") -> DatasetInput:
    tags = [InputTag("mlflow.data.context", context)] if context else []
    return DatasetInput(Logged(name, "1a2b", "s3", source), tags)


@pytest.mark.parametrize(
    ("source", "kept"),
    [
        ('{"uri": "s3://bucket/homes.parquet"}', "s3://bucket/homes.parquet"),
        ('{"url": "https://me:canary@host/a.csv?X-Amz-Signature=canary#x"}', "https://host/a.csv"),
        ('{"path": "main.ads.homes"}', "main.ads.homes"),
        ('{"tags": {"mlflow.user": "me"}}', "s3"),
        ("no JSON", "s3"),
        ("[" * 100_000, "s3"),
        ('{"uri": 7}', "s3"),
        ('{"uri": "s3://b/\\u001b[31m"}', "s3://b/?[31m"),
    ],
)
def test_a_source_is_kept_without_what_may_not_be_shown(source: str, kept: str) -> None:
    assert datasets_of(run_with(logged(source))) == (Dataset("homes", "1a2b", kept, "training"),)


def test_datasets_are_few_short_and_each_once() -> None:
    long = logged('{"uri": "s3://b/a"}', None, "h" * 10_000)
    many = [logged("", name=str(number)) for number in range(1000)]
    first, *rest = datasets_of(run_with(long, long, *many))
    assert (len(first.name), first.context, len(rest)) == (500, "", 98)
    assert datasets_of(Run(run_with().info, RunData())) == ()


def test_a_version_says_what_it_was_trained_on(tmp_path: Path, trained: Trained) -> None:
    shutil.copy(trained.tracking_uri.removeprefix("sqlite:///"), tmp_path / "mlflow.db")
    tracking_uri = f"sqlite:///{tmp_path}/mlflow.db"
    dataset = logged('{"uri": "s3://me:canary@bucket/homes?canary"}')
    MlflowClient(tracking_uri).log_inputs(trained.good[0], datasets=[dataset])
    root = make_checkout(tmp_path / "repo", tracking_uri, {"a": trained.good[0]})
    first = publish("a", root=root)
    (root / "projects/doubler/features.py").write_text("SCALE = 3\n")
    config = root / "projects/doubler/config.yaml"
    config.write_text(config.read_text().replace("verify:\n", "  workers: 2\nverify:\n"))
    commit(root, "again")
    again = republish("a", root=root)
    line = "training: homes 1a2b, from s3://bucket/homes"
    for release in (first, again):
        assert [str(one) for one in release.datasets] == [line]
        assert json.loads(json.dumps(release.as_dict()))["datasets"][0]["digest"] == "1a2b"
        shown = subprocess.run(
            [sys.executable, "-m", "adroit_publish", "show", release.version], cwd=root,
            env=os.environ | {"PYTHONPATH": str(FLOW.parent)},
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        assert line in shown
        assert "canary" not in shown
    assert line in "\n".join(str(vars(part)) for part in components([first], "1", {}))
