"""What was seen of the GPUs around one measurement, and what the plan says about them."""

from __future__ import annotations

import time
from collections.abc import Sequence

from deploytk.base.pause import pause
from deploytk.hardware.catalogue import Gpu
from deploytk.hardware.here import as_gpu
from deploytk.hardware.nvml import GpuMemory, PeakSampler, read_gpus
from deploytk.plan import DecodeBound, MeasuredOverhead, ServingPlan
from deploytk.serve import Served
from deploytk.smoke.memory import SLACK_BYTES, VramReport, Watched
from deploytk.smoke.prediction import PlannedVram, measured_overhead, plan_on, planned_vram

_RELEASE_WITHIN_S = 30.0


def watch(
    sampler: PeakSampler, ready: Sequence[GpuMemory], after: Sequence[int] | None, *, is_ours: bool
) -> tuple[Watched, ...]:
    """A value per visible GPU, () where nothing is known of them."""
    ends = after if after is not None and len(after) == len(ready) else [None] * len(ready)
    rows = zip(ready, sampler.tracks, ends, strict=False)
    return tuple(Watched(memory, track, is_ours, end) for memory, track, end in rows)


def wait_until_released(sampler: PeakSampler) -> tuple[int, ...] | None:
    """What is in use on each GPU once the server's memory is free again, or at the end of our patience."""
    if not sampler.tracks:
        return None
    deadline = time.monotonic() + _RELEASE_WITHIN_S
    limits = [track.first.used_bytes + SLACK_BYTES for track in sampler.tracks]
    while True:
        used = tuple(memory.used_bytes for memory in read_gpus())
        if len(used) != len(limits):
            return None
        if all(one <= limit for one, limit in zip(used, limits, strict=True)) or time.monotonic() > deadline:
            return used
        pause(0.2)


def planned_here(
    served: Served | None, watched: Sequence[Watched], measured: tuple[MeasuredOverhead, ...], version: str | None
) -> PlannedVram | None:
    """What the plan of what is served says about the GPUs that it runs on; None of servers without a plan."""
    if served is None:
        return None
    gpu = gpu_before(served.bundle.manifest.plan, watched)
    return planned_vram(served.artifact, served.bundle.manifest.plan, gpu, measured, version)


def measured_here(
    served: Served, watched: Sequence[Watched], vram: VramReport, version: str | None
) -> MeasuredOverhead | None:
    """What the server adds to what is known for plans; None when others computed there as well."""
    gpu = gpu_before(served.bundle.manifest.plan, watched)
    if gpu is None or vram.foreign_processes or not watched[0].is_ours:
        return None
    return measured_overhead(served.artifact, served.bundle.manifest.plan, gpu, version, vram.parts)


def bound_here(served: Served | None, watched: Sequence[Watched]) -> DecodeBound | None:
    """Tokens per second that the GPU allows one stream, whatever GPU the plan was made for."""
    if served is None:
        return None
    gpu = gpu_before(served.bundle.manifest.plan, watched)
    if gpu is None:
        return None
    return plan_on(gpu, served.artifact, served.bundle.manifest.plan, ()).decode_bound


def gpu_before(plan: ServingPlan, watched: Sequence[Watched]) -> Gpu | None:
    """Of the GPUs that share the model, the one that had least to spare before the server started."""
    gpus = [as_gpu(one.track.first) for one in watched[: plan.tensor_parallel]]
    if plan.lmdeploy is None or not gpus:
        return None
    return min(gpus, key=lambda gpu: gpu.usable_bytes)
