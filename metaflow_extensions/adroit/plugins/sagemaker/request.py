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
    for name in ("volume_size", "max_run", "max_wait"):
        value = values.get(name)
        if name == "max_wait" and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            found.append(f"{name} has to be a whole number above 0, not {value!r}")
    if not str(values.get("instance_type")).startswith("ml."):
        found.append(
            f"instance_type is one of SageMaker's, as ml.m5.large: {values['instance_type']!r}"
        )
    if not isinstance(values.get("spot"), bool):
        found.append(f"spot is True or False, not {values.get('spot')!r}")
    if not isinstance(values.get("tags"), Mapping):
        found.append(f"tags are names and values, not {values.get('tags')!r}")
    if bool(values.get("subnets")) != bool(values.get("security_groups")):
        found.append("subnets and security_groups come together")
    return found


def settings_of(values: Mapping[str, Any]) -> Settings:
    """Returns the settings that ``problems`` has nothing against."""
    known = {each.name for each in fields(Settings)}
    given = {name: value for name, value in values.items() if name in known}
    for name in ("subnets", "security_groups"):
        given[name] = tuple(given.get(name) or ())
    return Settings(**given)


def job_name(flow: str, run_id: str, step: str, task_id: str, attempt: int, root: str) -> str:
    """Returns the name of a task's job: readable, and of its own for every attempt.

    Args:
        flow: The flow's name.
        run_id: Of the Metaflow run.
        step: The step's name.
        task_id: The task's id.
        attempt: Counted from 0.
        root: Of the datastore: run ids of two metadata services may be the same.
    """
    whole = "/".join((root, flow, run_id, step, task_id, str(attempt)))
    unique = f"-{task_id[-12:]}-{attempt}-{sha256(whole.encode()).hexdigest()[:8]}"
    unique = re.sub(r"[^A-Za-z0-9]+", "-", unique)
    readable = re.sub(r"[^A-Za-z0-9]+", "-", f"{flow}-{step}").strip("-")
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
            "InstanceCount": 1,
            "VolumeSizeInGB": settings.volume_size,
        },
        "StoppingCondition": limit,
        "Environment": {TASK_VARIABLE: task, **environment},
        "Tags": [{"Key": key, "Value": str(value)} for key, value in settings.tags.items()],
    }
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
