"""The request for a training job, within SageMaker's limits. Pure.

Source: the SageMaker API reference, CreateTrainingJob: 63 characters a job's name, 256 an item of
the entrypoint, 512 a value of the environment. So the job is told only where its script is: a
channel, which SageMaker itself copies to ``/opt/ml/input/data/`` before the container starts. The
container needs no AWS library to begin.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from hashlib import sha256
from typing import Any

CHANNEL = "metaflow"
SCRIPT = "run.sh"
TASK_VARIABLE = "METAFLOW_SAGEMAKER_TASK"
PACKAGE_VARIABLE = "METAFLOW_SAGEMAKER_PACKAGE"
NAME_LIMIT = 63
SPOT_WAIT_S = 3600
"""How much longer than it may run a spot job may wait for capacity, where nobody says."""

_MOST = 10**9
_NUMBERS = {
    "volume_size": (1, _MOST),
    "max_run": (1, _MOST),
    "max_wait": (1, _MOST),
    "keep_alive_period_in_seconds": (1, 3600),
    "max_retry_attempts": (0, 30),
    "instance_count": (1, 100),
    "nproc_per_node": (1, 1000),
}
_OPTIONAL = ("max_wait", "keep_alive_period_in_seconds", "nproc_per_node")
_LISTS = ("subnets", "security_groups", "pre_execution_commands")


@dataclass(frozen=True)
class Settings:
    """What ``@in_sagemaker`` is given.

    Attributes:
        image: The container's image, from ECR.
        role: ARN of the IAM role that the job has.
        instance_type: One instance of this type.
        volume_size: Of ``/opt/ml``, in GB.
        max_run: How long the job may take, in seconds.
        spot: Run on spot capacity.
        max_wait: How long a spot job may take with its waiting, in seconds; None for
            ``SPOT_WAIT_S`` more than ``max_run``.
        tags: Tags of the job.
        subnets: Subnets of the VPC that the job runs in; with ``security_groups``.
        security_groups: Their security groups.
        keep_alive_period_in_seconds: How long the instances are kept warm for the next job.
        environment_variables: What the step finds in its environment.
        pre_execution_commands: Shell commands that run before the step.
        volume_kms_key: Encrypts the job's volume.
        s3_kms_key: Encrypts what SageMaker writes to S3.
        encrypt_inter_container_traffic: Between instances.
        job_name_prefix: The beginning of the job's name, in place of flow and step.
        max_retry_attempts: How often a job that finds no capacity, or that SageMaker fails, is
            started again.
        instance_count: Instances; more than one only with ``use_torchrun``.
        use_torchrun: The step runs in ``nproc_per_node`` processes on each instance.
        nproc_per_node: None for as many as there are GPUs, at least one.
        usd_per_hour: Prices by instance type that come before the list's.
    """

    image: str
    role: str
    instance_type: str = "ml.m5.large"
    volume_size: int = 30
    max_run: int = 86400
    spot: bool = False
    max_wait: int | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    keep_alive_period_in_seconds: int | None = None
    environment_variables: Mapping[str, str] = field(default_factory=dict)
    pre_execution_commands: tuple[str, ...] = ()
    volume_kms_key: str | None = None
    s3_kms_key: str | None = None
    encrypt_inter_container_traffic: bool = False
    job_name_prefix: str | None = None
    max_retry_attempts: int = 0
    instance_count: int = 1
    use_torchrun: bool = False
    nproc_per_node: int | None = None
    usd_per_hour: Mapping[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Returns them as JSON values; ``Settings(**values)`` is the way back."""
        return asdict(self)


def problems(values: Mapping[str, Any]) -> list[str]:
    """Returns what is wrong with settings as they were written, one line each.

    Args:
        values: By the names of ``Settings``; None where nothing was said.
    """
    found = []
    for name, where in (
        ("image", "image=, or METAFLOW_SAGEMAKER_IMAGE in Metaflow's configuration"),
        ("role", "role=, or METAFLOW_SAGEMAKER_IAM_ROLE in Metaflow's configuration"),
    ):
        if not isinstance(values.get(name), str) or not values[name]:
            found.append(f"{name} is not set: {where}")
    for name, (least, most) in _NUMBERS.items():
        value = values.get(name)
        if name not in values or (value is None and name in _OPTIONAL):
            continue
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or not least <= int(str(value)) <= most:
            limits = f"above {least - 1}" if most == _MOST else f"from {least} to {most}"
            found.append(f"{name} has to be a whole number {limits}, not {value!r}")
    if not str(values.get("instance_type")).startswith("ml."):
        found.append(
            f"instance_type is one of SageMaker's, as ml.m5.large: {values['instance_type']!r}"
        )
    for name in ("spot", "encrypt_inter_container_traffic", "use_torchrun"):
        if not isinstance(values.get(name, False), bool):
            found.append(f"{name} is True or False, not {values[name]!r}")
    for name in ("tags", "environment_variables"):
        if not isinstance(values.get(name, {}), Mapping):
            found.append(f"{name} are names and values, not {values[name]!r}")
    for name in _LISTS:
        if isinstance(values.get(name), str):
            found.append(f"{name} is a list, not {values[name]!r}")
    if bool(values.get("subnets")) != bool(values.get("security_groups")):
        found.append("subnets and security_groups come together")
    return found + _contradictions(values)


