"""``python FLOW.py sagemaker ...``: what Metaflow runs in place of a step, and ``follow``.

step     in place of ``step``, with the same options: run it in a job, and wait for its end
follow   the log of a job that was handed over, to its end
"""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from typing import Any

from metaflow._vendor import click
from metaflow.exception import METAFLOW_EXIT_DISALLOW_RETRY
from metaflow.metaflow_config import DATASTORE_LOCAL_DIR
from metaflow.metaflow_config_funcs import from_conf
from metaflow.mflog import TASK_LOG_SOURCE
from metaflow.mflog.mflog import decorate

from .errors import JobFailed, JobStopped, JobUnseen, NoCapacity, SagemakerError
from .guard import Guard
from .job import Job
from .launch import name_of, start
from .request import TASK_VARIABLE, Settings

CAPACITY_WAIT_S = float(from_conf("SAGEMAKER_CAPACITY_WAIT_S", 60.0))
LONGEST_CAPACITY_WAIT_S = 900.0


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
    try:
        for again in range(values.max_retry_attempts + 1):
            try:
                _run_job(context, values, place, options, again)
                return
            except NoCapacity as end:
                if again == values.max_retry_attempts:
                    raise
                wait_s = min(CAPACITY_WAIT_S * 2**again, LONGEST_CAPACITY_WAIT_S)
                print(f"{end}\nTrying again in {wait_s:g} s.", flush=True)
                time.sleep(wait_s)
    finally:
        _bring_metadata_home(context.obj, place)


def _run_job(
    context: Any, values: Settings, place: tuple[str, str, str], options: Any, again: int
) -> None:
    """Runs one job to its end; leaves no job running behind it."""
    name = name_of(
        context.obj, place, options["retry_count"], prefix=values.job_name_prefix, again=again
    )
    guard = Guard(name)
    try:
        job = start(context, name, values, place, options)
        job.follow(_echo, prices=values.usd_per_hour)
        guard.dismiss()
    except JobUnseen:
        raise  # its guard goes on trying to stop it
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


@sagemaker.command(help="Show the log of a training job until it ends.")
@click.argument("job")
@click.pass_context
def follow(context: Any, job: str) -> None:
    """Follows a job by its name; Ctrl-C leaves it running."""
    from botocore.exceptions import BotoCoreError, ClientError

    found = Job(job)
    try:
        task = found.describe()["Environment"][TASK_VARIABLE]
    except (BotoCoreError, ClientError, KeyError) as error:
        raise SagemakerError(
            f"{job} is no training job that @in_sagemaker started, as far as AWS tells.\n"
            f"  got:  {error}\n"
            "  next: look for its name in what the flow printed; check account and region"
        ) from None
    try:
        found.follow(lambda line, _: print(line, flush=True))
    finally:
        _bring_metadata_home(context.obj, tuple(task.split("/")))
    print(f"{job} has ended well: metaflow.Task('{context.obj.flow.name}/{task}')")


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
