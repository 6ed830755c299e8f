"""The training example, run for real, as a newcomer would run it.

One run serves the whole module. It happens in a copy of ``projects/`` and ``adroit/`` that is a git
repository of its own, from another directory than the root, with an empty home and no user name.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
FLOW = "projects/example_metaflow/flow.py"
NOT_SERVED = shutil.ignore_patterns("config.yaml", "flow.py", "tests", "*.md", "__pycache__")


@dataclass(frozen=True)
class Trained:
    """One finished training run: where it ran, and what it printed."""

    root: Path
    elsewhere: Path
    printed: str

    @property
    def ranking(self) -> list[tuple[float, str]]:
        """(log loss, MLflow run id) of each row of the printed table, in its order."""
        rows = re.findall(r"\] (\d\.\d{4}) .* ([0-9a-f]{32}) ", self.printed)
        return [(float(loss), run_id) for loss, run_id in rows]

    @property
    def models(self) -> list[Path]:
        return sorted((self.root / ".adroit/artifacts/models").glob("m-*/artifacts"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    root = tmp_path_factory.mktemp("clone")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for part in ("adroit", "projects"):
        shutil.copytree(ROOT / part, root / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / ".gitignore", root)
    git(root, "init", "--quiet")
    git(root, "add", ".")
    environ = os.environ | {"HOME": str(tmp_path_factory.mktemp("home"))}
    environ["METAFLOW_UI_URL"] = "https://ui.example/"
    for name in ("METAFLOW_USER", "PYTHONDONTWRITEBYTECODE", "SUDO_USER", "USER", "USERNAME"):
        environ.pop(name, None)
    run = subprocess.run(
        [sys.executable, root / FLOW, "run", "--run-id-file", "run-id"],
        cwd=elsewhere,
        env=environ | ({} if os.geteuid() == 0 else {"USER": "tester"}),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
    )
    assert run.returncode == 0, run.stdout
    return Trained(root, elsewhere, run.stdout)


def git(root: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=root, check=True, text=True, stdout=subprocess.PIPE
    ).stdout


def python(code: str, *, cwd: Path, **environ: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env=os.environ | environ,
        check=True,
        text=True,
        stdout=subprocess.PIPE,
    ).stdout.strip()


def test_the_table_ranks_several_runs_best_first(trained: Trained) -> None:
    losses = [loss for loss, _ in trained.ranking]
    assert len(losses) >= 3
    assert losses == sorted(losses)
    assert losses[0] < losses[-1]


def test_the_last_words_are_the_command_that_publishes_the_best_run(trained: Trained) -> None:
    commands = re.findall(r"python publish_mlflow_model_flow\.py .*", trained.printed)
    assert commands == [
        "python publish_mlflow_model_flow.py run"
        f" --flavor=example_metaflow --mlflow-run-id={trained.ranking[0][1]}"
    ]


def test_the_best_run_id_is_an_artifact_of_the_flow(trained: Trained) -> None:
    read = (
        "import metaflow; metaflow.namespace(None);"
        "print(metaflow.Run('ExampleMetaflow/' + open('run-id').read()).data.best_run_id)"
    )
    assert python(read, cwd=trained.elsewhere) == trained.ranking[0][1]


def test_a_newcomer_sees_no_warnings(trained: Trained) -> None:
    assert not re.findall(r".*(?:[Ww]arning|WARN|Traceback).*", trained.printed)


def test_git_sees_nothing_of_a_training_run(trained: Trained) -> None:
    assert (trained.root / ".adroit/mlflow.db").is_file()
    untracked = git(trained.root, "ls-files", "--others", "--exclude-standard")
    assert untracked == ""
    assert git(trained.root, "diff", "--name-only") == ""


def test_each_run_carries_its_parameters_and_metrics_and_the_best_a_described_model(
    trained: Trained,
) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{trained.root}/.adroit/mlflow.db")
    models = []
    for loss, run_id in trained.ranking:
        run = client.get_run(run_id)
        assert run.info.status == "FINISHED"
        assert set(run.data.params) == {"C", "class_weight"}
        assert run.data.metrics["test_log_loss"] == pytest.approx(loss, abs=1e-4)
        assert run.data.metrics["test_accuracy"] > 0.9
        models.append(len(run.outputs.model_outputs))
    assert models == [1, 0, 0, 0]
    described = YAML(typ="safe").load(trained.models[0] / "MLmodel")
    assert described["run_id"] == trained.ranking[0][1]
    assert described["signature"]["inputs"]
    assert '"probability"' in described["signature"]["outputs"]
    assert described["saved_input_example_info"]["type"] == "dataframe"
    assert described["flavors"]["python_function"]["code"] == "code"


def test_the_runs_lead_to_metaflow_and_metaflow_to_the_best_run(trained: Trained) -> None:
    from mlflow.tracking import MlflowClient

    run_id = (trained.elsewhere / "run-id").read_text()
    client = MlflowClient(f"sqlite:///{trained.root}/.adroit/mlflow.db")
    tasks = set()
    for _, each in trained.ranking:
        tags = client.get_run(each).data.tags
        assert tags["metaflow.flow"] == "ExampleMetaflow"
        assert tags["metaflow.run"] == f"ExampleMetaflow/{run_id}"
        assert tags["metaflow.step"] == "train"
        assert tags["metaflow.user"]
        assert tags["metaflow.url"] == f"https://ui.example/ExampleMetaflow/{run_id}"
        tasks.add(tags["metaflow.task"])
    assert len(tasks) == len(trained.ranking)
    read = (
        "import metaflow; metaflow.namespace(None);"
        f"print(*metaflow.Run('ExampleMetaflow/{run_id}').user_tags)"
    )
    assert python(read, cwd=trained.elsewhere) == f"mlflow:{trained.ranking[0][1]}"


@pytest.mark.parametrize("with_source", [True, False], ids=["with_source", "on_its_own"])
def test_a_model_predicts_in_a_clean_process(
    trained: Trained, tmp_path: Path, with_source: bool
) -> None:
    """Laid out as in a bundle: the root directory as cwd, the source layer on the path or not."""
    shutil.copytree(trained.models[0], tmp_path / "model")
    shutil.copytree(trained.root / "projects", tmp_path / "source/projects", ignore=NOT_SERVED)
    predict = (
        "import json, sys, mlflow.pyfunc\n"
        f"model = mlflow.pyfunc.load_model({str(tmp_path / 'model')!r})\n"
        "rows = model.input_example.assign(unknown_column=1.0)\n"
        "print(model.predict(rows).to_json(orient='records'))"
    )
    path = {"PYTHONPATH": str(tmp_path / "source")} if with_source else {}
    answers = json.loads(python(predict, cwd=Path("/"), HOME=str(tmp_path), **path))
    assert len(answers) == 3
    for answer in answers:
        assert answer["label"] in {"benign", "malignant"}
        assert 0.5 <= answer["probability"] <= 1.0


def test_the_serving_environment_holds_what_the_model_requires(trained: Trained) -> None:
    environment = YAML(typ="safe").load(ROOT / "conda_envs/sklearn/environment.yml")
    installed = next(each["pip"] for each in environment["dependencies"] if isinstance(each, dict))
    here = "python={}.{}".format(*sys.version_info)
    # The lock gives newer Pythons newer versions; what they train is not for this environment.
    exact = here in environment["dependencies"]
    for model in trained.models:
        required = (model / "requirements.txt").read_text().split()
        assert len(required) == 5
        assert without_versions(required) <= without_versions(installed)
        assert not exact or set(required) <= set(installed)


def without_versions(requirements: list[str]) -> set[str]:
    return {requirement.partition("==")[0] for requirement in requirements}


def test_rows_without_a_column_are_refused_by_its_name() -> None:
    from projects.example_metaflow.data_prep import as_features, load_tumours

    features, _ = load_tumours()
    with pytest.raises(ValueError, match="missing columns: mean_radius, worst_texture"):
        as_features(features.drop(columns=["mean_radius", "worst_texture"]))


def test_the_columns_reach_the_model_in_its_own_order() -> None:
    from projects.example_metaflow.data_prep import FEATURES, as_features, load_tumours

    features, labels = load_tumours()
    assert features.shape == (569, len(FEATURES))
    assert set(labels) == {"benign", "malignant"}
    shuffled = features[sorted(FEATURES, reverse=True)].assign(unknown_column=1)
    assert tuple(as_features(shuffled).columns) == FEATURES