def _contradictions(values: Mapping[str, Any]) -> list[str]:
    found = []
    if values.get("spot") and values.get("keep_alive_period_in_seconds"):
        found.append("keep_alive_period_in_seconds cannot be with spot: SageMaker keeps no spot")
    if values.get("instance_count", 1) != 1 and not values.get("use_torchrun"):
        found.append("instance_count above 1 needs use_torchrun=True: each would run the step")
    environment = values.get("environment_variables")
    if isinstance(environment, Mapping):
        found += [
            f"environment_variables: {name!r} is not a name of a variable"
            for name in environment
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", str(name))
        ]
    prefix = values.get("job_name_prefix")
    if prefix is not None and not re.fullmatch(r"[A-Za-z0-9](-?[A-Za-z0-9]){0,29}", str(prefix)):
        found.append(f"job_name_prefix has at most 30 letters, digits and '-', not {prefix!r}")
    return found


def settings_of(values: Mapping[str, Any]) -> Settings:
    """Returns the settings that ``problems`` has nothing against."""
    known = {each.name for each in fields(Settings)}
    given = {name: value for name, value in values.items() if name in known}
    for name in _LISTS:
        given[name] = tuple(given.get(name) or ())
    return Settings(**given)


def job_name(
    flow: str,
    run_id: str,
    step: str,
    task_id: str,
    attempt: int,
    root: str,
    *,
    prefix: str | None = None,
    again: int = 0,
) -> str:
    """Returns the name of a task's job: readable, and of its own for every attempt.

    Args:
        flow: The flow's name.
        run_id: Of the Metaflow run.
        step: The step's name.
        task_id: The task's id.
        attempt: Counted from 0.
        root: Of the datastore: run ids of two metadata services may be the same.
        prefix: In place of the flow and the step.
        again: How often this attempt found no capacity.
    """
    tried = f"{attempt}-{again}" if again else str(attempt)
    whole = "/".join((root, flow, run_id, step, task_id, tried))
    unique = f"-{task_id[-12:]}-{tried}-{sha256(whole.encode()).hexdigest()[:8]}"
    unique = re.sub(r"[^A-Za-z0-9]+", "-", unique)
    readable = re.sub(r"[^A-Za-z0-9]+", "-", prefix or f"{flow}-{step}").strip("-")
    return readable[: NAME_LIMIT - len(unique)].rstrip("-") + unique


def training_request(
    name: str, settings: Settings, place: str, task: str, environment: Mapping[str, str]
) -> dict[str, Any]:
    """Returns the arguments of ``create_training_job``.

    Args:
        name: From ``job_name``.
        settings: As checked by ``problems``.
        place: ``s3://`` prefix of this job's own; its script lies at ``place/in/run.sh``.
        task: ``RUN/STEP/TASK``, to find the task by the job.
        environment: What the container has from its start; values of at most 512 characters.
    """
    limit: dict[str, int] = {"MaxRuntimeInSeconds": settings.max_run}
    request: dict[str, Any] = {
        "TrainingJobName": name,
        "RoleArn": settings.role,
        "AlgorithmSpecification": {
            "TrainingImage": settings.image,
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["bash", f"/opt/ml/input/data/{CHANNEL}/{SCRIPT}"],
        },
        "InputDataConfig": [
            {
                "ChannelName": CHANNEL,
                "InputMode": "File",
                "DataSource": {
                    "S3DataSource": {
                        "S3DataType": "S3Prefix",
                        "S3Uri": f"{place}/in/",
                        "S3DataDistributionType": "FullyReplicated",
                    }
                },
            }
        ],
        "OutputDataConfig": {"S3OutputPath": f"{place}/out"},
        "ResourceConfig": {
            "InstanceType": settings.instance_type,
            "InstanceCount": settings.instance_count,
            "VolumeSizeInGB": settings.volume_size,
        },
        "StoppingCondition": limit,
        "Environment": {TASK_VARIABLE: task, **environment},
        "Tags": [{"Key": key, "Value": str(value)} for key, value in settings.tags.items()],
    }
    resources, output = request["ResourceConfig"], request["OutputDataConfig"]
    if settings.keep_alive_period_in_seconds:
        resources["KeepAlivePeriodInSeconds"] = settings.keep_alive_period_in_seconds
    if settings.volume_kms_key:
        resources["VolumeKmsKeyId"] = settings.volume_kms_key
    if settings.s3_kms_key:
        output["KmsKeyId"] = settings.s3_kms_key
    if settings.encrypt_inter_container_traffic:
        request["EnableInterContainerTrafficEncryption"] = True
    if settings.max_retry_attempts:
        request["RetryStrategy"] = {"MaximumRetryAttempts": settings.max_retry_attempts}
    if settings.spot:
        request["EnableManagedSpotTraining"] = True
        limit["MaxWaitTimeInSeconds"] = settings.max_wait or settings.max_run + SPOT_WAIT_S
        request["CheckpointConfig"] = {"S3Uri": f"{place.rpartition('/')[0]}/checkpoints/{task}"}
    if settings.subnets:
        request["VpcConfig"] = {
            "Subnets": list(settings.subnets),
            "SecurityGroupIds": list(settings.security_groups),
        }
    return request
