"""How much memory and disk a run takes, and whether it is there."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from deploytk.artifact import Artifact
from deploytk.base.errors import QuantizeError, UsageError
from deploytk.hardware.catalogue import Gpu
from deploytk.quantize.checks import Sizes, is_rewritten, sizes_of
from deploytk.quantize.tools import Tool
from deploytk.quantize.value import Device, DeviceChoice, QuantizeOptions

_GIB = 2**30
# What a process with torch takes before any model: measured with the tiny model on the CPU, and on an H200.
_BASE_RAM = {"cpu": 700 * 2**20, "cuda": 3 * _GIB}
_CUDA_CONTEXT = 600 * 2**20
_SPARE_DISK = 2**26  # for what is not weights
_HIDDEN_COPIES = 11  # of all windows in 16 bits: the last norm squares and scales them in 32, all at once


def choose_device(choice: DeviceChoice, tool: Tool, gpus: Sequence[Gpu]) -> Device:
    """Where the layers are calibrated; raises UsageError for a GPU that is not there."""
    if choice == "cpu" or (choice == "auto" and not (gpus and tool.has_cuda)):
        return "cpu"
    if not gpus:
        raise UsageError("there is no GPU here", hint="--device cpu, which takes longer")
    if not tool.has_cuda:
        raise UsageError(f"torch of {tool.python} knows no CUDA", hint="--device cpu, or --python with one that does")
    return "cuda"


def ram_bytes(sizes: Sizes, options: QuantizeOptions, hidden: int, device: Device) -> int:
    """What the tool takes at most: the whole model, a tenth more while it is saved, and without a GPU what that holds.

    For 7.3 billion parameters on an H200: 14.6 GB x 1.1 + 3.2 GB = 19.3 GB; 18.8 and 19.8 GB were measured.
    """
    needed = sizes.dense * 11 // 10 + _BASE_RAM[device]
    return needed + (gpu_bytes(sizes, options, hidden) - _CUDA_CONTEXT if device == "cpu" else 0)


def gpu_bytes(sizes: Sizes, options: QuantizeOptions, hidden: int) -> int:
    """What it takes of a GPU for a moment: CUDA itself, embeddings, and the hidden states of all windows, or a layer.

    For 7.3 billion parameters and 32 windows of 2048 torch reserved 6526 MiB at most on an H200; here 7038 less 600.
    The driver, asked twice a second, has seen 4457 MiB: that moment is short, and too small a GPU ends in it.
    """
    windows = 0 if options.calibration == "none" else options.samples
    states = windows * options.seqlen * hidden * 2
    searched = 4 * states if options.search_scale else 0  # the inputs of each linear layer are kept
    packing = 2 * sizes.layer + 6 * sizes.largest  # in int32, after the windows
    return _CUDA_CONTEXT + sizes.embeddings + max(_HIDDEN_COPIES * states + searched, packing)


def require_memory(
    artifact: Artifact, options: QuantizeOptions, device: Device, gpus: Sequence[Gpu]
) -> tuple[int, int]:
    """Predicted bytes of RAM and of the GPU; raises QuantizeError where they are not there."""
    sizes = sizes_of(artifact)
    ram, gpu = (
        ram_bytes(sizes, options, artifact.hidden_size, device),
        gpu_bytes(sizes, options, artifact.hidden_size),
    )
    free = available_ram()
    if ram > free:
        raise QuantizeError(
            f"about {ram / _GIB:.1f} GiB of memory are needed, {free / _GIB:.1f} GiB are free here",
            hint=_fewer(lambda fewer: ram_bytes(sizes, fewer, artifact.hidden_size, device) <= free, options)
            or "run it on a machine with more memory: the whole model lies in it",
        )
    if device == "cuda":
        free_gpu = gpus[0].total_bytes - gpus[0].used_bytes - gpus[0].reserved_bytes
        if gpu > free_gpu:
            raise QuantizeError(
                f"about {gpu / _GIB:.1f} GiB of GPU memory are needed, {free_gpu / _GIB:.1f} GiB are free",
                hint=_fewer(lambda fewer: gpu_bytes(sizes, fewer, artifact.hidden_size) <= free_gpu, options)
                or "--device cpu, or free the GPU",
            )
    return ram, gpu


def _fewer(fits: Callable[[QuantizeOptions], bool], options: QuantizeOptions) -> str:
    """Fewer windows with which it fits; "" where none are few enough."""
    samples = options.samples // 2 if options.calibration != "none" else 0
    while samples:
        if fits(dataclasses.replace(options, samples=samples)):
            return f"--samples {samples}, or shorter windows with --seqlen"
        samples //= 2
    return ""


def require_disk(artifact: Artifact, destination: Path) -> None:
    """Raises QuantizeError when the result, and what is written on the way, has no room."""
    sizes = sizes_of(artifact)
    # The tool's own directory becomes the result; only where it is written once more are there two of it.
    needed = 2 * sizes.packed + (sizes.dense if is_rewritten(artifact) else 0) + _SPARE_DISK
    place = next(one for one in (destination, *destination.absolute().parents) if one.exists())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise QuantizeError(
            f"the disk of {place} has {free // 2**20} MiB left, about {needed // 2**20} MiB are needed",
            hint="free some space, or choose another disk with -o",
        )


def available_ram() -> int:
    """Bytes that a new process can have: what the system has to spare, and what this container may take."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(encoding="ascii"))
        free = int(found[1]) * 1024 if found else free
    except OSError:
        pass
    return min(free, _left_in_container(Path("/sys/fs/cgroup")))


def _left_in_container(group: Path) -> int:
    try:
        limit = (group / "memory.max").read_text(encoding="ascii").strip()
        used = int((group / "memory.current").read_text(encoding="ascii"))
        kept = re.search(r"^inactive_file (\d+)$", (group / "memory.stat").read_text(encoding="ascii"), re.MULTILINE)
        return int(limit) - used + (int(kept[1]) if kept else 0)
    except (OSError, ValueError):  # no such limit: "max"
        return 2**63
