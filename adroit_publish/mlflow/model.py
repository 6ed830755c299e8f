"""From a run id to the one model it holds, and where that model's files are.

A run holds MLflow 3 models as its outputs (``m-...``, kept apart from the run's artifacts), and
MLflow 2 models as directories of its artifacts, told by the ``mlflow.log-model.history`` tag or by
their MLmodel file. Which one is meant is never guessed: two MLflow 3 models of one name are
ambiguous, not "the newest". (In MLflow 2 the newest is the only one that is left.)

A tracking store's word for where files are is not believed: ``file:`` only from a local store,
the artifact proxy only on the tracking server itself, nothing with ``..``.

Source: MLflow 3.17, REST API, "Runs" and "Logged models"; MLflow 2, ``mlflow.models.Model.log``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from shlex import quote
from typing import TYPE_CHECKING

from adroit_publish.artifacts.location import artifact_location
from adroit_publish.artifacts.pull import open_root
from adroit_publish.artifacts.resolved_model import ResolvedModel
from adroit_publish.bundle.listing import RemoteFile, checked_listing
from adroit_publish.edge.text import printable
from adroit_publish.errors import AmbiguousModel, ModelNotFound, SourceError
from adroit_publish.mlflow.datasets import datasets_of
from adroit_publish.mlflow.tracking import tracking_client
from adroit_publish.mlflow.trained_by import trained_by

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient


_MOST_CHILDREN = 100


@dataclass(frozen=True)
class _Candidate:
    name: str
    model_id: str | None
    location: str
    logged: str
    problem: str | None = None

    def __str__(self) -> str:
        what = f" ({self.model_id})" if self.model_id else ""
        return f"{self.name}{what}, logged {self.logged}" + (
            f": {self.problem}" if self.problem else ""
        )


def resolve_model(
    tracking_uri: str, run_id: str, artifact: str | None, *, source_profile: str | None = None
) -> ResolvedModel:
    """Finds the one model of a finished run and lists its files.

    Args:
        artifact: Which model of the run: its logged name, or its id (``m-...``) where one name
            was logged twice. None where the run holds a single model.
        source_profile: The AWS profile that reads an S3 artifact root; None for boto3's default.

    Raises:
        ModelNotFound: The run does not exist, or holds no such model; says what it does hold.
        AmbiguousModel: Several models fit; lists them.
        SourceError: The run was deleted or has not finished, the store cannot be reached, or its
            listing or locations cannot be trusted.
        RefusedError: The store wants other credentials.
    """
    if not re.fullmatch(r"[0-9a-f]{32}", run_id):
        raise ModelNotFound("This is no run id.", got=run_id, wanted="32 hex digits")
    where = f"run {run_id} in {tracking_uri}"
    with tracking_client(tracking_uri) as client:
        run = client.get_run(run_id)
        _check_is(run.info.run_id, run_id, where)
        _check_finished(run, tracking_uri)
        candidates = _logged_models(client, run) + _models_by_tag(run)
        if not any(artifact in (None, one.name, one.model_id) for one in candidates):
            candidates += _models_among_artifacts(run, tracking_uri, source_profile)
        experiment = _experiment_name(client, run)
        children = () if candidates else _children_with_models(client, run)
    model = _choose(candidates, artifact, where, children)
    artifact_uri = artifact_location(model.location, tracking_uri)
    listed = open_root(artifact_uri, source_profile).list_files()
    files = checked_listing(listed, where=artifact_uri)
    _check_is_model(model, artifact_uri, files)
    identity = json.dumps([tracking_uri, artifact_uri, model.logged]).encode()
    return ResolvedModel(
        run_id=run_id,
        model_id=model.model_id,
        name=model.name,
        artifact_uri=artifact_uri,
        files=files,
        tracking_uri=tracking_uri,
        experiment_id=str(run.info.experiment_id),
        run_name=run.info.run_name or "",
        run_url=_run_url(tracking_uri, run),
        metrics=dict(run.data.metrics),
        cache_key=f"{run_id[:8]}-{sha256(identity).hexdigest()[:24]}",
        trained_by=trained_by(run.data.tags),
        datasets=datasets_of(run),
        experiment=experiment,
        started_utc=run.info.start_time and _utc(run.info.start_time),
    )


def _check_is(got: str, asked: str, where: str) -> None:
    """Lets an answer pass that is about the run or the model that was asked for."""
    if got != asked:
        raise SourceError(
            "The tracking store's answer is about something else.",
            where=where,
            got=printable(got, 100),
            wanted=asked,
            next_step="run the same command again; if it stays so, look for a cache on the way",
        )


def _check_finished(run: Run, tracking_uri: str) -> None:
    run_id, status = run.info.run_id, run.info.status
    where = f"run {run_id} in {tracking_uri}"
    if run.info.lifecycle_stage != "active":
        raise SourceError(
            "The run was deleted.",
            where=where,
            next_step=f"MLFLOW_TRACKING_URI={quote(tracking_uri)} mlflow runs restore --run-id "
            f"{run_id}, or name another run",
        )
    if status in ("RUNNING", "SCHEDULED"):
        end = f"import mlflow; mlflow.MlflowClient({tracking_uri!r}).set_terminated({run_id!r})"
        raise SourceError(
            "The run has not finished.",
            where=where,
            got=status,
            wanted="FINISHED",
            next_step="run the same command again once it has. Where its training has ended and "
            f"only the status is left, end it: python -c {quote(end)}",
        )
    if status != "FINISHED":
        raise SourceError(
            "The run did not succeed.",
            where=where,
            got=status,
            wanted="FINISHED",
            next_step="train again, and publish the run that finished",
        )


def _experiment_name(client: MlflowClient, run: Run) -> str | None:
    from mlflow.exceptions import MlflowException

    with suppress(MlflowException):  # a name is for people: who may not read it goes without
        experiment = client.get_experiment(run.info.experiment_id)
        if experiment.experiment_id == run.info.experiment_id:
            return str(experiment.name)
    return None


def _logged_models(client: MlflowClient, run: Run) -> list[_Candidate]:
    outputs = run.outputs.model_outputs if run.outputs else []
    models = []
    # One model is listed once for each step it was logged at.
    for model_id in dict.fromkeys(output.model_id for output in outputs):
        if not re.fullmatch(r"m-[0-9a-f]{32}", model_id):
            raise SourceError(
                "The tracking store gives a model a malformed id.",
                where=f"run {run.info.run_id}",
                got=ascii(model_id[:100]),
                wanted="m- and 32 hex digits",
            )
        try:
            model = client.get_logged_model(model_id)
        except Exception as error:
            if getattr(error, "error_code", None) != "RESOURCE_DOES_NOT_EXIST":
                raise
            continue  # deleted since; the run still names it
        _check_is(model.model_id, model_id, f"run {run.info.run_id}")
        status = str(model.status)
        models.append(
            _Candidate(
                name=str(model.name),
                model_id=model_id,
                location=model.artifact_location,
                logged=_utc(model.creation_timestamp),
                problem=None if status == "READY" else f"its upload is {status}",
            )
        )
    return sorted(models, key=lambda one: (one.name, one.logged, one.model_id))


def _models_by_tag(run: Run) -> list[_Candidate]:
    """Returns MLflow 2's models; what was logged over another is the one that is there."""
    try:
        history = json.loads(run.data.tags.get("mlflow.log-model.history", "[]"))
        history.sort(key=lambda entry: str(entry.get("utc_time_created", "")))
        newest = {str(entry["artifact_path"]): entry for entry in history}
        return [
            _Candidate(
                name=path,
                model_id=None,
                location=f"{run.info.artifact_uri}/{path}",
                logged=f"{entry.get('utc_time_created', 'at a time not recorded')} UTC",
            )
            for path, entry in newest.items()
        ]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise SourceError(
            "The run's list of logged models cannot be read.",
            where=f"tag mlflow.log-model.history of run {run.info.run_id}",
            got=f"{type(error).__name__}: {error}",
        ) from error


