"""Trains the example: one Metaflow run, several sets of hyperparameters side by side.

    python projects/example_metaflow/flow.py run [--publish] [--rows N]

    start   make the experiment; draw which rows train and which test
    train   (foreach hyperparameters) fit a pipeline, log its metrics to an MLflow run of its own
    rank    (join) order the runs, best first; check the best one's model and log it
    end     print them, and the command that publishes the best one; with --publish, publish it

Runs from any directory. MLflow is the server that MLFLOW_TRACKING_URI names; without one, a
database and the models' files under ``.adroit/`` at the repository's root, which git ignores.
Only small values pass between steps: row numbers, metrics, a fitted pipeline of some kilobytes.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent
ROOT = PROJECT.parents[1]
sys.path.insert(0, str(ROOT))  # `projects.…` is importable from here as it is where it is served

from adroit.interpreter import ready_for_metaflow

ready_for_metaflow()

from metaflow import FlowSpec, Parameter, step

FLAVOR = "example_metaflow"
HYPERPARAMETERS = (
    {"C": 0.01, "class_weight": None},
    {"C": 0.1, "class_weight": None},
    {"C": 1.0, "class_weight": None},
    {"C": 1.0, "class_weight": "balanced"},
)
RANKED_BY = "test_log_loss"  # lower is better; accuracy ties too often on 143 rows
NEEDED_TO_SERVE = ("mlflow-skinny", "numpy", "pandas", "scikit-learn", "skops")

os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")


class ExampleMetaflow(FlowSpec):
    """Trains a tumour classifier; ``best_run_id`` is the MLflow run worth publishing."""

    publish = Parameter(
        "publish", is_flag=True, default=False, help="publish the best run when it is trained"
    )
    rows = Parameter("rows", type=int, help="train on so many rows alone: for a rehearsal")

    @step
    def start(self) -> None:
        """Finds the tracking store and makes the experiment, before anything is trained."""
        from sklearn.model_selection import train_test_split

        from adroit.training import NextdoorMLFlowRunPublisher
        from projects.example_metaflow.data_prep import load_tumours

        self.publisher = NextdoorMLFlowRunPublisher("example_metaflow")
        labels = load_tumours()[1][: self.rows]
        train, test = train_test_split(range(len(labels)), stratify=labels, random_state=7)
        self.train_rows, self.test_rows = sorted(train), sorted(test)
        self.hyperparameters = HYPERPARAMETERS
        self.next(self.train, foreach="hyperparameters")

    @step
    def train(self) -> None:
        """Fits one model and logs how good it is."""
        from sklearn.metrics import accuracy_score, log_loss

        from projects.example_metaflow.data_prep import load_tumours

        self.params: dict[str, Any] = self.input or {}
        features, labels = load_tumours()
        self.pipeline = new_pipeline(**self.params)
        self.pipeline.fit(features.iloc[self.train_rows], labels.iloc[self.train_rows])

        test, truth = features.iloc[self.test_rows], labels.iloc[self.test_rows]
        self.metrics = {
            RANKED_BY: float(log_loss(truth, self.pipeline.predict_proba(test))),
            "test_accuracy": float(accuracy_score(truth, self.pipeline.predict(test))),
        }
        with self.publisher:  # each branch has its own: the run begins here
            self.publisher.log_params(self.params)
            self.publisher.log_metrics(self.metrics)
        self.next(self.rank)

    @step
    def rank(self, inputs: Any) -> None:
        """Orders the runs by the metric that decides, and gives the best one its model."""
        from projects.example_metaflow.data_prep import load_tumours

        trained = sorted(inputs, key=lambda task: task.metrics[RANKED_BY])
        self.ranking = [(task.publisher.run_id, task.metrics, task.params) for task in trained]
        self.publisher, pipeline = trained[0].publisher, trained[0].pipeline
        features, labels = load_tumours()
        rows = trained[0].test_rows
        self.logged = log_model(self.publisher, pipeline, features.iloc[rows], labels.iloc[rows])
        self.best_run_id = self.logged.run_id
        self.next(self.end)

    @step
    def end(self) -> None:
        """Prints the ranking and what to type next, or does it."""
        print(f"\n{RANKED_BY:<15}{'test_accuracy':<15}{'MLflow run id':<34}hyperparameters")
        for run_id, metrics, params in self.ranking:
            settings = ", ".join(f"{name}={value}" for name, value in params.items())
            scores = f"{metrics[RANKED_BY]:<15.4f}{metrics['test_accuracy']:<15.4f}"
            print(f"{scores}{run_id:<34}{settings}")
        if self.publish:
            from adroit.training import publish

            self.published_by = publish(self.logged, FLAVOR, ROOT)
        else:
            print(f"\nThis publishes the best one:\n\n{self.logged.publish_command(FLAVOR)}\n")


def new_pipeline(**hyperparameters: Any) -> Any:
    """Returns an unfitted pipeline: scale, then logistic regression with these settings."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, **hyperparameters))


def log_model(publisher: Any, pipeline: Any, features: Any, labels: Any) -> Any:
    """Logs the fitted pipeline as a model that loads on its own, without a pickle.

    Args:
        publisher: Of the run that it belongs to.
        pipeline: The fitted pipeline.
        features: (rows, features) DataFrame that it was not trained on.
        labels: (rows,) what is right for them.
    """
    from skops.io import dump

    from projects.example_metaflow.model import TumourModel

    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "pipeline.skops")
        dump(pipeline, file)
        return publisher.log_model(
            TumourModel,
            artifacts={"pipeline": file},
            X_test=features,
            y_test=labels,
            code_path=PROJECT,
            pip_requirements=pinned_requirements(),
        )


def pinned_requirements() -> list[str]:
    """Returns ``name==version`` of what serving the model needs, as it is installed here."""
    from importlib.metadata import version

    return [f"{name}=={version(name)}" for name in NEEDED_TO_SERVE]


if __name__ == "__main__":
    ExampleMetaflow()
