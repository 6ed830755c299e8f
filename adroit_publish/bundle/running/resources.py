"""What a served model may use: ``serve.resources`` and ``serve.sagemaker`` of config.yaml.

Source: Kubernetes API, v1 Container and "Quantity"; Amazon SageMaker API reference,
CreateEndpointConfig.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

DEFAULT_INSTANCE_TYPE = "ml.m5.large"
_OURS = {"cpu", "memory", "gpu"}
_QUANTITY = re.compile(r"(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+|[numkMGTPE]|[KMGTPE]i)?")
_INSTANCE_TYPE = re.compile(r"ml\.[a-z0-9-]+\.[a-z0-9]+")


def kubernetes_resources(resources: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Returns resources in Kubernetes' words: no limit for the CPU, whose throttling is latency."""
    if not resources.keys() <= _OURS:
        return {
            part: {name: str(quantity) for name, quantity in quantities.items()}
            for part, quantities in resources.items()
        }
    requests = {name: str(resources[name]) for name in ("cpu", "memory")}
    limits = {"memory": requests["memory"]}
    if resources.get("gpu"):
        limits["nvidia.com/gpu"] = str(resources["gpu"])
    return {"requests": requests, "limits": limits}


def resource_problems(serve: Mapping[str, Any]) -> list[str]:
    """Returns what is wrong with ``serve.resources``: all of it, or nothing."""
    resources = serve.get("resources")
    if resources is None:
        return []
    if isinstance(resources, dict) and {"cpu", "memory"} <= resources.keys() <= _OURS:
        return [
            f"'resources.{name}' is {value!r}, {wanted}"
            for name, (value, wanted, right) in _checked(resources).items()
            if not right
        ]
    if not isinstance(resources, dict) or not resources.keys() <= {"requests", "limits"}:
        forms = "'cpu', 'memory' and perhaps 'gpu', or with 'requests' and 'limits'"
        return [f"'resources' is a mapping with {forms}"]
    problems = []
    for part, quantities in resources.items():
        if not isinstance(quantities, dict):
            problems.append(f"'resources.{part}' is a mapping such as {{cpu: 1, memory: 2Gi}}")
            continue
        problems += [
            f"'resources.{part}.{name}' is {value!r}, no quantity such as 500m, 2 or 2Gi"
            for name, value in quantities.items()
            if isinstance(value, bool) or not _QUANTITY.fullmatch(str(value))
        ]
    return problems


def _checked(resources: Mapping[str, Any]) -> dict[str, tuple[Any, str, bool]]:
    checked = {}
    for name, value in resources.items():
        number = not isinstance(value, bool)
        if name == "gpu":
            right = number and isinstance(value, int) and value >= 0
            checked[name] = (value, "no number of GPUs from 0", right)
        else:
            right = number and _QUANTITY.fullmatch(str(value)) is not None
            checked[name] = (value, "no quantity such as 500m, 2 or 2Gi", right)
    return checked


def sagemaker_problems(serve: Mapping[str, Any]) -> list[str]:
    """Returns what is wrong with ``serve.sagemaker``: all of it, or nothing."""
    wanted = serve.get("sagemaker")
    if wanted is None:
        return []
    if not isinstance(wanted, dict) or not wanted.keys() <= {"instance_type", "instance_count"}:
        return ["'sagemaker' is a mapping with 'instance_type' and 'instance_count'"]
    problems = []
    kind, count = (
        wanted.get("instance_type", DEFAULT_INSTANCE_TYPE),
        wanted.get("instance_count", 1),
    )
    if not (isinstance(kind, str) and _INSTANCE_TYPE.fullmatch(kind)):
        problems.append(f"'sagemaker.instance_type' is {kind!r}, no type such as ml.m5.large")
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        problems.append(f"'sagemaker.instance_count' is {count!r}, no number from 1")
    return problems
