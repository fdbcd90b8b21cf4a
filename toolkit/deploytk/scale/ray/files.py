"""The files of a deployment on Ray: config, load balancer, how nodes are started, and a RayService for KubeRay."""

from __future__ import annotations

import os
from typing import Any

from deploytk.base.yaml import dump_yaml
from deploytk.scale.contract import GIB, Replica
from deploytk.scale.haproxy import Backend, backend_of, haproxy_config
from deploytk.scale.ray.config import PORT, serve_config
from deploytk.scale.wishes import Wishes

BALANCER_PORT = 8080
HEALTH = "/-/healthz"
"""What the proxy of a node answers while it takes requests."""

RAY = "2.60.0"

# A node that is gone is known to be after 3 s. A proxy gets more time: on a node that is short of processors it would
# be ended for being slow, and the load balancer goes around one that is really gone.
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "2",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "10",
}

_HEAD = (
    'exec ray start --head --node-ip-address="$NODE_IP" --port=6379 --dashboard-host=127.0.0.1 --disable-usage-stats'
)
_WORKER = 'exec ray start --address="$HEAD_IP:6379" --node-ip-address="$NODE_IP" --disable-usage-stats'


def ray_files(replica: Replica, wishes: Wishes) -> dict[str, str]:
    config = dump_yaml(serve_config(replica, wishes).written())
    backend = _backend(replica, wishes)
    found = {
        "serve.yaml": config,
        "haproxy.cfg": haproxy_config(replica, backend, BALANCER_PORT),
        "head.sh": _script(_HEAD, "NODE_IP"),
        "worker.sh": _script(_WORKER, "NODE_IP", "HEAD_IP"),
    }
    if replica.image:
        found["rayservice.yaml"] = dump_yaml(_ray_service(replica, wishes, config))
    return found


def _backend(replica: Replica, wishes: Wishes) -> Backend:
    """The proxies of Ray on all nodes; that of the head, the first of them, is asked when there is no other.

    A replica waits until the proxy that it answers has taken all of an answer, or is known to be dead, and answers
    nobody meanwhile. That its node is gone the head would say: while it is away, its own proxy must have asked nothing.
    Measured: 24 to 27 s without an answer (Ray 2.60, `TaskGeneratorBackpressureWaiter::WaitAllObjectsReported`).
    """
    head, *others = wishes.nodes or ("127.0.0.1",)
    asked, spare = (others, head) if others else ([head], "")
    per_node = -(-wishes.replicas.most // len(asked))
    return backend_of(replica, asked, PORT, HEALTH, per_node, spare)


def ray_warnings(wishes: Wishes) -> tuple[str, ...]:
    """What takes the whole cluster with it."""
    if wishes.is_many and not os.environ.get("RAY_REDIS_ADDRESS"):
        return (
            "without Redis (RAY_REDIS_ADDRESS) every node ends 60 s after the head: with it the head may be restarted",
        )
    return ()


def ray_notes(replica: Replica, wishes: Wishes) -> tuple[str, ...]:
    found = [
        f"every node has the bundle at {wishes.bundle_place}, and pip install 'deploytk[ray]' in one Python version",
        "RAY_AUTH_TOKEN_PATH on every node: one file with the token, mode 0600; the network of the nodes is closed",
        "API keys: DEPLOYTK_API_KEYS in the environment in which `head.sh` and `worker.sh` are started",
        f"clients come to HAProxy on port {BALANCER_PORT}: alone, a proxy of Ray that dies is an outage of 12 s",
    ]
    if not wishes.nodes:
        found.append("haproxy.cfg names this machine alone: --nodes 10.0.0.1,10.0.0.2 names the nodes, the head first")
    if replica.image:
        found.append(
            f"rayservice.yaml was never applied to a cluster; its image needs deploytk[ray] in it: {replica.image}"
        )
    return tuple(found)


def _script(command: str, *needed: str) -> str:
    lines = [
        "#!/bin/sh",
        f"# Starts a node of Ray {RAY}, which ends with this process; more options of `ray start` may follow.",
        "set -eu",
        *(f': "${{{name}:?the address of this node}}"' for name in needed if name == "NODE_IP"),
        *(f': "${{{name}:?the address of the head}}"' for name in needed if name == "HEAD_IP"),
        ': "${RAY_AUTH_TOKEN_PATH:?a file with the token of the cluster, mode 0600}"',
        *(f'export {name}="${{{name}:-{value}}}"' for name, value in _SETTINGS.items()),
        f'{command} --block "$@"',
    ]
    return "\n".join(lines) + "\n"


def _ray_service(replica: Replica, wishes: Wishes, config: str) -> dict[str, Any]:
    """KubeRay takes the very same config; its head serves nothing."""
    worker = {
        "groupName": "replicas",
        "replicas": wishes.replicas.least,
        "minReplicas": wishes.replicas.least,
        "maxReplicas": wishes.replicas.most,
        "rayStartParams": {},
        "template": {"spec": _pod(replica, "worker", replica.cpus, replica.memory_bytes // GIB, replica.gpus)},
    }
    head = {
        "rayStartParams": {"dashboard-host": "0.0.0.0", "num-cpus": "0"},  # noqa: S104 (the operator asks it)
        "template": {"spec": _pod(replica, "head", 2, 8, 0)},
    }
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {
            "name": replica.name,
            "namespace": wishes.namespace,
            "labels": {"app.kubernetes.io/name": replica.name, "app.kubernetes.io/managed-by": "deploytk"},
        },
        "spec": {
            "serveConfigV2": config,
            "rayClusterConfig": {
                "rayVersion": RAY,
                "authOptions": {"mode": "token"},
                "headGroupSpec": head,
                "workerGroupSpecs": [worker],
            },
        },
    }


def _pod(replica: Replica, kind: str, cpus: int, memory_gib: int, gpus: int) -> dict[str, Any]:
    limits = {"memory": f"{memory_gib}Gi"} | ({"nvidia.com/gpu": str(gpus)} if gpus else {})
    keys = {"secretKeyRef": {"name": f"{replica.name}-keys", "key": "api-keys", "optional": True}}
    environment = [{"name": name, "value": value} for name, value in _SETTINGS.items() if name != "RAY_AUTH_MODE"]
    return {
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "fsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": f"ray-{kind}",
                "image": replica.image,
                "env": [*environment, {"name": "DEPLOYTK_API_KEYS", "valueFrom": keys}],
                "resources": {"requests": {"cpu": str(cpus), **limits}, "limits": limits},
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            }
        ],
    }
