"""``python FLOW.py sagemaker ...``: what Metaflow runs in place of a step, and ``follow``.

step     in place of ``step``, with the same options: run it in a job, and wait for its end
follow   the log of a job that was handed over, to its end
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from metaflow import util
from metaflow._vendor import click
from metaflow.exception import METAFLOW_EXIT_DISALLOW_RETRY
from metaflow.metaflow_config import (
    DATASTORE_LOCAL_DIR,
    SERVICE_INTERNAL_URL,
)
from metaflow.metaflow_config_funcs import config_values
from metaflow.mflog import TASK_LOG_SOURCE
from metaflow.mflog.mflog import decorate

from .decorator import PACKAGE_VARIABLE
from .errors import JobFailed, JobStopped, SagemakerError
from .guard import Guard
from .job import Job
from .request import SCRIPT, TASK_VARIABLE, Settings, job_name, training_request
from .script import run_script

_OF_THIS_MACHINE = {"METAFLOW_DATASTORE_SYSROOT_LOCAL", "METAFLOW_TEMPDIR"}


@click.group()
def cli() -> None:
    """Commands of @in_sagemaker."""


@cli.group(help="Training jobs of SageMaker.")
def sagemaker() -> None:
    """Commands about training jobs."""


@sagemaker.command(help="Run one task in a training job; Metaflow calls this.")
@click.argument("step-name")
@click.option("--settings", required=True, help="What the job is asked for with, as JSON.")
@click.option("--run-id", required=True)
@click.option("--task-id", required=True)
@click.option("--input-paths")
@click.option("--split-index")
@click.option("--clone-run-id")
@click.option("--tag", multiple=True)
@click.option("--namespace")
@click.option("--retry-count", type=int, default=0)
@click.option("--max-user-code-retries", type=int, default=0)
@click.option("--ubf-context")
@click.pass_context
def step(context: Any, step_name: str, settings: str, **options: Any) -> None:
    """Starts the job of a task, follows it, and ends as it ended."""
    place = (options["run_id"], step_name, options["task_id"])
    values = Settings(**json.loads(settings))
    if options["retry_count"]:
        _wait_before_the_next_try(context.obj, step_name)
    name = _name(context.obj, place, options["retry_count"])
    guard = Guard(name)
    try:
        _start(context, name, values, place, options).follow(_echo)
        guard.dismiss()
    except JobFailed:
        guard.dismiss()
        raise
    except (SagemakerError, JobStopped) as end:
        guard.dismiss()
        print(f"{end.headline}: {end}", file=sys.stderr)
        sys.exit(METAFLOW_EXIT_DISALLOW_RETRY)
    except KeyboardInterrupt:
        print(f"Stopping training job {name}.", file=sys.stderr)
        Job(name).stop()
        sys.exit(METAFLOW_EXIT_DISALLOW_RETRY)
    finally:
        _bring_metadata_home(context.obj, place)


@sagemaker.command(help="Show the log of a training job until it ends.")
@click.argument("job")
@click.pass_context
def follow(context: Any, job: str) -> None:
    """Follows a job by its name; Ctrl-C leaves it running."""
    found = Job(job)
    task = found.describe()["Environment"][TASK_VARIABLE]
    try:
        found.follow(lambda line, _: print(line, flush=True))
    finally:
        _bring_metadata_home(context.obj, tuple(task.split("/")))
    print(f"{job} has ended well: metaflow.Task('{context.obj.flow.name}/{task}')")


def start_beside(
    decorator: Any, flow: Any, place: tuple[str, str, str], input_paths: str, attempt: int
) -> str:
    """Starts the job of a step that is handed over, from within its local task.

    Args:
        decorator: The step's ``@in_sagemaker``.
        flow: The flow.
        place: Run, step and task that the job writes.
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
        "split_index": flow.index,
        "retry_count": attempt,
        "max_user_code_retries": attempt,
        "tag": context.params.get("opt_tag"),
        "namespace": context.params.get("opt_namespace"),
    }
    name = _name(context.obj, place, attempt)
    job = _start(context, name, decorator.settings(), place, options)
    print(f"Handed over to training job {name}: {job.url}")
    return name


def _start(
    context: Any,
    name: str,
    settings: Settings,
    place: tuple[str, str, str],
    options: dict[str, Any],
) -> Job:
    """Puts the job's script into S3, and starts the job."""
    from metaflow import S3

    state, job = context.obj, Job(name)
    metadata, sha, url = json.loads(os.environ[PACKAGE_VARIABLE])
    task = "/".join(place)
    package = state.environment.get_package_commands(url, "s3", metadata)
    script = run_script(
        name,
        f"{state.flow.name}/{task}",
        options.get("retry_count", 0),
        package,
        _step_command(context.find_root().params, place[1], options),
        _exports(state, place[1], {"METADATA": metadata, "SHA": sha, "URL": url}),
    )
    prefix = f"{state.flow_datastore.datastore_root}/sagemaker/{state.flow.name}/{name}"
    with S3() as s3:
        s3.put(f"{prefix}/in/{SCRIPT}", script)
    region = os.environ.get("AWS_DEFAULT_REGION") or os.environ.get("AWS_REGION")
    environment = {"AWS_DEFAULT_REGION": region} if region else {}
    job.start(training_request(name, settings, prefix, task, environment))
    _echo(f"Training job {name} on {settings.instance_type}; its log: {job.log_url}", None)
    return job


def _step_command(top: Mapping[str, Any], step_name: str, options: Mapping[str, Any]) -> list[str]:
    """Returns the words of the task's own command, each as a shell has to read it."""
    program = ["exec", "python", "-u", util._quote(Path(sys.argv[0]).name)]
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


def _name(state: Any, place: tuple[str, str, str], attempt: int) -> str:
    run_id, step_name, task_id = place
    root = state.flow_datastore.datastore_root
    return job_name(state.flow.name, run_id, step_name, task_id, attempt, root)


def _wait_before_the_next_try(state: Any, step_name: str) -> None:
    for deco in state.graph[step_name].decorators:
        if deco.name == "retry":
            time.sleep(60 * int(deco.attributes["minutes_between_retries"]))


def _bring_metadata_home(state: Any, place: tuple[str, ...]) -> None:
    """Copies what the job noted of its task to where Metaflow's client looks for it on a laptop."""
    if state.metadata.TYPE != "local":
        return
    from metaflow.metadata_provider.util import sync_local_metadata_from_datastore

    try:
        datastore = state.flow_datastore.get_task_datastore(*place)
        sync_local_metadata_from_datastore(DATASTORE_LOCAL_DIR, datastore)
    except Exception:  # noqa: BLE001 - a job that never came so far has noted nothing
        pass


def _echo(line: str, moment: datetime | None) -> None:
    """Prints a line for Metaflow: of the job's log with its own time, and kept there already."""
    if moment is None:
        print(line, flush=True)
    else:
        stamped = decorate(TASK_LOG_SOURCE, line, now=moment.astimezone(UTC).replace(tzinfo=None))
        print(stamped.decode(), flush=True)
