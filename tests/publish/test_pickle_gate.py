"""A pickle that imports what no model needs stops a publish before anything is uploaded."""

from __future__ import annotations

import json
import os
import pickle
from textwrap import dedent

import pytest
from click.testing import CliRunner

from adroit_publish import publish
from adroit_publish.cli.commands import cli
from adroit_publish.errors import RefusedError
from tests.support.checkouts import DOUBLER, commit, make_checkout


class Evil:
    def __reduce__(self):
        return os.system, ("id",)


@pytest.fixture
def logged(tmp_path, trained):
    """Logs a model with one more file; returns its run's id."""

    def log(name: str, data: bytes) -> str:
        import mlflow

        (tmp_path / name).write_bytes(data)
        (tmp_path / "model_code.py").write_text(dedent(DOUBLER))
        mlflow.set_tracking_uri(trained.tracking_uri)
        with mlflow.start_run(
            experiment_id=mlflow.get_experiment_by_name("t").experiment_id
        ) as run:
            mlflow.pyfunc.log_model(
                name="model",
                python_model=str(tmp_path / "model_code.py"),
                artifacts={"extra": str(tmp_path / name)},
                pip_requirements=["mlflow"],
            )
        return run.info.run_id

    return log


def checkout_of(tmp_path, trained, run_id, section=""):
    root = make_checkout(tmp_path / "repo", trained.tracking_uri, {"a": run_id})
    config = root / "projects/doubler/config.yaml"
    config.write_text(config.read_text() + section)
    commit(root, "waived")
    return root


def test_a_hostile_pickle_is_refused_before_anything_is_uploaded(tmp_path, trained, logged):
    root = checkout_of(tmp_path, trained, logged("extra.dat", pickle.dumps(Evil())), "# x\n")
    with pytest.raises(RefusedError) as refused:
        publish("a", root=root, verify="none")
    assert "model/artifacts/extra.dat imports posix.system" in str(refused.value.got)
    assert not [path for path in (root / ".adroit/bundles").rglob("*") if path.is_file()]


def test_a_waived_name_and_every_import_stand_in_the_record(tmp_path, trained, logged, monkeypatch):
    waiver = "security: {allow_pickle_globals: [posix.system]}\n"
    root = checkout_of(tmp_path, trained, logged("extra.pkl", pickle.dumps(Evil())), waiver)
    version = publish("a", root=root, verify="none").version
    monkeypatch.chdir(root)
    shown = json.loads(CliRunner().invoke(cli, ["show", version, "--json"]).stdout)
    verification = shown["records"][0]["verification"]
    assert verification["imports"]["pickled"] == {"artifacts/extra.pkl": ["posix.system"]}
    assert "pickle:posix.system" in [finding["name"] for finding in verification["findings"]]
