"""Several replicas on one machine: a compose.yaml with a service per replica, each with its own GPUs, and HAProxy."""

from __future__ import annotations

from typing import Any

from deploytk.base.errors import UsageError
from deploytk.base.yaml import dump_yaml
from deploytk.image.config import PROBE
from deploytk.scale.contract import GIB, Replica
from deploytk.scale.haproxy import backend_of, haproxy_config
from deploytk.scale.wishes import Wishes

BALANCER = "docker.io/library/haproxy:3.2-alpine"
_OUTSIDE = 7860
_INSIDE = 8080


def compose_files(replica: Replica, wishes: Wishes) -> dict[str, str]:
    """compose.yaml and the configuration of its load balancer."""
    if not wishes.replicas.are_fixed:
        raise UsageError("Docker Compose has no autoscaling", hint=f"take --replicas {wishes.replicas.most}")
    count = wishes.replicas.most
    needed = count * replica.gpus
    if needed > wishes.gpus_per_node:
        hint = "fewer replicas, or more machines: --on ray or --on kubernetes"
        raise UsageError(
            f"{count} replicas need {needed} GPUs of the {wishes.gpus_per_node} of this machine", hint=hint
        )
    names = [f"replica-{number}" for number in range(1, count + 1)]
    services = {name: _service(replica, wishes, number) for number, name in enumerate(names)}
    services["balancer"] = _balancer(names)
    backend = backend_of(replica, names, replica.port, "/ready")
    whole: dict[str, Any] = {"name": replica.name, "services": services}
    if replica.weights == "download":
        whole["volumes"] = {"weights": {}}
    return {"compose.yaml": dump_yaml(whole), "haproxy.cfg": haproxy_config(replica, backend, _INSIDE)}


def compose_notes(replica: Replica, wishes: Wishes) -> tuple[str, ...]:
    found = [f"start it with: docker compose up -d; clients come to 127.0.0.1:{_OUTSIDE}"]
    if wishes.keys:
        found.append("DEPLOYTK_API_KEYS is taken from the environment of docker compose, or from a file .env beside it")
    if replica.weights == "mount":
        found.append("WEIGHTS in the environment names the directory of the bundle")
    return (*found, f"the load balancer is {BALANCER}, by its tag: its digest is not known here")


def _service(replica: Replica, wishes: Wishes, number: int) -> dict[str, Any]:
    service: dict[str, Any] = {
        "image": replica.image,
        "environment": {"DEPLOYTK_DRAIN_S": str(replica.drain_s), **_keys(wishes)},
        "read_only": True,
        "user": "10001:10001",
        "tmpfs": ["/tmp"],  # noqa: S108 (the container's)
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "init": True,
        "shm_size": f"{replica.shm_bytes // GIB}g",
        "restart": "unless-stopped",
        "stop_grace_period": f"{replica.leaves_within_s}s",
        "healthcheck": {
            "test": ["CMD", "python", "-I", "-c", PROBE.format(port=replica.port)],
            "interval": "10s",
            "timeout": "5s",
            "retries": 3,
            "start_period": f"{replica.start_s}s",
        },
    }
    if replica.weights == "download":
        service["environment"] |= {"HF_TOKEN": "${HF_TOKEN:-}"}
        service["volumes"] = ["weights:/weights"]
    if replica.weights == "mount":
        service["volumes"] = ["${WEIGHTS:?the directory of the bundle}:/bundle:ro"]
    if replica.gpus:
        ids = [str(number * replica.gpus + at) for at in range(replica.gpus)]
        devices = {"driver": "nvidia", "device_ids": ids, "capabilities": ["gpu"]}
        service["deploy"] = {"resources": {"reservations": {"devices": [devices]}}}
    return service


def _keys(wishes: Wishes) -> dict[str, str]:
    if not wishes.keys:
        return {}
    return {"DEPLOYTK_API_KEYS": "${DEPLOYTK_API_KEYS:?keys with commas between}"}


def _balancer(names: list[str]) -> dict[str, Any]:
    return {
        "image": BALANCER,
        "ports": [f"127.0.0.1:{_OUTSIDE}:{_INSIDE}"],
        "volumes": ["./haproxy.cfg:/usr/local/etc/haproxy/haproxy.cfg:ro"],
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "restart": "unless-stopped",
        "depends_on": names,
    }