def _models_among_artifacts(
    run: Run, tracking_uri: str, source_profile: str | None
) -> list[_Candidate]:
    """Returns models that lie in the run's artifacts and that no tag tells of.

    MLflow loads them by ``runs:/ID/NAME``: ``save_model`` and ``log_artifacts`` make such ones.
    """
    root = artifact_location(run.info.artifact_uri, tracking_uri)
    try:
        files = open_root(root, source_profile).list_files()
    except ModelNotFound:  # a run that logged nothing has no directory
        return []
    paths = (file.path.rpartition("/") for file in files)
    folders = [folder for folder, _, name in paths if name == "MLmodel"]
    return [
        _Candidate(name, None, f"{run.info.artifact_uri}/{name}", "at a time not recorded")
        for name in sorted(folders)
        if name and not any(name.startswith(f"{other}/") for other in folders)
    ]


def _children_with_models(client: MlflowClient, run: Run) -> tuple[str, ...]:
    """Returns the ids and names of a run's child runs that hold models: a sweep, say."""
    try:
        children = client.search_runs(
            [run.info.experiment_id],
            f"tags.mlflow.parentRunId = '{run.info.run_id}'",
            max_results=_MOST_CHILDREN,
        )
    except Exception:  # noqa: BLE001 - a hint; what the run lacks is told without it
        return ()
    return tuple(
        f"{child.info.run_id} ({child.info.run_name})"
        for child in children
        if "mlflow.log-model.history" in child.data.tags
        or (child.outputs and child.outputs.model_outputs)
    )


