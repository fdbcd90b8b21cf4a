"""Where a deployment of several replicas can go: a row each, with what makes its files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from deploytk.scale.compose import compose_files, compose_notes
from deploytk.scale.contract import Replica
from deploytk.scale.elsewhere import baseten_files, gpustack_files, inference_endpoint_files
from deploytk.scale.elsewhere.baseten import NOT_RUN
from deploytk.scale.kubernetes import kubernetes_files, kubernetes_notes
from deploytk.scale.ray import ray_files, ray_notes
from deploytk.scale.wishes import Wishes


def _unrun(replica: Replica, wishes: Wishes) -> tuple[str, ...]:  # noqa: ARG001
    return (NOT_RUN,)


@dataclass(frozen=True, slots=True)
class Platform:
    """What turns a replica into the files of one platform."""

    title: str
    files: Callable[[Replica, Wishes], Mapping[str, str]]  # by their paths in the output
    notes: Callable[[Replica, Wishes], tuple[str, ...]] = _unrun  # what a person must do or know
    needs_image: bool = True  # in a registry, by its digest
    can_apply: bool = False
    takes: tuple[str, ...] = ()  # options that mean something here, of those that do not everywhere


PLATFORMS: Mapping[str, Platform] = {
    "ray": Platform(
        "Ray Serve",
        ray_files,
        ray_notes,
        needs_image=False,
        can_apply=True,
        takes=("nodes", "address", "bundle_place", "canary", "old_url", "new_url", "judge_within"),
    ),
    "kubernetes": Platform(
        "Kubernetes",
        kubernetes_files,
        kubernetes_notes,
        can_apply=True,
        takes=(
            "namespace",
            "autoscaler",
            "prometheus",
            "monitoring",
            "claim",
            "volume",
            "runtime_class",
            "pull_secret",
            "without_keys",
            "canary",
            "old_url",
            "new_url",
            "judge_within",
        ),
    ),
    "compose": Platform("Docker Compose", compose_files, compose_notes, takes=("without_keys",)),
    "inference-endpoints": Platform("Hugging Face Inference Endpoints", inference_endpoint_files, takes=("repo",)),
    "baseten": Platform("Baseten", baseten_files),
    "gpustack": Platform("GPUStack", gpustack_files),
}
