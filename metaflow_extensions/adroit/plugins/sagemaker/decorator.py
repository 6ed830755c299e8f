"""``@in_sagemaker``: what Metaflow calls, in the order it calls it.

In the process that runs the flow:   ``step_init``, ``runtime_init``, ``add_to_package``, and for
each task ``runtime_task_created`` (the code package is stored, once) and ``runtime_step_cli`` (the
command of the task becomes ``sagemaker step ...``, see ``cli``).
In the job, around the step itself:  ``task_pre_step``, ``task_finished``.
With ``wait=False`` the task stays a local one, in which ``task_decorate`` puts the hand-over in the
place of the step.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from metaflow.decorators import StepDecorator
from metaflow.metaflow_config import DATASTORE_LOCAL_DIR, FEAT_ALWAYS_UPLOAD_CODE_PACKAGE
from metaflow.metaflow_config_funcs import from_conf

from .errors import SagemakerError
from .request import PACKAGE_VARIABLE, TASK_VARIABLE, Settings, problems, settings_of

IGNORE_VARIABLE = "MF_IGNORE_SAGEMAKER"
TIMEOUT_MARGIN_S = 600
"""How long a job may take to begin: ``@timeout`` counts from the step's first line on."""

_ELSEWHERE = {
    "kubernetes": "argo-workflows, airflow or @kubernetes",
    "batch": "step-functions or @batch",
}


