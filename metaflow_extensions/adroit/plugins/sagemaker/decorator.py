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

from metaflow._vendor import click
from metaflow.decorators import StepDecorator
from metaflow.metaflow_config import (
    DATASTORE_LOCAL_DIR,
    FEAT_ALWAYS_UPLOAD_CODE_PACKAGE,
    SERVICE_INTERNAL_URL,
)
from metaflow.metaflow_config_funcs import from_conf
from metaflow.packaging_sys import ContentType

from .administered import MERGED, PRICES, defaults_in, merged
from .errors import SagemakerError
from .instances import INSTANCES, Needs, cheapest, fits
from .reach import unreachable
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
    keep_alive_period_in_seconds : int, optional
        How long the instances stay warm for the next job, which then begins at once; not with spot.
    environment_variables : Dict[str, str], optional
        What the step finds in its environment; ``@secrets`` is for secrets.
    pre_execution_commands : List[str], optional
        Shell commands that run before the step.
    include : List[str], optional
        Files, directories or patterns beside the flow that go along.
    exclude : List[str], optional
        Patterns of files that do not.
    volume_kms_key : str, optional
        KMS key of the job's volume.
    s3_kms_key : str, optional
        KMS key of what SageMaker writes to S3.
    encrypt_inter_container_traffic : bool, default False
        Encrypt what instances send each other.
    job_name_prefix : str, optional
        The beginning of the job's name, in place of flow and step.
    max_retry_attempts : int, default 0
        How often a job is started again that found no capacity.
    instance_count : int, default 1
        Instances; more than one with ``use_torchrun``.
    use_torchrun : bool, default False
        Run the step in ``nproc_per_node`` processes on each instance, as torchrun does.
    nproc_per_node : int, optional
        As many as there are GPUs, at least one.
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
        "keep_alive_period_in_seconds": None,
        "environment_variables": None,
        "pre_execution_commands": None,
        "include": None,
        "exclude": None,
        "volume_kms_key": None,
        "s3_kms_key": None,
        "encrypt_inter_container_traffic": False,
        "job_name_prefix": None,
        "max_retry_attempts": 0,
        "instance_count": 1,
        "use_torchrun": False,
        "nproc_per_node": None,
    }
    package_url = package_sha = package_metadata = None
    supports_conda_environment = True  # read by Metaflow: what runs elsewhere, and on what
    target_platform = "linux-64"

    # In the process that runs the flow

    def init(self) -> None:
        values, own = self.attributes, self._user_defined_attributes
        said = defaults_in(from_conf("SAGEMAKER_DEFAULTS"), self.defaults)
        self.prices = said.pop(PRICES, {})
        for name, default in said.items():
            values[name] = merged(name, default, values[name]) if name in own else default
        self.type_is_given = "instance_type" in own or "instance_type" in said
        values["image"] = values["image"] or from_conf("SAGEMAKER_IMAGE")
        values["role"] = values["role"] or from_conf("SAGEMAKER_IAM_ROLE")
        for name in MERGED:
            values[name] = values[name] or {}

    def step_init(self, flow, graph, step, decos, environment, flow_datastore, logger) -> None:
        self.step, self.decos = step, decos
        self._check_alone()
        self.flow, self.graph = flow, graph
        self.flow_datastore, self.environment = flow_datastore, environment
        self._honour_resources()
        limits = [deco.secs for deco in decos if deco.name == "timeout"]
        if limits and isinstance(self.attributes["max_run"], int):
            self.attributes["max_run"] = min(
                self.attributes["max_run"], max(limits) + TIMEOUT_MARGIN_S
            )

    def runtime_init(self, flow, graph, package, run_id) -> None:
        self.package = package
        if ignored():
            return
        found = problems(self.attributes) + self.unmet + unreachable(self._addresses())
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

    def add_to_package(self) -> Iterator[tuple[Any, ...]]:
        from .shipped import included_files, shipped_files

        self._check_alone()  # a deployment gives steps its own decorator just before it packs them
        flow = Path(sys.modules[type(self.flow).__module__].__file__ or "")
        yield from ((str(path), name) for path, name in shipped_files(flow))
        asked = (self.attributes["include"] or (), self.attributes["exclude"] or ())
        for path, name in included_files(flow, *asked):
            yield str(path), name, ContentType.USER_CONTENT

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
        return settings_of({**self.attributes, PRICES: self.prices})

    def _honour_resources(self) -> None:
        """Chooses the instance type that ``@resources`` needs, or judges the one given."""
        self.unmet: list[str] = []
        for asked in (deco.attributes for deco in self.decos if deco.name == "resources"):
            needs = Needs(float(asked["cpu"] or 1), float(asked["memory"]), int(asked["gpu"] or 0))
            given = self.attributes["instance_type"]
            if not self.type_is_given:
                self.attributes["instance_type"] = cheapest(needs) or given
                given = self.attributes["instance_type"]
            if given in INSTANCES and not fits(INSTANCES[given], needs):
                self.unmet.append(
                    f"{given} has less than @resources({needs}) asks for"
                    + (f"; {better} has it" if (better := cheapest(needs)) else "")
                )

    def _addresses(self) -> dict[str, str | None]:
        """Returns the addresses that the step would use in the job, by their settings' names."""
        addresses = {"MLFLOW_TRACKING_URI": os.environ.get("MLFLOW_TRACKING_URI")}
        for deco in self.decos:
            if deco.name == "environment":
                addresses |= {name: str(value) for name, value in deco.attributes["vars"].items()}
        for name, value in dict(self.attributes["environment_variables"]).items():
            addresses[name] = str(value)
        if click.get_current_context().obj.metadata.TYPE == "service":
            addresses["METAFLOW_SERVICE_INTERNAL_URL"] = SERVICE_INTERNAL_URL
        return addresses

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
            self.log_keeper = None
            if first_of_its_processes():  # whose log it is
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
        if self.log_keeper:
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


def first_of_its_processes() -> bool:
    """Tells whether this is the process that is the task, where ``torchrun`` started several."""
    return os.environ.get("RANK", "0") == "0"
