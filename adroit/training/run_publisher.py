"""``NextdoorMLFlowRunPublisher``: what a training flow logs to MLflow with.

    from adroit.training import NextdoorMLFlowRunPublisher

    @step
    def train(self):
        with NextdoorMLFlowRunPublisher() as publisher:
            publisher.log_params({"C": 0.1})
            publisher.log_metrics({"accuracy": 0.97})
            self.logged = publisher.log_model(model, X_test=X_test, code_path="projects/my_model")
        self.next(self.end)

The constructor does what can fail before hours of training: it finds the tracking store and the
user, and makes the experiment. The run begins with the first thing that is logged, and is finished
once a model is in it; what is logged later still goes to it. An exception in the ``with`` block
marks it failed. An instance may be kept on ``self``: a later step goes on with the same run, and
each branch of a foreach with one of its own unless the run had begun before. Pickled, it is names
and ids: no client, no password, no token.

``log_model`` looks before it logs: first at the imports, then by loading the very files in a clean
process and predicting on rows of ``X_test``. What fails there is not in MLflow.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from adroit.training import experiments, metaflow_task, tracking
from adroit.training.clean_process import load_in_clean_process
from adroit.training.code_paths import CodePath
from adroit.training.errors import TrainingError
from adroit.training.examples import check_rows, example_of, signature_of
from adroit.training.logged_run import LoggedRun
from adroit.training.saved_model import SavedModel, save_model

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


class NextdoorMLFlowRunPublisher:
    """One MLflow run of an experiment that is there.

    Args:
        experiment: Its name; by default the flow's. ``experiments`` says what becomes of it, and
            what ADROIT_EXPERIMENT has to do with that.
        tracking_uri: The store; by default MLFLOW_TRACKING_URI, else the checkout's own.

    Attributes:
        tracking_uri: Where the run is logged.
        experiment: The experiment's full name.
        experiment_id: Its id.
        run_id: 32 hex digits; None until something is logged.

    Raises:
        TrainingError: The store refuses us or cannot be reached; nobody says who the user is; or
            there is no name for the experiment.
    """

    def __init__(self, experiment: str | None = None, *, tracking_uri: str | None = None) -> None:
        name = experiment or metaflow_task.flow_name()
        if not name:
            raise TrainingError(
                "The experiment has no name.",
                got="no flow that is running, whose name it would have",
                next_step='NextdoorMLFlowRunPublisher("my_model")',
            )
        self.tracking_uri = tracking_uri or experiments.tracking_uri_of(os.environ)
        experiments.check_tracking_uri(self.tracking_uri)
        self.experiment, self.experiment_id = experiments.ensure_experiment(
            self.tracking_uri, name, os.environ
        )
        self.run_id: str | None = None
        self._trained_by: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.run_id is not None:
            with tracking.store(self.tracking_uri) as client:
                client.set_terminated(self.run_id, "FAILED" if kind else "FINISHED")

    def trained_here(self) -> None:
        """Notes that this task trains the model, for a run that a later step begins.

        For a step with ``@in_sagemaker`` that reaches no tracking server: the run gets the tag of
        its training job. Keep the publisher on ``self``.
        """
        self._trained_by = metaflow_task.training_job_tags()

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Logs hyperparameters; one that was logged may not change.

        Args:
            params: Value by name; values are kept as text.

        Raises:
            TrainingError: The store did not take them.
        """
        import mlflow

        with self._run() as (run_id, _):
            mlflow.log_params(dict(params), run_id=run_id)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Logs measurements.

        Args:
            metrics: Value by name.
            step: Of the training, where there are several values by time; None for the only one.

        Raises:
            TrainingError: The store did not take them.
        """
        import mlflow

        with self._run() as (run_id, _):
            mlflow.log_metrics(dict(metrics), step=step, run_id=run_id)

    def log_model(
        self,
        model: Any,
        *,
        artifacts: Mapping[str, str | PathLike[str]] | None = None,
        X_test: Any = None,
        y_test: Any = None,
        code_path: CodePath | Sequence[CodePath] | None = None,
        log_signature: bool = True,
        name: str = "model",
        pip_requirements: Sequence[str] | None = None,
        validate: bool = True,
    ) -> LoggedRun:
        """Checks a model, logs it, and finishes the run.

        Args:
            model: A scikit-learn, LightGBM, XGBoost or PyTorch model; a PythonModel, its class or
                a file that calls ``mlflow.models.set_model``. A class that can be imported is
                logged as code, without a pickle.
            artifacts: File or directory by name, for a PythonModel's ``context.artifacts``.
            X_test: (rows, features), of any kind in ``examples``. All rows decide the signature's
                inputs; the first three become the input example.
            y_test: (rows,) or (rows, outputs), what is right for ``X_test``. The signature's
                outputs where ``validate`` is off; otherwise they are what the model answered.
            code_path: Directories of packages or files that the model imports.
            log_signature: Whether the model gets a signature from ``X_test``.
            name: Its name in the run.
            pip_requirements: ``name==version`` of what serving needs; by default what MLflow finds
                by loading the model, which takes some seconds more.
            validate: Whether it has to load and predict in a clean process first.

        Returns:
            What publishing needs.

        Raises:
            TrainingError: It imports what would be missing, does not load or predict on its own, or
                is of an unknown kind: then nothing of it was logged. Or the store did not take it.
        """
        check_rows(X_test, y_test)
        signature = None
        if log_signature and X_test is not None:
            signature = signature_of(X_test, None if validate else y_test)
        with TemporaryDirectory(prefix="adroit-") as scratch:
            saved = save_model(
                model,
                Path(scratch),
                name=name,
                artifacts=artifacts,
                code_path=code_path,
                example=example_of(X_test),
                signature=signature,
                pip_requirements=pip_requirements,
            )
            if validate:
                load_in_clean_process(saved.directory)
            logged = self._upload(saved, name)
        metaflow_task.tag_metaflow_run(logged.run_id)
        return logged

    def _upload(self, saved: SavedModel, name: str) -> LoggedRun:
        from mlflow.models import Model

        with self._run() as (run_id, client):
            # Made here and not by Model.log, which would take the process's experiment.
            made = client.create_logged_model(
                self.experiment_id,
                name=name,
                source_run_id=run_id,
                params=dict(client.get_run(run_id).data.params),
            )
            Model.log(
                artifact_path=None,
                name=name,
                flavor=saved,
                run_id=run_id,
                model_id=made.model_id,
                validate_serving_input=False,  # the clean process did
            )
            client.set_terminated(run_id, "FINISHED")
        uri = f"models:/{made.model_id}"
        return LoggedRun(run_id, made.model_id, name, uri, self.experiment, self.tracking_uri)

    @contextmanager
    def _run(self) -> Iterator[tuple[str, MlflowClient]]:
        """Gives the run, which begins here if it has not, and a client of its store."""
        with tracking.store(self.tracking_uri) as client:
            if self.run_id is None:
                from mlflow.tracking.context.registry import resolve_tags

                tags = resolve_tags(metaflow_task.task_tags() | self._trained_by)
                self.run_id = client.create_run(self.experiment_id, tags=tags).info.run_id
            yield self.run_id, client
