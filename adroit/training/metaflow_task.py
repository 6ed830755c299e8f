"""The Metaflow task that is running: what it is, as tags for MLflow, and a tag on its run.

The tags of an MLflow run that a Metaflow step made:

    metaflow.flow      ExampleMetaflow
    metaflow.run       ExampleMetaflow/1795537240005196
    metaflow.step      train
    metaflow.task      ExampleMetaflow/1795537240005196/train/3
    metaflow.user      who runs it, as Metaflow has it
    metaflow.code      the code package's sha, where one was made (steps that run elsewhere)
    metaflow.url       the run's page, where METAFLOW_UI_URL or Metaflow's configuration has a UI
    sagemaker.training_job   the job's ARN, in a SageMaker training job

and MLflow's own ``mlflow.source.git.commit``. The Metaflow run is tagged ``mlflow:<run id>``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable


def flow_name() -> str | None:
    """Returns the name of the flow that is running in this process; None where none is."""
    metaflow = sys.modules.get("metaflow")
    if metaflow is None or not metaflow.current.is_running_flow:
        return None
    return str(metaflow.current.flow_name)


def task_tags() -> dict[str, str]:
    """Returns the tags that lead from an MLflow run to what made it; see the module's table."""
    tags = {}
    if flow_name() is not None:
        from metaflow import current
        from metaflow.metaflow_config import UI_URL

        run = f"{current.flow_name}/{current.run_id}"
        tags = {
            "metaflow.flow": current.flow_name,
            "metaflow.run": run,
            "metaflow.step": current.step_name,
            "metaflow.task": current.pathspec,
            "metaflow.user": current.username,
            "metaflow.code": os.environ.get("METAFLOW_CODE_SHA"),
            "metaflow.url": f"{UI_URL.rstrip('/')}/{run}" if UI_URL else None,
        }
    return {name: str(value) for name, value in tags.items() if value} | training_job_tags()


def training_job_tags() -> dict[str, str]:
    """Returns the tag of the SageMaker training job that this process is in; none elsewhere."""
    arn = os.environ.get("TRAINING_JOB_ARN")
    return {"sagemaker.training_job": arn} if arn else {}


def tag_metaflow_run(run_id: str) -> None:
    """Tags the running Metaflow run with the MLflow run; says so where that is not possible.

    The way back that cannot fail is what ``log_model`` returns, kept on ``self``: so a metadata
    service that takes no tags, or that is out of reach of a remote step, does not end a training.
    """
    if flow_name() is None:
        return
    from metaflow import Run, current

    try:
        Run(f"{current.flow_name}/{current.run_id}").add_tag(f"mlflow:{run_id}")
    except Exception as error:  # noqa: BLE001 - each metadata provider has errors of its own
        print(f"The Metaflow run was not tagged mlflow:{run_id}: {error}", file=sys.stderr)


def outcome() -> Callable[[], bool]:
    """Returns what tells, once the task of this process has ended, whether it failed.

    Metaflow makes an exit code of an exception before the interpreter hears of it.
    """
    if flow_name() is None:
        return bool
    from metaflow._vendor import click

    context = click.get_current_context(silent=True)  # type: ignore[no-untyped-call]
    flow = getattr(context.obj, "flow", None) if context else None
    return lambda: not getattr(flow, "_task_ok", True)
