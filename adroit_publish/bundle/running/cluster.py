"""What a Deployment needs to live in a cluster, as values: ``manifest --kind cluster``.

    PodDisruptionBudget      a node is drained only while another pod answers
    HorizontalPodAutoscaler  pods by the seconds that requests wait for a worker
    NetworkPolicy            in: the port of the server; out: names, and the agent on the node
    ServiceMonitor           the Prometheus operator's; scrapes /metrics of every pod

The autoscaler reads the pod metric ``adroit_queue_seconds_mean``, which an adapter (prometheus-
adapter, KEDA) makes of ``adroit_queue_seconds``: docs/serving.md has the rule.

Source: Kubernetes API, policy/v1, autoscaling/v2, networking.k8s.io/v1; Prometheus Operator API,
monitoring.coreos.com/v1 ServiceMonitor; Datadog documentation, "DogStatsD, Unix or UDP".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

QUEUE_METRIC = "adroit_queue_seconds_mean"
_QUEUE_TARGET = "50m"  # a twentieth of a second
_REPLICAS = (2, 10)
_DNS, _DOGSTATSD = 53, 8125


def cluster_documents(
    deployment: Mapping[str, Any], service: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Returns both documents and what keeps, scales, guards and watches them, in order.

    Args:
        deployment: As ``deployment.manifests`` makes it.
        service: Before it.
    """
    metadata, spec = deployment["metadata"], deployment["spec"]
    selector, port = spec["selector"], service["spec"]["ports"][0]["name"]
    scaled = {
        **deployment,
        "spec": {"replicas": _REPLICAS[0], **spec},
    }

    def document(api: str, kind: str, of: Mapping[str, Any]) -> dict[str, Any]:
        return {"apiVersion": api, "kind": kind, "metadata": dict(metadata), "spec": dict(of)}

    return [
        scaled,
        dict(service),
        document("policy/v1", "PodDisruptionBudget", {"selector": selector, "maxUnavailable": 1}),
        document("autoscaling/v2", "HorizontalPodAutoscaler", _scaling(metadata["name"])),
        document("networking.k8s.io/v1", "NetworkPolicy", _policy(selector, port)),
        document(
            "monitoring.coreos.com/v1",
            "ServiceMonitor",
            {"selector": selector, "endpoints": [{"port": port, "path": "/metrics"}]},
        ),
    ]


def _scaling(name: str) -> dict[str, Any]:
    return {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        "minReplicas": _REPLICAS[0],
        "maxReplicas": _REPLICAS[1],
        "metrics": [
            {
                "type": "Pods",
                "pods": {
                    "metric": {"name": QUEUE_METRIC},
                    "target": {"type": "AverageValue", "averageValue": _QUEUE_TARGET},
                },
            }
        ],
    }


def _policy(selector: Mapping[str, Any], port: str) -> dict[str, Any]:
    names = [{"protocol": protocol, "port": _DNS} for protocol in ("UDP", "TCP")]
    return {
        "podSelector": selector,
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"ports": [{"protocol": "TCP", "port": port}]}],
        "egress": [{"ports": [*names, {"protocol": "UDP", "port": _DOGSTATSD}]}],
    }
