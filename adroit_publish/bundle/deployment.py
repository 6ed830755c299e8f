"""What runs a published version: documents for Kubernetes, KServe and SageMaker, as values.

    deployment   a Deployment and the Service before it
    cluster      the same with what keeps, scales, guards and watches them (see ``running.cluster``)
    kserve       an InferenceService with the image as its predictor
    sagemaker    the requests of CreateModel and CreateEndpointConfig, by the names of these calls

All name the image by digest, so that what runs is what was verified. Objects are named after model
and version: an old and a new version stand side by side while traffic moves. The image serves
``/ping`` (ready) and ``/health`` (alive) on port 8080, needs no root and writes below /tmp alone.

config.yaml says what a model needs, and ``bundle.json`` keeps it with the version:

    serve:
      resources: {cpu: 2, memory: 4Gi, gpu: 1}    # or Kubernetes' own requests and limits
      sagemaker: {instance_type: ml.m5.large, instance_count: 1}

No role is in it: CreateModel takes ``--execution-role-arn`` beside ``--cli-input-json``.

Source: Kubernetes API, apps/v1 Deployment, v1 Container, "Quantity"; RFC 1123 and 1035 (labels);
KServe API, v1beta1 InferenceService, custom predictor; Knative Serving,
pkg/apis/serving/fieldmask.go; Amazon SageMaker API reference, CreateModel
and CreateEndpointConfig.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adroit_publish.bundle.digest import Digest
from adroit_publish.bundle.manifest import PORT
from adroit_publish.bundle.running.cluster import cluster_documents
from adroit_publish.bundle.running.resources import (
    DEFAULT_INSTANCE_TYPE,
    kubernetes_resources,
    resource_problems,
    sagemaker_problems,
)
from adroit_publish.errors import ConfigError, Problem

KINDS = ("deployment", "cluster", "kserve", "sagemaker")
LOAD_LIMIT_S = 1200
"""How long a model may take to load before it is given up."""
_PROBE_PERIOD_S = 5
# As adroit.serving has them: the longest prediction, and after SIGTERM a drain of 8 s before it.
_PREDICTION_S = 60
_GRACE_S = _PREDICTION_S + 15
_NOBODY = 65534
# KServe adds `-predictor` to the name, in a label of 63.
_NAME_CHARS = 63 - len("-predictor")


@dataclass(frozen=True)
class ServedVersion:
    """A published version, as far as running it is concerned.

    Attributes:
        bundle_id: Digest of ``bundle.json``: what the server says of itself at ``/bundle``.
        repository: Of its image: ``host/name``, without tag or digest.
        manifest: Digest of its image.
        flavor: What it is served as, where that is known.
    """

    model_name: str
    version: str
    bundle_id: Digest
    repository: str
    manifest: Digest
    serve: Mapping[str, Any]
    flavor: str | None = None

    @property
    def image(self) -> str:
        """The image by digest."""
        return f"{self.repository}@{self.manifest}"

    @property
    def object_name(self) -> str:
        """A name for what runs it: lower-case letters, digits and ``-``, at most 53 characters."""
        slug = re.sub(r"[^a-z0-9]+", "-", self.model_name.lower()).strip("-")
        if not slug[:1].isalpha():
            slug = f"m-{slug}"
        kept = slug[: _NAME_CHARS - len(self.version) - 1].rstrip("-")
        return f"{kept}-{self.version}"


def manifests(kind: str, served: ServedVersion) -> list[dict[str, Any]]:
    """Returns the documents that run a version, in the order they are applied.

    Args:
        kind: One of ``KINDS``.

    Raises:
        ConfigError: ``kind`` is none, or serve.resources or serve.sagemaker is not what it has to
            be; all problems together.
    """
    problems = [*resource_problems(served.serve), *sagemaker_problems(served.serve)]
    if problems:
        where = f"serve section of {served.version}"
        raise ConfigError.of(
            [Problem(where, 0, problem) for problem in problems],
            next_step="correct it in config.yaml, commit, and republish",
        )
    match kind:
        case "deployment":
            return [_deployment(served), _service(served)]
        case "cluster":
            return cluster_documents(_deployment(served), _service(served))
        case "kserve":
            return [_inference_service(served)]
        case "sagemaker":
            return [_sagemaker(served)]
        case _:
            raise ConfigError(
                "--kind names no kind of manifest.", got=kind, wanted=", ".join(KINDS)
            )


def _deployment(served: ServedVersion) -> dict[str, Any]:
    container = _container(served, "server") | {
        "ports": [{"name": "http", "containerPort": PORT}],
        "startupProbe": _probe("/ping", LOAD_LIMIT_S // _PROBE_PERIOD_S),
        "readinessProbe": _probe("/ping", 1),
        "livenessProbe": _probe("/health", 6),
    }
    container["securityContext"] |= {
        "allowPrivilegeEscalation": False,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(served),
        "spec": {
            "progressDeadlineSeconds": LOAD_LIMIT_S + 600,  # the image is pulled as well
            "selector": {"matchLabels": _selector(served)},
            "template": {
                "metadata": {
                    "labels": _labels(served),
                    "annotations": {
                        **_annotations(served),
                        "prometheus.io/scrape": "true",
                        "prometheus.io/port": str(PORT),
                        "prometheus.io/path": "/metrics",
                    },
                },
                "spec": {
                    **_pod(),
                    "terminationGracePeriodSeconds": _GRACE_S,
                    "containers": [container],
                },
            },
        },
    }


def _service(served: ServedVersion) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(served),
        "spec": {
            "selector": _selector(served),
            "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
        },
    }


def _inference_service(served: ServedVersion) -> dict[str, Any]:
    # Knative, below KServe, refuses fields that not all of its versions allow: startupProbe,
    # terminationGracePeriodSeconds (it takes `timeout`), and more of securityContext than this.
    # It tells HTTP by the port's name.
    container = _container(served, "kserve-container") | {
        "ports": [{"name": "http1", "containerPort": PORT, "protocol": "TCP"}],
        "readinessProbe": _probe("/ping", 3),
    }
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": _metadata(served),
        "spec": {"predictor": {**_pod(), "timeout": _PREDICTION_S, "containers": [container]}},
    }


def _pod() -> dict[str, Any]:
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }


def _container(served: ServedVersion, name: str) -> dict[str, Any]:
    container: dict[str, Any] = {
        "name": name,
        "image": served.image,
        "env": _variables(served),
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
        "securityContext": {
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "runAsUser": _NOBODY,
        },
    }
    if resources := served.serve.get("resources"):
        container["resources"] = kubernetes_resources(resources)
    return container


def _variables(served: ServedVersion) -> list[dict[str, Any]]:
    variables: list[dict[str, Any]] = [
        {"name": name, "value": value} for name, value in _environment(served).items()
    ]
    if _logs_features(served):  # Datadog's agent, one on each node
        node = {"fieldRef": {"fieldPath": "status.hostIP"}}
        variables.append({"name": "DD_AGENT_HOST", "valueFrom": node})
    return variables


def _probe(path: str, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": PORT},
        "periodSeconds": _PROBE_PERIOD_S,
        "timeoutSeconds": 3,
        "failureThreshold": failures,
    }


def _sagemaker(served: ServedVersion) -> dict[str, Any]:
    wanted, name = served.serve.get("sagemaker") or {}, served.object_name
    model = {
        "ModelName": name,
        "PrimaryContainer": {
            "Image": served.image,
            "Environment": _environment(served),
        },
        "Tags": _tags(served),
    }
    variant = {
        "VariantName": name,
        "ModelName": name,
        "InstanceType": wanted.get("instance_type", DEFAULT_INSTANCE_TYPE),
        "InitialInstanceCount": wanted.get("instance_count", 1),
        "ContainerStartupHealthCheckTimeoutInSeconds": LOAD_LIMIT_S,
    }
    endpoint = {
        "EndpointConfigName": name,
        "ProductionVariants": [variant],
        "Tags": _tags(served),
    }
    return {"CreateModel": model, "CreateEndpointConfig": endpoint}


def _environment(served: ServedVersion) -> dict[str, str]:
    flavor = {"ADROIT_FLAVOR": served.flavor} if served.flavor else {}
    return {"ADROIT_VERSION": served.version, **flavor}


def _logs_features(served: ServedVersion) -> bool:
    kwargs = (served.serve.get("handler") or {}).get("kwargs") or {}
    return bool(kwargs.get("log_features_percent"))


def _metadata(served: ServedVersion) -> dict[str, Any]:
    return {
        "name": served.object_name,
        "labels": _labels(served),
        "annotations": _annotations(served),
    }


def _selector(served: ServedVersion) -> dict[str, str]:
    return {"app.kubernetes.io/instance": served.object_name}


def _labels(served: ServedVersion) -> dict[str, str]:
    return {
        **_selector(served),
        "app.kubernetes.io/name": served.object_name.removesuffix(f"-{served.version}"),
        "app.kubernetes.io/version": served.version,
        "app.kubernetes.io/managed-by": "adroit-publish",
    }


def _annotations(served: ServedVersion) -> dict[str, str]:
    flavor = {"adroit/flavor": served.flavor} if served.flavor else {}
    identity = {"adroit/model-name": served.model_name, "adroit/bundle-id": str(served.bundle_id)}
    return identity | flavor


def _tags(served: ServedVersion) -> list[dict[str, str]]:
    tags = _annotations(served) | {"adroit/version": served.version}
    return [{"Key": key, "Value": value} for key, value in tags.items()]
