"""GPUStack: a custom inference backend as YAML, to import on its page Inference Backend.

https://docs.gpustack.ai/2.3/tutorials/using-custom-backends/ and .../inference-backend-management/, read 2026-11.
"""

from __future__ import annotations

from deploytk.base.errors import UsageError
from deploytk.base.yaml import dump_yaml
from deploytk.scale.contract import Replica
from deploytk.scale.elsewhere.baseten import NOT_RUN
from deploytk.scale.wishes import Wishes

_VERSION = "v1-custom"  # versions of custom backends end like this


def gpustack_files(replica: Replica, wishes: Wishes) -> dict[str, str]:  # noqa: ARG001
    """backend.yaml. What it runs is behind the entry point of the image: the app takes the port from there."""
    if replica.weights != "layers":
        hint = "build the image with --weights layers: GPUStack puts models where the app does not look"
        raise UsageError("GPUStack's backend needs an image with the weights in it", hint=hint)
    version = {
        "image_name": replica.image,
        "run_command": "--port {{port}}",
        "custom_framework": "cuda" if replica.gpus else "cpu",
    }
    backend = {
        "backend_name": f"{replica.name}-custom",
        "description": f"{replica.title}: {replica.engine}, {replica.gpus} GPUs; the model is in the image",
        "health_check_path": "/ready",
        "default_version": _VERSION,
        "version_configs": {_VERSION: version},
    }
    return {"backend.yaml": f"# {NOT_RUN}\n" + dump_yaml(backend)}
