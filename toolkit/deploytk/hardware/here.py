"""The GPUs of this machine, as a plan takes them."""

from __future__ import annotations

import os
from collections.abc import Mapping

from deploytk.hardware.catalogue import Gpu, known_gpu
from deploytk.hardware.nvml import GpuMemory, read_gpus


def gpus_here(environment: Mapping[str, str] = os.environ) -> tuple[Gpu, ...]:
    """Every GPU that a server started from here would see, with what is in use on it now; () where there is none."""
    return tuple(as_gpu(memory) for memory in read_gpus(environment))


def as_gpu(memory: GpuMemory) -> Gpu:
    """By its name in the catalogue where it has one; sizes are the driver's. A slice has no bandwidth of its own."""
    name = memory.name.removeprefix("NVIDIA ")
    known = None if memory.is_mig else known_gpu(name)
    return Gpu(
        name=known.name if known else name,
        total_bytes=memory.total_bytes,
        reserved_bytes=memory.reserved_bytes or 0,
        compute_capability=memory.compute_capability or (known.compute_capability if known else None),
        bandwidth_gb_s=known.bandwidth_gb_s if known else None,
        used_bytes=memory.used_bytes,
        is_here=True,
    )