class InSagemakerDecorator(StepDecorator):
    """
    Runs the step as a SageMaker training job.

    What the step sets on ``self`` is there in later steps, as if it had run here. Needs Metaflow's
    S3 datastore. ``MF_IGNORE_SAGEMAKER=true`` runs the step on this machine.

    Parameters
    ----------
    image : str, optional
        The container's image, in ECR, with ``bash`` and a ``python`` that has what the step
        imports. METAFLOW_SAGEMAKER_IMAGE where nothing is given.
    instance_type : str, default "ml.m5.large"
        What it runs on.
    volume_size : int, default 30
        Size of ``/opt/ml`` in GB, which is the place for large files.
    max_run : int, default 86400
        How long the job may take, in seconds; ``@timeout`` makes it shorter.
    wait : bool, default True
        False starts the job and goes on; a later step that uses what it makes fails and says so.
    role : str, optional
        ARN of the job's IAM role. METAFLOW_SAGEMAKER_IAM_ROLE where nothing is given.
    spot : bool, default False
        Run on spot capacity; ``/opt/ml/checkpoints`` is kept over an interruption.
    max_wait : int, optional
        How long a spot job may take with its waiting, in seconds. An hour more than ``max_run``.
    tags : Dict[str, str], optional
        Tags of the job.
    subnets : List[str], optional
        Subnets of the VPC that the job runs in.
    security_groups : List[str], optional
        Their security groups.
    """

    name = "in_sagemaker"
    defaults = {  # noqa: RUF012 - as Metaflow wants it
        "image": None,
        "instance_type": "ml.m5.large",
        "volume_size": 30,
        "max_run": 86400,
        "wait": True,
        "role": None,
        "spot": False,
        "max_wait": None,
        "tags": None,
        "subnets": None,
        "security_groups": None,
    }
    package_url = package_sha = package_metadata = None
    supports_conda_environment = True  # read by Metaflow: what runs elsewhere, and on what
    target_platform = "linux-64"

    # In the process that runs the flow

    def init(self) -> None:
        values = self.attributes
        values["image"] = values["image"] or from_conf("SAGEMAKER_IMAGE")
        values["role"] = values["role"] or from_conf("SAGEMAKER_IAM_ROLE")
        values["tags"] = values["tags"] or {}

    def step_init(self, flow, graph, step, decos, environment, flow_datastore, logger) -> None:
        self.step, self.decos = step, decos
        self._check_alone()
        self.flow, self.graph = flow, graph
        self.flow_datastore, self.environment = flow_datastore, environment
        limits = [deco.secs for deco in decos if deco.name == "timeout"]
        if limits and isinstance(self.attributes["max_run"], int):
            self.attributes["max_run"] = min(
                self.attributes["max_run"], max(limits) + TIMEOUT_MARGIN_S
            )

    def runtime_init(self, flow, graph, package, run_id) -> None:
        self.package = package
        if ignored():
            return
        found = problems(self.attributes)
        if not isinstance(self.attributes["wait"], bool):
            found.append(f"wait is True or False, not {self.attributes['wait']!r}")
        elif not self.attributes["wait"] and graph[self.step].type in ("foreach", "split-switch"):
            found.append("wait=False cannot be: what the step sets decides which steps follow")
        if self.flow_datastore.TYPE != "s3":
            found.append(
                f"Metaflow's datastore is {self.flow_datastore.TYPE}; a job reaches only S3: "
                "python FLOW.py --datastore=s3 run, or bootstrap/configure_metaflow.sh"
            )
        if found:
            lines = "\n".join(f"  - {each}" for each in found)
            raise SagemakerError(
                f"Step {self.step} cannot run in SageMaker:\n{lines}\n"
                f"  {IGNORE_VARIABLE}=true runs it on this machine"
            )

    def add_to_package(self) -> Iterator[tuple[str, str]]:
        from .shipped import shipped_files

        self._check_alone()  # a deployment gives steps its own decorator just before it packs them
        flow = Path(sys.modules[type(self.flow).__module__].__file__ or "")
        yield from ((str(path), name) for path, name in shipped_files(flow))

    def runtime_task_created(
        self, task_datastore, task_id, split_index, input_paths, is_cloned, ubf_context
    ) -> None:
        if not is_cloned and not ignored():
            self._store_package_once(self.flow_datastore, self.package)

    def runtime_step_cli(self, cli_args, retry_count, max_user_code_retries, ubf_context) -> None:
        if ignored() or retry_count > max_user_code_retries or cli_args.commands != ["step"]:
            return  # @catch's fallback and `spin` run here
        cli_args.env[PACKAGE_VARIABLE] = json.dumps(
            [self.package_metadata, self.package_sha, self.package_url]
        )
        if self.attributes["wait"]:
            cli_args.commands = ["sagemaker", "step"]
            cli_args.command_options["settings"] = json.dumps(self.settings().as_dict())

    def settings(self) -> Settings:
        """Returns what the job is asked for with."""
        return settings_of(self.attributes)

    def _check_alone(self) -> None:
        for deco in self.decos:
            if deco.name in _ELSEWHERE:
                raise SagemakerError(
                    f"Step {self.step} is to run in a SageMaker training job, and a training job "
                    f"is started by `run` on a machine that waits for it, not by "
                    f"{_ELSEWHERE[deco.name]}: a plain pod or Batch job would run instead.\n"
                    f"  next: take @in_sagemaker off step {self.step}"
                )

    @classmethod
    def _store_package_once(cls, flow_datastore: Any, package: Any) -> None:
        if cls.package_url is not None:
            return
        if FEAT_ALWAYS_UPLOAD_CODE_PACKAGE:
            cls.package_url, cls.package_sha = package.package_url(), package.package_sha()
        else:
            [(cls.package_url, cls.package_sha)] = flow_datastore.save_data(
                [package.blob], len_hint=1
            )
        cls.package_metadata = package.package_metadata

    # In the process of the task

    def task_pre_step(
        self, step_name, task_datastore, metadata, run_id, task_id, flow, graph, retry_count,
        max_retries, ubf_context, inputs,
    ) -> None:  # fmt: skip
        self.metadata, self.task_datastore = metadata, task_datastore
        self.place = (str(run_id), step_name, str(task_id), inputs)
        if in_job():
            from metaflow.metadata_provider import MetaDatum
            from metaflow.sidecar import Sidecar

            facts = {
                "sagemaker-training-job": os.environ.get("TRAINING_JOB_NAME"),
                "sagemaker-training-job-arn": os.environ.get("TRAINING_JOB_ARN"),
            }
            tags = [f"attempt_id:{retry_count}"]
            entries = [MetaDatum(name, value, name, tags) for name, value in facts.items() if value]
            metadata.register_metadata(run_id, step_name, task_id, entries)
            self.log_keeper = Sidecar("save_logs_periodically")
            self.log_keeper.start()

    def task_decorate(
        self,
        step_func: Callable[..., Any],
        flow,
        graph,
        retry_count,
        max_user_code_retries,
        ubf_context,
    ) -> Callable[..., Any]:
        handed_over = not self.attributes["wait"] and PACKAGE_VARIABLE in os.environ
        if not handed_over or ignored() or in_job() or retry_count > max_user_code_retries:
            return step_func
        from .handover import stand_in
        from .launch import start_beside

        run_id, step, task_id, inputs = self.place
        beside = f"{task_id}-sagemaker"

        def start() -> str:
            paths = ",".join(each.pathspec for each in inputs)
            return start_beside(
                self.settings(), flow.index, (run_id, step, beside), paths, retry_count
            )

        task = f"{flow.name}/{run_id}/{step}/{beside}"
        return stand_in(flow, step_func, list(graph[step].out_funcs), task, start)

    def task_finished(
        self, step_name, flow, graph, is_task_ok, retry_count, max_user_code_retries
    ) -> None:
        if not in_job():
            return
        self.log_keeper.terminate()
        if self.metadata.TYPE == "local":  # it lies in the job, and goes home by the datastore
            from metaflow.metadata_provider.util import sync_local_metadata_to_datastore

            sync_local_metadata_to_datastore(DATASTORE_LOCAL_DIR, self.task_datastore)


def ignored() -> bool:
    """Tells whether steps are to run on this machine."""
    return os.environ.get(IGNORE_VARIABLE, "").lower() in ("1", "true", "yes")


def in_job() -> bool:
    """Tells whether this process is in a training job that ``@in_sagemaker`` started."""
    return TASK_VARIABLE in os.environ
