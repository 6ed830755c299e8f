"""Trains in a SageMaker training job, and logs what came of it from here.

    python projects/example_sagemaker/flow.py --datastore=s3 run [--publish]

    start   make the experiment; draw which rows train and which test
    train   (a training job) fit a classifier of handwritten digits
    log     check the model on its own and log it, where MLflow can be reached
    end     print how good it is and what to type next; with --publish, publish it

``MF_IGNORE_SAGEMAKER=true`` runs ``train`` on this machine, with any datastore.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # Metaflow finds @in_sagemaker there

from adroit.interpreter import ready_for_metaflow

ready_for_metaflow()

from metaflow import FlowSpec, Parameter, in_sagemaker, retry, step

ROOT = Path(__file__).resolve().parents[2]
FLAVOR = "example_sagemaker"
NEEDED_TO_SERVE = ("mlflow-skinny", "numpy", "pandas", "scikit-learn", "skops")

os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")


class ExampleSagemaker(FlowSpec):
    """Trains a classifier of digits; ``logged`` is what publishing needs."""

    publish = Parameter("publish", is_flag=True, default=False, help="publish what was trained")

    @step
    def start(self) -> None:
        """Finds the tracking store and draws the rows, before anything is paid for."""
        from sklearn.model_selection import train_test_split

        from adroit.training import NextdoorMLFlowRunPublisher

        self.publisher = NextdoorMLFlowRunPublisher("example_sagemaker")
        _, digits = load_digits()
        self.train_rows, self.test_rows = train_test_split(
            list(range(len(digits))), stratify=digits, random_state=7
        )
        self.next(self.train)

    @retry(times=1)
    @in_sagemaker(instance_type="ml.m5.xlarge", volume_size=50, max_run=3600)
    @step
    def train(self) -> None:
        """Fits the classifier; what is set on ``self`` is there in the next step."""
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        images, digits = load_digits()
        self.pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        self.pipeline.fit(images.iloc[self.train_rows], digits.iloc[self.train_rows])
        score = self.pipeline.score(images.iloc[self.test_rows], digits.iloc[self.test_rows])
        self.accuracy = float(score)
        self.publisher.trained_here()
        self.next(self.log)

    @step
    def log(self) -> None:
        """Logs the model, with the training job among the run's tags."""
        from importlib.metadata import version

        images, digits = load_digits()
        with self.publisher as publisher:
            publisher.log_metrics({"test_accuracy": self.accuracy})
            self.logged = publisher.log_model(
                self.pipeline,
                X_test=images.iloc[self.test_rows],
                y_test=digits.iloc[self.test_rows],
                pip_requirements=[f"{name}=={version(name)}" for name in NEEDED_TO_SERVE],
            )
        self.next(self.end)

    @step
    def end(self) -> None:
        """Prints what came of it and what to type next, or does it."""
        print(f"accuracy {self.accuracy:.3f} on {len(self.test_rows)} images it has not seen")
        if self.publish:
            from adroit.training import publish

            self.published_by = publish(self.logged, FLAVOR, ROOT)
        else:
            print(f"\nThis publishes it:\n\n{self.logged.publish_command(FLAVOR)}\n")


def load_digits() -> tuple:
    """Returns (1797, 64) images as float columns, and the (1797,) digits they show."""
    import pandas as pd
    from sklearn.datasets import load_digits

    images, digits = load_digits(return_X_y=True)
    columns = [f"pixel_{number}" for number in range(images.shape[1])]
    return pd.DataFrame(images, columns=columns), pd.Series(digits, name="digit")


if __name__ == "__main__":
    ExampleSagemaker()
