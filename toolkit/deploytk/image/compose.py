"""A compose.yaml for the image: the GPU, the health check, loopback, nothing writable."""

from __future__ import annotations

from typing import Any

import yaml

from deploytk.bundle import Bundle
from deploytk.image.config import PROBE, start_period_s
from deploytk.image.value import WEIGHTS_PLACE, BuildOptions


def compose_of(bundle: Bundle, options: BuildOptions) -> str:
    """How `docker compose up` runs the image; reachable from this machine alone until a person changes that."""
    plan, port = bundle.manifest.plan, bundle.manifest.app.port
    service: dict[str, Any] = {
        "image": options.tag,
        "ports": [f"127.0.0.1:{port}:{port}"],
        "environment": {"DEPLOYTK_API_KEYS": "${DEPLOYTK_API_KEYS:-}"},
        "read_only": True,
        "tmpfs": ["/tmp"],  # noqa: S108 (the container's)
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "init": True,
        "shm_size": "2g",
        "restart": "unless-stopped",
        "stop_grace_period": "40s",
        "healthcheck": {
            "test": ["CMD", "python", "-c", PROBE.format(port=port)],
            "interval": "10s",
            "timeout": "5s",
            "retries": 3,
            "start_period": f"{start_period_s(bundle, options.weights)}s",
        },
    }
    volumes: dict[str, Any] = {}
    if options.weights == "download":
        service["environment"] |= {"HF_TOKEN": "${HF_TOKEN:-}"}
        service["volumes"] = [f"weights:{WEIGHTS_PLACE}"]
        volumes = {"volumes": {"weights": {}}}
    if options.weights == "mount":
        service["volumes"] = ["${WEIGHTS:?the directory of the bundle}:/bundle:ro"]
    if plan.engine != "cpu":
        devices = {"driver": "nvidia", "count": plan.tensor_parallel, "capabilities": ["gpu"]}
        service["deploy"] = {"resources": {"reservations": {"devices": [devices]}}}
    text: str = yaml.safe_dump({"services": {"model": service}} | volumes, sort_keys=False, allow_unicode=True)
    return text
