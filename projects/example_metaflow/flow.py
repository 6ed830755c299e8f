"""Trains the example: one Metaflow run, several sets of hyperparameters side by side.

    python projects/example_metaflow/flow.py run

    start   make the experiment; draw which rows train and which test
    train   (foreach hyperparameters) fit a pipeline, log it to MLflow with its metrics
    rank    (join) order the runs, best first
    end     print them, and the command that publishes the best one

Runs from any directory. MLflow is the server that MLFLOW_TRACKING_URI names; without one, a
database and the models' files under ``.adroit/`` at the repository's root, which git ignores.
Only small values pass between steps: row numbers, metrics, run ids.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from shutil import copytree, ignore_patterns
from typing import TYPE_CHECKING, Any

from metaflow import FlowSpec, step
from metaflow.util import get_username

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

ROOT = Path(__file__).resolve().parents[2]
PROJECT = Path(__file__).resolve().parent.relative_to(ROOT)
LOCAL = ROOT / ".adroit"

EXPERIMENT = "example_metaflow"
HYPERPARAMETERS = (
    {"C": 0.01, "class_weight": None},
    {"C": 0.1, "class_weight": None},
    {"C": 1.0, "class_weight": None},
    {"C": 1.0, "class_weight": "balanced"},
)
RANKED_BY = "test_log_loss"  # lower is better; accuracy ties too often on 143 rows
NEEDED_TO_SERVE = ("mlflow-skinny", "numpy", "pandas", "scikit-learn", "skops")

sys.path.insert(0, str(ROOT))  # `projects.…` is importable from here as it is where it is served
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")


class ExampleMetaflow(FlowSpec):
    """Trains a tumour classifier; ``best_run_id`` is the MLflow run worth publishing."""

    @step
    def start(self) -> None:
        """Makes the experiment before the foreach, so that no two tasks make it at once."""
        from sklearn.model_selection import train_test_split

        from projects.example_metaflow.data_prep import load_tumours

        self.experiment_id = experiment_id(tracking_client(), EXPERIMENT)
        _, labels = load_tumours()
        train, test = train_test_split(range(len(labels)), stratify=labels, random_state=7)
        self.train_rows, self.test_rows = sorted(train), sorted(test)
        self.hyperparameters = HYPERPARAMETERS
        self.next(self.train, foreach="hyperparameters")

    @step
    def train(self) -> None:
        """Fits and logs one model."""
        import mlflow
        from sklearn.metrics import accuracy_score, log_loss

        from projects.example_metaflow.data_prep import load_tumours

        self.params: dict[str, Any] = self.input or {}
        features, labels = load_tumours()
        pipeline = new_pipeline(**self.params)
        pipeline.fit(features.iloc[self.train_rows], labels.iloc[self.train_rows])

        test, truth = features.iloc[self.test_rows], labels.iloc[self.test_rows]
        self.metrics = {
            RANKED_BY: float(log_loss(truth, pipeline.predict_proba(test))),
            "test_accuracy": float(accuracy_score(truth, pipeline.predict(test))),
        }
        mlflow.set_tracking_uri(tracking_uri())
        with mlflow.start_run(experiment_id=self.experiment_id) as run:
            mlflow.log_params(self.params)
            mlflow.log_metrics(self.metrics)
            log_model(pipeline, example=test.head(3))
        self.run_id = run.info.run_id
        self.next(self.rank)

    @step
    def rank(self, inputs: Any) -> None:
        """Orders the runs by the metric that decides, best first."""
        trained = sorted(inputs, key=lambda task: task.metrics[RANKED_BY])
        self.ranking = [(task.run_id, task.metrics, task.params) for task in trained]
        self.best_run_id = self.ranking[0][0]
        self.next(self.end)

    @step
    def end(self) -> None:
        """Prints the ranking and what to type next."""
        print(f"\n{RANKED_BY:<15}{'test_accuracy':<15}{'MLflow run id':<34}hyperparameters")
        for run_id, metrics, params in self.ranking:
            settings = ", ".join(f"{name}={value}" for name, value in params.items())
            scores = f"{metrics[RANKED_BY]:<15.4f}{metrics['test_accuracy']:<15.4f}"
            print(f"{scores}{run_id:<34}{settings}")
        print("\nThis publishes the best one:\n")
        print(
            "python publish_mlflow_model_flow.py run"
            f" --flavor={EXPERIMENT} --mlflow-run-id={self.best_run_id}\n"
        )


def tracking_uri() -> str:
    """Returns where runs are logged: MLFLOW_TRACKING_URI, or the database under ``.adroit/``."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{LOCAL / 'mlflow.db'}"


def tracking_client() -> MlflowClient:
    """Returns a client of the tracking store; a local one has its directory made first."""
    from mlflow.tracking import MlflowClient

    LOCAL.mkdir(exist_ok=True)
    return MlflowClient(tracking_uri())


def experiment_id(client: MlflowClient, name: str) -> str:
    """Returns the id of the experiment called ``name``; makes it where there is none.

    The local database keeps its models' files under ``.adroit/``; a server decides for itself.
    """
    found = client.get_experiment_by_name(name)
    if found is not None:
        return found.experiment_id
    local = not os.environ.get("MLFLOW_TRACKING_URI")
    return client.create_experiment(name, (LOCAL / "artifacts").as_uri() if local else None)


def new_pipeline(**hyperparameters: Any) -> Any:
    """Returns an unfitted pipeline: scale, then logistic regression with these settings."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, **hyperparameters))


def log_model(pipeline: Any, example: Any) -> None:
    """Logs the fitted pipeline to the active MLflow run, as a model that loads on its own.

    Args:
        pipeline: The fitted pipeline.
        example: (rows, features) DataFrame; kept as the input example, and predicted on for
            the signature.
    """
    import mlflow
    from mlflow.models import infer_signature
    from skops.io import dump

    from projects.example_metaflow.model import TumourModel

    with tempfile.TemporaryDirectory() as scratch:
        # Copied to where its import name can be kept and nothing but this project is taken along.
        code = Path(scratch, PROJECT.parts[0])
        unserved = ignore_patterns("flow.py", "config.yaml", "__pycache__", "*.md", "*.ipynb")
        copytree(ROOT / PROJECT, Path(scratch, PROJECT), ignore=unserved)
        dump(pipeline, Path(scratch, "pipeline.skops"))
        sys.dont_write_bytecode = True  # MLflow runs served.py inside the model it is about to log
        mlflow.pyfunc.log_model(
            name="model",
            python_model=str(ROOT / PROJECT / "served.py"),
            artifacts={"pipeline": str(Path(scratch, "pipeline.skops"))},
            code_paths=[str(code)],
            signature=infer_signature(example, TumourModel(pipeline).predict(None, example)),
            input_example=example,
            pip_requirements=pinned_requirements(),
        )


def pinned_requirements() -> list[str]:
    """Returns ``name==version`` of what serving the model needs, as it is installed here."""
    from importlib.metadata import version

    return [f"{name}=={version(name)}" for name in NEEDED_TO_SERVE]


if __name__ == "__main__":
    if get_username() is None:  # root, or nobody named in the environment: Metaflow refuses both
        os.environ["USERNAME"] = "adroit"
    ExampleMetaflow()
