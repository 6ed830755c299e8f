"""Trains the sentiment example: a head on a pretrained network that comes in a package.

    python projects/example_sentiment/flow.py run [--publish] [--rows N]

    start   make the experiment; read the comments and draw which of them train
    train   embed them, fit the head, check the model on its own and log it
    end     print how good it is and what to type next; with --publish, publish it

The artifacts are 35 MB: they go from a directory to MLflow and never through ``self``.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parent
ROOT = PROJECT.parents[1]
sys.path.insert(0, str(ROOT))  # `projects.…` is importable from here as it is where it is served

from adroit.interpreter import ready_for_metaflow

ready_for_metaflow()

from metaflow import FlowSpec, Parameter, step

FLAVOR = "example_sentiment"
NEEDED_TO_SERVE = ("mlflow-skinny", "numpy", "pandas", "tokenizers")

os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")


class ExampleSentiment(FlowSpec):
    """Trains a classifier of neighbours' comments; ``logged`` is what publishing needs."""

    publish = Parameter("publish", is_flag=True, default=False, help="publish what was trained")

    rows = Parameter("rows", type=int, help="train on so many rows alone: for a rehearsal")

    @step
    def start(self) -> None:
        """Finds the tracking store and draws the rows, before anything is trained."""
        import pandas as pd
        from sklearn.model_selection import train_test_split

        from adroit.training import NextdoorMLFlowRunPublisher

        self.publisher = NextdoorMLFlowRunPublisher("example_sentiment")
        comments = pd.read_csv(PROJECT / "comments.csv")[: self.rows]
        self.training, self.test = train_test_split(
            comments, test_size=0.25, stratify=comments["label"], random_state=7
        )
        self.next(self.train)

    @step
    def train(self) -> None:
        """Fits the head on the embedded comments and logs network and head as one model."""
        from importlib.metadata import version

        import numpy as np
        from sklearn.linear_model import LogisticRegression

        from projects.common.text import clean
        from projects.example_sentiment.embedding import SentenceEmbedding, unpack_pretrained
        from projects.example_sentiment.model import SentimentModel

        with tempfile.TemporaryDirectory() as scratch, self.publisher as publisher:
            network, head_file = Path(scratch, "network"), Path(scratch, "head.npz")
            network.mkdir()
            unpack_pretrained(network)
            embed = SentenceEmbedding(network)
            x, x_test = (embed([clean(t) for t in d["text"]]) for d in (self.training, self.test))
            head = LogisticRegression(C=10.0).fit(x, self.training["label"] == "positive")
            self.accuracy = float(head.score(x_test, self.test["label"] == "positive"))
            publisher.log_params({"C": 10.0, "network": f"wordllama {version('wordllama')}"})
            publisher.log_metrics({"test_accuracy": self.accuracy})
            np.savez(head_file, weights=head.coef_[0], bias=head.intercept_[0])
            self.logged = publisher.log_model(
                SentimentModel,
                artifacts={"network": network, "head": head_file},
                X_test=self.test[["text"]],
                y_test=self.test["label"],
                code_path=[PROJECT, ROOT / "projects/common"],
                pip_requirements=[f"{name}=={version(name)}" for name in NEEDED_TO_SERVE],
            )
        self.next(self.end)

    @step
    def end(self) -> None:
        """Prints what came of it and what to type next, or does it."""
        print(f"accuracy {self.accuracy:.2f} on {len(self.test)} comments it has not seen")
        if self.publish:
            from adroit.training import publish

            self.published_by = publish(self.logged, FLAVOR, ROOT)
        else:
            print(f"\nThis publishes it:\n\n{self.logged.publish_command(FLAVOR)}\n")


if __name__ == "__main__":
    ExampleSentiment()
