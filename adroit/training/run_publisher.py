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
user, and makes the experiment. The run begins with the first thing that is logged, or with a
``with`` block, in which it is MLflow's active run (``active_run``); what can be logged is in
``run_log``. It is finished once a model is in it; what is logged later still goes to it. It ends
with its process at the latest (``open_runs``); an exception in the block marks it failed. An
instance may be kept on ``self``: a later step goes on with the same run, and each branch of a
foreach with one of its own unless the run had begun before. Pickled, it is names and ids: no
client, no password, no token.

``log_model`` looks before it logs: first at the imports, then by loading the very files in a clean
process and predicting on rows of ``X_test``. What fails there is not in MLflow.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

from adroit.serving.features.reference import write_reference
from adroit.training import experiments, logged_run, metaflow_task, tracking
from adroit.training.clean_process import load_in_clean_process
from adroit.training.code_paths import CodePath
from adroit.training.errors import TrainingError
from adroit.training.examples import check_rows, example_of, signature_of
from adroit.training.logged_run import LoggedRun
from adroit.training.run import active_run, open_runs
from adroit.training.run.model_registry import registered
from adroit.training.run.run_log import RunLog
from adroit.training.saved_model import SavedModel, save_model


class NextdoorMLFlowRunPublisher(RunLog):
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
        tracking_uri = tracking_uri or experiments.tracking_uri_of(os.environ)
        experiments.check_tracking_uri(tracking_uri)
        self.experiment, experiment_id = experiments.ensure_experiment(
            tracking_uri, name, os.environ
        )
        super().__init__(tracking_uri, experiment_id)

    def __enter__(self) -> Self:
        place = active_run.Place(self.tracking_uri, self.experiment_id)
        tags = open_runs.process_tag() if self.run_id else self._tags()
        with tracking.translated(self.tracking_uri):
            self.run_id = active_run.enter(place, self.run_id, tags)
        open_runs.begun(self.run_id, self.tracking_uri, in_block=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self.run_id is not None  # __enter__ set it
        status = open_runs.status_of(error)
        try:
            with tracking.store(self.tracking_uri) as client:
                was_active = active_run.leave(self.run_id, status)
                if not was_active and open_runs.is_open(self.run_id):  # ended by hand in the block
                    client.set_terminated(self.run_id, status)
            open_runs.ended(self.run_id)
        except TrainingError as problem:
            if error is None:
                raise
            print(f"The MLflow run was not ended as {status}: {problem}", file=sys.stderr)

    def trained_here(self) -> None:
        """Notes that this task trains the model, for a run that a later step begins.

        For a step with ``@in_sagemaker`` that reaches no tracking server: the run gets the tag of
        its training job. Keep the publisher on ``self``.
        """
        self._trained_by = metaflow_task.training_job_tags()

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
                inputs; the first three become the input example, and counts of each feature the
                reference of its drift (see ``adroit.serving.features.reference``).
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
            write_reference(X_test, saved.directory)
            if validate:
                load_in_clean_process(saved.directory)
            logged = self._upload(saved, name)
        metaflow_task.tag_metaflow_run(logged.run_id)
        return logged

    def register(
        self, name: str, logged: LoggedRun, *, tags: Mapping[str, Any] | None = None
    ) -> str:
        """Makes a logged model a version of a registered model, in MLflow's model registry.

            version = publisher.register("homes", publisher.log_model(model, X_test=x_test))

        A publish needs no registered model; this is for those who look for models there.

        Args:
            name: The registered model, made where it does not exist; ``catalog.schema.name`` in
                Unity Catalog.
            logged: What ``log_model`` returned.
            tags: Of the version; values are kept as text.

        Returns:
            The version, such as ``3``.

        Raises:
            TrainingError: The registry did not take it.
        """
        with tracking.store(self.tracking_uri) as client:
            return registered(client, name, logged, tags or {})

    def _upload(self, saved: SavedModel, name: str) -> LoggedRun:
        with self._run() as (run_id, client):
            self._model_id = saved.log(client, self.experiment_id, run_id, name)
            client.set_terminated(run_id, "FINISHED")
            open_runs.ended(run_id)
        if file := os.environ.get(logged_run.FILE_VARIABLE):
            Path(file).write_text(run_id)
        uri = f"models:/{self._model_id}"
        return LoggedRun(run_id, self._model_id, name, uri, self.experiment, self.tracking_uri)
