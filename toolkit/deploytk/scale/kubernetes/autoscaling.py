"""Replicas that come and go: by how many requests wait for a place at the engine.

The gateway of the app gives the engine as many requests as its batch takes and keeps the others in a queue: so the
queue, deploytk_requests_waiting, says that there is too much to do, and LMDeploy's own gauge of it stays at 0.
"""

from __future__ import annotations

from deploytk.scale.contract import Replica
from deploytk.scale.kubernetes.pods import Object, labels_of
from deploytk.scale.wishes import Wishes

WAITING = "deploytk_requests_waiting"
_SETTLES_S = 600  # before a replica goes: it took minutes to come


def autoscaler_of(replica: Replica, wishes: Wishes) -> Object:
    head = {"name": replica.name, "labels": labels_of(replica), "annotations": {"deploytk.ai/title": replica.title}}
    return _scaled_object(replica, wishes, head) if wishes.autoscaler == "keda" else _hpa(replica, wishes, head)


def _behavior() -> Object:
    return {
        "scaleUp": {
            "stabilizationWindowSeconds": 0,
            "policies": [{"type": "Percent", "value": 100, "periodSeconds": 60}],
        },
        "scaleDown": {
            "stabilizationWindowSeconds": _SETTLES_S,
            "policies": [{"type": "Pods", "value": 1, "periodSeconds": 120}],
        },
    }


def _hpa(replica: Replica, wishes: Wishes, metadata: Object) -> Object:
    """Needs the Prometheus adapter, which tells Kubernetes the gauge."""
    gauge = {"name": WAITING}
    metric = {
        "type": "Pods",
        "pods": {"metric": gauge, "target": {"type": "AverageValue", "averageValue": str(replica.scale_at)}},
    }
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": metadata,
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": replica.name},
            "minReplicas": wishes.replicas.least,
            "maxReplicas": wishes.replicas.most,
            "metrics": [metric],
            "behavior": _behavior(),
        },
    }


def _scaled_object(replica: Replica, wishes: Wishes, metadata: Object) -> Object:
    """Needs KEDA, which asks Prometheus itself."""
    where = f'namespace="{wishes.namespace}",pod=~"{replica.name}-.*"'
    trigger = {
        "type": "prometheus",
        "metadata": {
            "serverAddress": wishes.prometheus,
            "query": f"sum({WAITING}{{{where}}})",
            "threshold": str(replica.scale_at),
        },
    }
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": metadata,
        "spec": {
            "scaleTargetRef": {"name": replica.name},
            "minReplicaCount": wishes.replicas.least,
            "maxReplicaCount": wishes.replicas.most,
            "cooldownPeriod": _SETTLES_S,
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": _behavior()}},
            "triggers": [trigger],
        },
    }