def _choose(
    candidates: Sequence[_Candidate], artifact: str | None, where: str, children: Sequence[str]
) -> _Candidate:
    fitting = [one for one in candidates if artifact in (None, one.name, one.model_id)]
    held = "\n".join(map(str, candidates))
    if not fitting:
        raise _no_model(artifact, where, held, children)
    if len(fitting) > 1:
        names = [one.name for one in fitting]
        # A name that is there twice tells nothing apart; an id does.
        choices = [
            (one.model_id or one.name) if names.count(one.name) > 1 else one.name for one in fitting
        ]
        can_choose = len(set(choices)) == len(choices)
        raise AmbiguousModel(
            f"The run logged {len(fitting)} models, and nothing says which one is meant.",
            where=where,
            got="\n".join(map(str, fitting)),
            next_step="set `artifact:` of the flavor to one of: " + ", ".join(choices)
            if can_choose
            else "train again, logging each model once",
        )
    if fitting[0].problem:
        raise SourceError(
            "The model was not completely logged.",
            where=where,
            got=str(fitting[0]),
            wanted="READY",
            next_step="train again, and publish the run that finished",
        )
    return fitting[0]


def _no_model(
    artifact: str | None, where: str, held: str, children: Sequence[str]
) -> ModelNotFound:
    if held:
        next_step = "set `artifact:` of the flavor to one of these names"
    elif children:
        held = "no model; its child runs hold some:\n" + "\n".join(children)
        next_step = "write one of these run ids as the flavor's version"
    else:
        next_step = "log the model in training (mlflow.<library>.log_model), or name another run"
    what = f"The run holds no model named {artifact!r}." if artifact else "The run holds no model."
    return ModelNotFound(what, where=where, got=held or "no model", next_step=next_step)


def _check_is_model(model: _Candidate, artifact_uri: str, files: Sequence[RemoteFile]) -> None:
    if not any(file.path == "MLmodel" for file in files):
        raise ModelNotFound(
            f"What was logged as {model.name!r} is not a model.",
            where=artifact_uri,
            got=f"{len(files)} files, no MLmodel among them",
            wanted="a directory with an MLmodel file",
            next_step="check that the artifact store still has the files, or name another run",
        )


def _run_url(tracking_uri: str, run: Run) -> str | None:
    if not tracking_uri.startswith(("http://", "https://")):
        return None
    base = tracking_uri.rstrip("/")
    return f"{base}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"


def _utc(milliseconds: int) -> str:
    from datetime import UTC, datetime

    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")
