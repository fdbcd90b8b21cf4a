"""Baseten: a config.yaml for `truss push`, whose docker_server runs the image as it is.

https://docs.baseten.co/development/model/custom-server and /reference/truss-configuration, read 2026-11.
"""

from __future__ import annotations

import shlex

from deploytk.base.yaml import dump_yaml
from deploytk.image.entry import ENTRY
from deploytk.scale.contract import GIB, Replica
from deploytk.scale.wishes import Wishes

NOT_RUN = "written from the platform's documentation, not run there"

# What Baseten calls the GPUs of our catalogue; others are named by the person who deploys.
_ACCELERATORS = {"T4": "T4", "L4": "L4", "A10": "A10G", "A10G": "A10G", "A100-80G": "A100", "H100-80G": "H100"}


def baseten_files(replica: Replica, wishes: Wishes) -> dict[str, str]:  # noqa: ARG001
    """config.yaml. Port 8080 is Baseten's own proxy's; ours is another."""
    resources: dict[str, object] = {"cpu": str(replica.cpus), "memory": f"{replica.memory_bytes // GIB}Gi"}
    if replica.gpus:
        kind = _ACCELERATORS.get(replica.gpu or "", replica.gpu or "H100")
        resources["accelerator"] = kind if replica.gpus == 1 else f"{kind}:{replica.gpus}"
    # The app names its bundle by the working directory of the image, which Baseten may change.
    start = shlex.join((*ENTRY[:-1], f"/bundle/{ENTRY[-1]}"))
    config = {
        "model_name": replica.name,
        "base_image": {"image": replica.image},
        "docker_server": {
            "start_command": start,
            "server_port": replica.port,
            "predict_endpoint": "/v1/chat/completions",
            "readiness_endpoint": "/ready",
            "liveness_endpoint": "/health",
        },
        "resources": resources,
        "runtime": {"predict_concurrency": replica.max_running},
    }
    return {"config.yaml": f"# {NOT_RUN}\n" + dump_yaml(config)}
