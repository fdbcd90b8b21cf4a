"""Hugging Face Inference Endpoints: the body with which their API, or create_inference_endpoint, makes one.

https://huggingface.co/docs/inference-endpoints/engines/custom_container and huggingface_hub 2.4, read 2026-11.
"""

from __future__ import annotations

import json

from deploytk.base.errors import UsageError
from deploytk.image.entry import ENTRY
from deploytk.scale.contract import Replica
from deploytk.scale.elsewhere.baseten import NOT_RUN
from deploytk.scale.wishes import Wishes

_MODEL = "/repository"
"""Where they put the files of the repository."""

_LONGEST_NAME = 32


def inference_endpoint_files(replica: Replica, wishes: Wishes) -> dict[str, str]:
    """endpoint.json. The bundle in the image runs; of an image without weights, that in the repository."""
    if wishes.repository is None:
        raise UsageError("an endpoint needs the repository of the model", hint="add --repo OWNER/NAME")
    place = "/bundle" if replica.weights == "layers" else _MODEL
    custom = {
        "url": replica.image,
        "port": replica.port,
        "health_route": "/ready",
    }
    endpoint: dict[str, object] = {
        "//": NOT_RUN,
        "name": replica.name[:_LONGEST_NAME].rstrip("-"),
        "repository": wishes.repository,
        "framework": "custom",
        "task": "text-generation",
        "type": "authenticated",
        "accelerator": "gpu" if replica.gpus else "cpu",
        "min_replica": wishes.replicas.least,
        "max_replica": wishes.replicas.most,
        "scaling_metric": "pendingRequests",
        "scaling_threshold": replica.scale_at,
        "custom_image": custom,
        "container_command": [*ENTRY[:-1], f"{place}/{ENTRY[-1]}"],
        "env": {"DEPLOYTK_READY_S": str(replica.start_s)},
        "//left to you": ["vendor", "region", "instance_type", "instance_size"],
    }
    return {"endpoint.json": json.dumps(endpoint, ensure_ascii=False, indent=2) + "\n"}
