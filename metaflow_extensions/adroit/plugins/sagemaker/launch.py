"""Starts the training job of one task: its script into S3, its request to SageMaker."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metaflow import util
from metaflow._vendor import click
from metaflow.metaflow_config import SERVICE_INTERNAL_URL
from metaflow.metaflow_config_funcs import config_values

from .job import Job
from .request import PACKAGE_VARIABLE, SCRIPT, Settings, job_name, training_request
from .script import run_script, torchrun

_OF_THIS_MACHINE = {
    "METAFLOW_DATASTORE_SYSROOT_LOCAL",
    "METAFLOW_SAGEMAKER_DEFAULTS",
    "METAFLOW_TEMPDIR",
}
Place = tuple[str, str, str]
"""Run, step and task."""


def start_beside(
    settings: Settings, split_index: int | None, place: Place, input_paths: str, attempt: int
) -> str:
    """Starts the job of a step that is handed over, from within its local task.

    Args:
        settings: What the job is asked for with.
        split_index: Of the task, in a foreach.
        place: What the job writes.
        input_paths: As ``step`` takes them.
        attempt: Counted from 0.

    Returns:
        The job's name.
    """
    context = click.get_current_context()
    options = {
        "run_id": place[0],
        "task_id": place[2],
        "input_paths": input_paths,
        "split_index": split_index,
        "retry_count": attempt,
        "max_user_code_retries": attempt,
        "tag": context.params.get("opt_tag"),
        "namespace": context.params.get("opt_namespace"),
    }
    name = name_of(context.obj, place, attempt, prefix=settings.job_name_prefix)
    job = start(context, name, settings, place, options)
    print(f"Handed over to training job {name}: {job.url}")
    return name


def start(
    context: Any,
    name: str,
    settings: Settings,
    place: Place,
    options: Mapping[str, Any],
) -> Job:
    """Puts the job's script into S3, and starts the job.

    Args:
        context: Click's, of the command that runs the task.
        name: The job's, from ``name_of``.
        settings: What the job is asked for with.
        place: What the job writes.
        options: Of ``step``, by their names.

    Raises:
        SagemakerError: SageMaker refuses the request, now and next time.
        JobFailed: It could not be started just now.
        JobUnseen: AWS cannot be reached, or has failed.
    """
    from metaflow import S3

    state, job = context.obj, Job(name)
    metadata, sha, url = json.loads(os.environ[PACKAGE_VARIABLE])
    task = "/".join(place)
    package = state.environment.get_package_commands(url, "s3", metadata)
    package += state.environment.bootstrap_commands(place[1], "s3")
    script = run_script(
        name,
        f"{state.flow.name}/{task}",
        options.get("retry_count", 0),
        package,
        _step_command(state, context.find_root().params, place[1], options),
        _exports(state, place[1], {"METADATA": metadata, "SHA": sha, "URL": url})
        | {name: str(value) for name, value in settings.environment_variables.items()},
        settings.pre_execution_commands,
        torchrun(settings.instance_count, settings.nproc_per_node) if settings.use_torchrun else (),
    )
    prefix = f"{state.flow_datastore.datastore_root}/sagemaker/{state.flow.name}/{name}"
    with S3() as s3:
        s3.put(f"{prefix}/in/{SCRIPT}", script)
    environment = {"AWS_DEFAULT_REGION": job.region}  # which boto3 reads, other than AWS_REGION
    job.start(training_request(name, settings, prefix, task, environment))
    print(f"Training job {name} on {settings.instance_type}; its log: {job.log_url}", flush=True)
    return job


def _step_command(
    state: Any, top: Mapping[str, Any], step_name: str, options: Mapping[str, Any]
) -> list[str]:
    """Returns the words of the task's own command, each as a shell has to read it."""
    python = state.environment.executable(step_name)
    program = [python, "-u", util._quote(Path(sys.argv[0]).name)]
    wanted = {name: value for name, value in options.items() if value not in (None, ())}
    return [
        *program,
        *util.dict_to_cli_options(top),
        "step",
        step_name,
        *util.dict_to_cli_options(wanted),
    ]


def _exports(state: Any, step_name: str, package: Mapping[str, str]) -> dict[str, str]:
    """Returns the environment of the step: where Metaflow keeps things, and what @environment says.

    No AWS credential is among them: the job has its role.
    """
    exports: dict[str, str | None] = {
        name: str(value) for name, value in config_values() if name not in _OF_THIS_MACHINE
    }
    exports |= {f"METAFLOW_CODE_{name}": value for name, value in package.items()}
    exports |= {
        "METAFLOW_CODE_DS": "s3",
        "METAFLOW_DATASTORE_SYSROOT_S3": state.flow_datastore.datastore_root,
        "METAFLOW_DEFAULT_DATASTORE": "s3",
        "METAFLOW_DEFAULT_METADATA": state.metadata.TYPE,
        "METAFLOW_SERVICE_URL": SERVICE_INTERNAL_URL,
        "METAFLOW_USER": util.get_username(),
        "METAFLOW_RUNTIME_ENVIRONMENT": "sagemaker",
        "METAFLOW_PRODUCTION_TOKEN": os.environ.get("METAFLOW_PRODUCTION_TOKEN"),
    }
    tracking = os.environ.get("MLFLOW_TRACKING_URI", "")
    if tracking.startswith(("http://", "https://", "databricks")) and "@" not in tracking:
        exports["MLFLOW_TRACKING_URI"] = tracking
    for deco in state.graph[step_name].decorators:
        if deco.name == "environment":
            exports |= {name: str(value) for name, value in deco.attributes["vars"].items()}
    return {name: value for name, value in exports.items() if value}


def name_of(
    state: Any, place: Place, attempt: int, *, prefix: str | None = None, again: int = 0
) -> str:
    """Returns the name of the job of one attempt at a task; see ``request.job_name``."""
    root = state.flow_datastore.datastore_root
    return job_name(state.flow.name, *place, attempt, root, prefix=prefix, again=again)
