"""Replicas as actors of Ray Serve: one config for `serve deploy`, KubeRay and our own --apply."""

from deploytk.scale.ray.config import ServeConfig, serve_config
from deploytk.scale.ray.files import ray_files, ray_notes

__all__ = ["ServeConfig", "ray_files", "ray_notes", "serve_config"]
