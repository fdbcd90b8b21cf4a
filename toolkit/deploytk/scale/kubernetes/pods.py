"""The Pod of a replica, as Kubernetes' profile `restricted` wants it."""

from __future__ import annotations

from typing import Any

from deploytk.image.value import USER, WEIGHTS_PLACE
from deploytk.scale.contract import GIB, LEAVES_S, Replica
from deploytk.scale.wishes import Wishes

Object = dict[str, Any]

GPU = "nvidia.com/gpu"
CONTAINER = "model"
_BUNDLE = "/bundle"


def labels_of(replica: Replica, revision: str = "stable") -> dict[str, str]:
    return {
        **selector_of(replica, revision),
        "app.kubernetes.io/version": replica.bundle.removeprefix("sha256:")[:12] or "unknown",
        "app.kubernetes.io/component": "inference",
        "app.kubernetes.io/managed-by": "deploytk",
    }


def selector_of(replica: Replica, revision: str | None = None) -> dict[str, str]:
    """What tells the Pods of a replica from all others; of both revisions where none is named."""
    found = {"app.kubernetes.io/name": replica.name, "app.kubernetes.io/instance": replica.name}
    return found if revision is None else found | {"deploytk.ai/revision": revision}


def pod_of(replica: Replica, wishes: Wishes) -> Object:
    """The spec of the Pod: nothing of it can be written to but /tmp, and no service account is in it."""
    volumes = _volumes(replica, wishes)
    spec: Object = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": replica.leaves_within_s,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(replica, wishes, volumes)],
        "volumes": [{"name": name, **source} for name, _, source in volumes],
    }
    if replica.gpus:
        spec["tolerations"] = [{"key": GPU, "operator": "Exists", "effect": "NoSchedule"}]
        if replica.gpu_bytes:
            spec["affinity"] = _on_such_gpus(replica)
    if wishes.runtime_class:
        spec["runtimeClassName"] = wishes.runtime_class
    if wishes.pull_secret:
        spec["imagePullSecrets"] = [{"name": wishes.pull_secret}]
    if wishes.is_many:
        spec["topologySpreadConstraints"] = [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": selector_of(replica)},
            }
        ]
    return spec


def _container(replica: Replica, wishes: Wishes, volumes: list[tuple[str, Object, Object]]) -> Object:
    memory = f"{replica.memory_bytes // GIB}Gi"
    limits = {"memory": memory} | ({GPU: str(replica.gpus)} if replica.gpus else {})
    requests = {"cpu": str(replica.cpus), **limits}
    return {
        "name": CONTAINER,
        "image": replica.image,
        "imagePullPolicy": "IfNotPresent",
        "ports": [{"name": "http", "containerPort": replica.port}],
        "env": _environment(replica, wishes),
        "resources": {"requests": requests, "limits": limits},
        # Loading is waited for here alone: what comes after may be impatient.
        "startupProbe": {**_asks("/ready"), "periodSeconds": 5, "failureThreshold": max(1, replica.start_s // 5)},
        "readinessProbe": {**_asks("/ready"), "periodSeconds": 5, "failureThreshold": 2},
        # The app's own watchdog starts an engine again that hangs; this is about the app.
        "livenessProbe": {**_asks("/health"), "periodSeconds": 15, "failureThreshold": 4},
        "lifecycle": {"preStop": {"sleep": {"seconds": LEAVES_S}}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": name, **mount} for name, mount, _ in volumes],
    }


def _asks(path: str) -> Object:
    return {"httpGet": {"path": path, "port": "http"}, "timeoutSeconds": 5}


def _environment(replica: Replica, wishes: Wishes) -> list[Object]:
    """No value of a secret is in it, only where it is."""
    found: list[Object] = [
        {"name": "DEPLOYTK_DRAIN_S", "value": str(replica.drain_s)},
        {"name": "DEPLOYTK_READY_S", "value": str(replica.start_s)},
    ]
    if wishes.keys:
        source = {"secretKeyRef": {"name": f"{replica.name}-keys", "key": "api-keys"}}
        found.append({"name": "DEPLOYTK_API_KEYS", "valueFrom": source})
    if replica.weights == "download":
        token = {"secretKeyRef": {"name": f"{replica.name}-hub", "key": "token", "optional": True}}
        found.append({"name": "HF_TOKEN", "valueFrom": token})
    return found


def _volumes(replica: Replica, wishes: Wishes) -> list[tuple[str, Object, Object]]:
    """Name, mount and source of each."""
    memory = f"{replica.shm_bytes // GIB}Gi"
    found: list[tuple[str, Object, Object]] = [
        ("tmp", {"mountPath": "/tmp"}, {"emptyDir": {}}),  # noqa: S108 (the container's)
        ("shm", {"mountPath": "/dev/shm"}, {"emptyDir": {"medium": "Memory", "sizeLimit": memory}}),  # noqa: S108
    ]
    if wishes.claim:
        source: Object = {"persistentVolumeClaim": {"claimName": wishes.claim, "readOnly": True}}
        found.append(("bundle", {"mountPath": _BUNDLE, "readOnly": True}, source))
    if wishes.volume:
        mount = {"mountPath": _BUNDLE, "readOnly": True, "subPath": "bundle"}
        found.append(("bundle", mount, {"image": {"reference": wishes.volume, "pullPolicy": "IfNotPresent"}}))
    if replica.weights == "download":
        found.append(("weights", {"mountPath": WEIGHTS_PLACE}, {"emptyDir": {}}))
    return found


def _on_such_gpus(replica: Replica) -> Object:
    """On nodes whose GPUs have enough memory, as NVIDIA's GPU feature discovery labels them, in MiB."""
    assert replica.gpu_bytes is not None  # noqa: S101 (asked by who calls)
    least_mib = replica.vram_bytes // 2**20
    term = {"matchExpressions": [{"key": "nvidia.com/gpu.memory", "operator": "Gt", "values": [str(least_mib)]}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}
