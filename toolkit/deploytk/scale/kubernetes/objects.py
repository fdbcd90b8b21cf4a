"""All objects of a deployment, as Kubernetes takes them: built as values, so that no text can become a key."""

from __future__ import annotations

from deploytk.scale.contract import Replica
from deploytk.scale.kubernetes.autoscaling import autoscaler_of
from deploytk.scale.kubernetes.pods import Object, labels_of, pod_of, selector_of
from deploytk.scale.wishes import Wishes

CANARY = "canary"


def objects_of(replica: Replica, wishes: Wishes) -> dict[str, Object]:
    """By the names of their files, in the order in which they are applied."""
    found = {
        "networkpolicy": network_policy(replica),
        "service": service(replica),
        "pdb": disruption_budget(replica),
        "deployment": deployment(replica, wishes),
    }
    if not wishes.replicas.are_fixed:
        found["autoscaler"] = autoscaler_of(replica, wishes)
    if wishes.has_monitoring:
        found["servicemonitor"] = service_monitor(replica, wishes)
    return found


def deployment(replica: Replica, wishes: Wishes, revision: str = "stable", count: int | None = None) -> Object:
    labels = labels_of(replica, revision)
    is_owned_by_autoscaler = count is None and not wishes.replicas.are_fixed
    number = wishes.replicas.least if count is None else count
    name = replica.name if revision == "stable" else f"{replica.name}-{revision}"
    return {
        **_head("apps/v1", "Deployment", name, replica, revision),
        "spec": {
            **({} if is_owned_by_autoscaler else {"replicas": number}),
            "revisionHistoryLimit": 3,
            "progressDeadlineSeconds": replica.start_s + 300,  # and some minutes to pull the image
            # GPUs are counted: a Pod more than there are would wait for ever.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": _steps(replica, number)},
            "selector": {"matchLabels": selector_of(replica, revision)},
            "template": {
                "metadata": {"labels": labels, "annotations": {"deploytk.ai/bundle": replica.bundle}},
                "spec": pod_of(replica, wishes),
            },
        },
    }


def _steps(replica: Replica, number: int) -> Object:
    """A tenth at a time: one by one, a thousand would take a day."""
    many = max(1, number // 10)
    return {"maxSurge": 0, "maxUnavailable": many} if replica.gpus else {"maxSurge": many, "maxUnavailable": 0}


def service(replica: Replica, revision: str | None = None) -> Object:
    """In front of all Pods, of both revisions; or of one revision alone."""
    name = replica.name if revision is None else f"{replica.name}-{revision}"
    return {
        **_head("v1", "Service", name, replica, revision or "stable"),
        "spec": {
            "type": "ClusterIP",
            "selector": selector_of(replica, revision),
            "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
        },
    }


def disruption_budget(replica: Replica) -> Object:
    return {
        **_head("policy/v1", "PodDisruptionBudget", replica.name, replica),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": selector_of(replica)}},
    }


def network_policy(replica: Replica) -> Object:
    """In: one port, from this namespace and from those that are labelled as clients. Out: what weights need."""
    clients = {"namespaceSelector": {"matchLabels": {"deploytk.ai/clients": "true"}}}
    return {
        **_head("networking.k8s.io/v1", "NetworkPolicy", replica.name, replica),
        "spec": {
            "podSelector": {"matchLabels": selector_of(replica)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [{"podSelector": {}}, clients], "ports": [{"protocol": "TCP", "port": replica.port}]}],
            "egress": _outgoing(replica),
        },
    }


def _outgoing(replica: Replica) -> list[Object]:
    if replica.weights != "download":
        return []
    names = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
    return [{"ports": names}, {"ports": [{"protocol": "TCP", "port": 443}]}]


def service_monitor(replica: Replica, wishes: Wishes) -> Object:
    endpoint: Object = {"port": "http", "path": "/metrics", "interval": "15s"}
    if wishes.keys:
        # The whole value is the key: one key alone in it, or a Secret of its own for Prometheus.
        endpoint["authorization"] = {"credentials": {"name": f"{replica.name}-keys", "key": "metrics-key"}}
    return {
        **_head("monitoring.coreos.com/v1", "ServiceMonitor", replica.name, replica),
        "spec": {"selector": {"matchLabels": selector_of(replica, "stable")}, "endpoints": [endpoint]},
    }


def _head(version: str, kind: str, name: str, replica: Replica, revision: str = "stable") -> Object:
    metadata = {
        "name": name,
        "labels": labels_of(replica, revision),
        "annotations": {"deploytk.ai/title": replica.title},
    }
    return {"apiVersion": version, "kind": kind, "metadata": metadata}
