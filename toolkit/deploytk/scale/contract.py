"""What one replica is, needs and promises, on whatever platform: made from the serving plan, and from nothing else."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from deploytk.base.errors import UsageError
from deploytk.base.names import dns_label
from deploytk.bundle.value import Manifest
from deploytk.hardware.catalogue import Gpu, find_gpu
from deploytk.image.config import start_budget_s
from deploytk.image.value import WeightsMode
from deploytk.scale.wishes import Wishes

if TYPE_CHECKING:
    from deploytk.plan import ServingPlan

GIB = 2**30

# What the app promises by default: deploytk_app/limits.py.
DRAIN_S = 30
REQUEST_S = 600
MAX_WAITING = 64
ENGINE_ENDS_WITHIN_S = 20

LEAVES_S = 10
"""How long a replica that is to end goes on taking requests: until every load balancer has heard of it."""

_LOADS = 3  # budgets for a start are so many times what it was measured to take
_ENDINGS = len("-canary-metrics")  # of names that are made from a replica's


@dataclass(frozen=True, slots=True)
class Replica:
    """The app with its engine: answers /ready when a token came out, drains on SIGTERM, tells /metrics."""

    name: str  # a DNS label
    title: str  # as people call it
    bundle: str  # the digest of what it serves
    image: str | None  # HOST/NAME@sha256:...; None where a platform needs none
    weights: WeightsMode  # where the image has them
    port: int
    engine: str
    tensor_parallel: int
    gpus: int
    gpu: str | None  # the kind that was planned for or asked for
    vram_bytes: int  # that the plan takes of each GPU
    gpu_bytes: int | None  # that such a GPU has at least, where a kind is known
    cpus: int
    memory_bytes: int  # of the host
    shm_bytes: int  # for the exchange between the processes of several GPUs
    weights_bytes: int
    model_name: str  # in requests
    max_running: int  # requests at the engine at once
    max_waiting: int  # that wait for it
    start_s: int  # budget until the first token
    start_from: str  # what the budget rests on
    request_s: int  # longest answer
    drain_s: int

    @property
    def leaves_within_s(self) -> int:
        """From the order to end until it may be killed."""
        return LEAVES_S + self.drain_s + ENGINE_ENDS_WITHIN_S

    @property
    def scale_at(self) -> int:
        """How many requests may wait per replica before there should be another one: half a batch."""
        return max(1, self.max_running // 2)

    def named(self, name: str) -> Replica:
        return replace(self, name=name)


def replica_of(manifest: Manifest, wishes: Wishes, image: str | None, weights: WeightsMode) -> Replica:
    """The replica of a bundle; raises UsageError for wishes that its plan cannot follow."""
    plan = manifest.plan
    _require_same_tp(plan, wishes.tensor_parallel)
    gpus = 0 if plan.engine == "cpu" else plan.tensor_parallel
    gpu = _gpu_of(plan, wishes.gpu)
    weights_bytes = sum(file.size for file in manifest.files if file.kind == "weights")
    budget_s, source = _start(weights_bytes, weights, wishes.load_s)
    return Replica(
        name=dns_label(manifest.app.title, room=_ENDINGS),
        title=manifest.app.title,
        bundle=wishes.digest,
        image=image,
        weights=weights,
        port=manifest.app.port,
        engine=plan.engine,
        tensor_parallel=plan.tensor_parallel,
        gpus=gpus,
        gpu=gpu.name if gpu else None,
        vram_bytes=plan.vram.total_bytes if gpus else 0,
        gpu_bytes=gpu.total_bytes if gpu else None,
        cpus=2 + 2 * gpus if gpus else 1,
        # Weights pass through host memory on their way; the CPU engine holds them in 32 bits.
        memory_bytes=_whole_gib(4 * GIB * gpus + weights_bytes if gpus else 2 * GIB + 8 * weights_bytes),
        shm_bytes=2 * GIB * max(1, gpus),
        weights_bytes=weights_bytes,
        model_name=plan.model_name,
        max_running=max(1, plan.max_batch_size),
        max_waiting=MAX_WAITING,
        start_s=budget_s,
        start_from=source,
        request_s=REQUEST_S,
        drain_s=DRAIN_S,
    )


def _whole_gib(size: int) -> int:
    return GIB * math.ceil(size / GIB)


def _require_same_tp(plan: ServingPlan, wished: int | None) -> None:
    if wished is not None and wished != plan.tensor_parallel:
        what = f"the bundle is planned for --tp {plan.tensor_parallel}, not {wished}"
        raise UsageError(what, hint=f"package the model again with --tp {wished}")


def _gpu_of(plan: ServingPlan, wished: str | None) -> Gpu | None:
    """The GPU asked for, else the one that the bundle was planned for."""
    if plan.engine == "cpu":
        if wished is not None:
            hint = "leave it out, or package the model: `deploytk package` plans for LMDeploy"
            raise UsageError("--gpu does nothing here: the bundle is planned for the CPU", hint=hint)
        return None
    return find_gpu(wished) if wished is not None else plan.gpu


def _start(weights_bytes: int, weights: WeightsMode, load_s: float | None) -> tuple[int, str]:
    if load_s is not None:
        return max(60, 60 * math.ceil(_LOADS * load_s / 60)), f"{_LOADS} times the {load_s:.0f} s that were measured"
    return start_budget_s(weights_bytes, weights), "the size of the weights and a slow disk"
