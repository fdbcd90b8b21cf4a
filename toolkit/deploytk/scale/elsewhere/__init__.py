"""Platforms that run images themselves: a file each, written from their documentation, not run there."""

from deploytk.scale.elsewhere.baseten import baseten_files
from deploytk.scale.elsewhere.gpustack import gpustack_files
from deploytk.scale.elsewhere.inference_endpoints import inference_endpoint_files

__all__ = ["baseten_files", "gpustack_files", "inference_endpoint_files"]
