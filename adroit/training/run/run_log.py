"""What a run can be given, each by the name that MLflow's own functions have.

Everything goes to the publisher's run, from whichever thread or forked process it is called, inside
a ``with`` block or not; nothing depends on what MLflow has as the active run. ``publisher`` stands
for a ``NextdoorMLFlowRunPublisher`` in the examples.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adroit.training import metaflow_task, tracking
from adroit.training.errors import TrainingError
from adroit.training.run import open_runs
from adroit.training.run.datasets import dataset_of

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_one_begins = threading.Lock()


class RunLog:
    """A run, which begins with the first thing that is logged.

    Args:
        tracking_uri: The store.
        experiment_id: Where the run is.

    Attributes:
        tracking_uri: Where the run is logged.
        experiment_id: The experiment's id.
        run_id: 32 hex digits; None until something is logged or a ``with`` block begins.
    """

    def __init__(self, tracking_uri: str, experiment_id: str) -> None:
        self.tracking_uri = tracking_uri
        self.experiment_id = experiment_id
        self.run_id: str | None = None
        self._model_id: str | None = None
        self._trained_by: dict[str, str] = {}

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Logs hyperparameters; one that was logged may not change.

            publisher.log_params({"depth": 6, "learning_rate": 0.1})

        Args:
            params: Value by name; values are kept as text.

        Raises:
            TrainingError: The store did not take them, with MLflow's reason.
        """
        from mlflow.entities import Param

        with self._run() as (run_id, client):
            client.log_batch(run_id, params=[Param(k, str(v)) for k, v in params.items()])

    def log_metrics(
        self,
        metrics: Mapping[str, float],
        step: int | None = None,
        *,
        timestamp: datetime | int | None = None,
    ) -> None:
        """Logs measurements, all of them in one request.

            for epoch in range(10):
                publisher.log_metrics({"loss": 1 / (epoch + 1)}, step=epoch)
            publisher.log_metrics({"auc": 0.91}, timestamp=datetime(2026, 11, 1, tzinfo=UTC))

        Args:
            metrics: Value by name.
            step: Of the training, where there are several values by time; None for the only one.
            timestamp: When they were measured: a time, or milliseconds since 1970; now by default.

        Raises:
            TrainingError: The store did not take them, with MLflow's reason.
        """
        from mlflow.entities import Metric

        if isinstance(timestamp, datetime):
            timestamp = int(timestamp.timestamp() * 1000)
        when_ms = int(time.time() * 1000) if timestamp is None else timestamp
        model = None if step else self._model_id  # MLflow shows a model's metrics with it
        with self._run() as (run_id, client):
            logged = [
                Metric(name, value, when_ms, step or 0, model_id=model, run_id=run_id)
                for name, value in metrics.items()
            ]
            client.log_batch(run_id, metrics=logged)

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Sets tags of the run, in one request; one that is there is replaced.

            publisher.set_tags({"team": "ads", "reviewed": True})

        Args:
            tags: Value by name; values are kept as text.

        Raises:
            TrainingError: The store did not take them.
        """
        from mlflow.entities import RunTag

        with self._run() as (run_id, client):
            client.log_batch(run_id, tags=[RunTag(k, str(v)) for k, v in tags.items()])

    def log_artifact(self, path: str | PathLike[str], artifact_path: str | None = None) -> None:
        """Logs a file.

            publisher.log_artifact("report.html", artifact_path="reports")

        Args:
            path: The file.
            artifact_path: The run's directory that it goes to.

        Raises:
            TrainingError: There is no such file, or the store did not take it.
        """
        file = _existing(path)
        with self._run() as (run_id, client):
            client.log_artifact(run_id, str(file), artifact_path)

    def log_artifacts(
        self, directory: str | PathLike[str], artifact_path: str | None = None
    ) -> None:
        """Logs all files of a directory and of those below it.

            publisher.log_artifacts("plots", artifact_path="plots")

        Args:
            directory: The directory.
            artifact_path: The run's directory that they go to.

        Raises:
            TrainingError: There is no such directory, or the store did not take it.
        """
        folder = _existing(directory)
        with self._run() as (run_id, client):
            client.log_artifacts(run_id, str(folder), artifact_path)

    def log_figure(self, figure: Any, artifact_file: str) -> None:
        """Logs a figure of matplotlib or plotly.

            figure, axes = plt.subplots()
            axes.plot([0, 1], [0, 1])
            publisher.log_figure(figure, "roc.png")

        Args:
            figure: The figure.
            artifact_file: Its path in the run; its suffix says how it is saved.

        Raises:
            TrainingError: It is no figure, or the store did not take it.
        """
        with self._run() as (run_id, client):
            client.log_figure(run_id, figure, artifact_file)

    def log_image(
        self,
        image: Any,
        artifact_file: str | None = None,
        *,
        key: str | None = None,
        step: int | None = None,
    ) -> None:
        """Logs an image: one by its path, or one of a series by key and step.

            publisher.log_image(np.zeros((8, 8, 3), "uint8"), "first.png")
            publisher.log_image(np.zeros((8, 8, 3), "uint8"), key="attention", step=3)

        Args:
            image: (height, width), or (height, width, 1, 3 or 4) of uint8, or of floats from 0 to
                1; or an image of Pillow's.
            artifact_file: Its path in the run.
            key: The name of the series; without ``artifact_file``.
            step: Its place in the series.

        Raises:
            TrainingError: It is no image, or the store did not take it.
        """
        with self._run() as (run_id, client):
            client.log_image(run_id, image, artifact_file, key=key, step=step)

    def log_table(self, table: Any, artifact_file: str) -> None:
        """Logs a table; logged to the same path again, its rows are added.

            publisher.log_table({"text": ["hi"], "score": [0.5]}, "answers.json")

        Args:
            table: A DataFrame, or columns by name.
            artifact_file: Its path in the run: ``.json``, or ``.parquet``.

        Raises:
            TrainingError: It is no table, or the store did not take it.
        """
        with self._run() as (run_id, client):
            client.log_table(run_id, table, artifact_file)

    def log_dict(self, values: Any, artifact_file: str) -> None:
        """Logs values as JSON, or as YAML where the path says so.

            publisher.log_dict({"features": ["age", "size"]}, "features.json")

        Args:
            values: A dictionary or list.
            artifact_file: Its path in the run.

        Raises:
            TrainingError: They cannot be written so, or the store did not take them.
        """
        with self._run() as (run_id, client):
            client.log_dict(run_id, values, artifact_file)

    def log_text(self, text: str, artifact_file: str) -> None:
        """Logs text.

            publisher.log_text("trained on the rows of May", "notes.txt")

        Args:
            text: The text.
            artifact_file: Its path in the run.

        Raises:
            TrainingError: The store did not take it.
        """
        with self._run() as (run_id, client):
            client.log_text(run_id, text, artifact_file)

    def log_input(
        self,
        dataset: Any,
        context: str = "training",
        *,
        name: str | None = None,
        source: str | None = None,
    ) -> None:
        """Logs what the model was trained or tested on: a digest, where it is from, its schema.

        The rows stay where they are. A publish keeps digest and source with the version.

            publisher.log_input(frame, name="homes", source="s3://bucket/homes.parquet")
            publisher.log_input(x_test, context="test", name="homes-test")

        Args:
            dataset: A DataFrame or array, or a dataset of ``mlflow.data``.
            context: What it was used for.
            name: Its name; ``dataset`` by default.
            source: Where it is from: an address or a path; by default the code that logs it.

        Raises:
            TrainingError: It is of another kind, or the store did not take it.
        """
        from mlflow.entities import DatasetInput, InputTag

        with self._run() as (run_id, client):
            entity = dataset_of(dataset, name, source)
            tags = [InputTag("mlflow.data.context", context)]
            client.log_inputs(run_id, datasets=[DatasetInput(entity, tags)])

    @contextmanager
    def _run(self) -> Iterator[tuple[str, MlflowClient]]:
        """Gives the run, which begins here if it has not, and a client of its store."""
        with tracking.store(self.tracking_uri) as client:
            with _one_begins:
                if self.run_id is None:
                    from mlflow.tracking.context.registry import resolve_tags

                    tags = resolve_tags(self._tags())
                    self.run_id = client.create_run(self.experiment_id, tags=tags).info.run_id
                    open_runs.begun(self.run_id, self.tracking_uri)
            yield self.run_id, client

    def _tags(self) -> dict[str, str]:
        return metaflow_task.task_tags() | self._trained_by | open_runs.process_tag()


def _existing(path: str | PathLike[str]) -> Path:
    if not Path(path).exists():
        raise TrainingError(
            "What was to be logged does not exist.",
            where=Path(path).absolute(),
            next_step="check the path; a relative one counts from where the flow runs",
        )
    return Path(path)
