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
from deploytk.quantize.value import Device, DeviceChoice, Method, QuantizeOptions

_GIB = 2**30
# What a process with torch takes beside a model: fitted on the CPU, measured with the tiny model on an H100.
_BASE_RAM = {"cpu": 700 * 2**20, "cuda": 1640 * 2**20}
_CUDA_CONTEXT = 600 * 2**20
_SPARE_DISK = 2**26  # for what is not weights
_HIDDEN_COPIES = 11  # of all windows in 16 bits: the last norm squares and scales them in 32, all at once
_TUNED_WINDOWS = 8  # of AutoRound, at once
_TUNED_EXTRA = _GIB  # of AutoRound's own estimate, for norms and attention


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
    """What the tool takes at most; measured figures beside these are in docs/results."""
    if options.method == "autoround":
        return _tuning_ram(sizes, options, hidden, device)
    # LMDeploy 0.18 (lite/quantization/awq.py, quant_weights) keeps every linear layer that it has packed, and to save
    # them all are copied once more.
    needed = _BASE_RAM[device] + sizes.dense + sizes.packed
    if device == "cuda":
        # What is packed stays on the GPU, and so does the embedding after texts.
        return needed - (sizes.embeddings if _windows(options) else 0)
    # On the CPU the layers as they were stay mapped to their file beside those that are rounded and those packed.
    return needed + sizes.linear + sizes.packed_linear + _states(options, hidden)


def gpu_bytes(sizes: Sizes, options: QuantizeOptions, hidden: int) -> int:
    """What it takes of a GPU for a moment: CUDA itself, embeddings, and the hidden states of all windows, or what is
    packed, which LMDeploy 0.18 leaves there layer by layer.

    For 7.3 billion parameters and 32 windows of 2048 torch reserved 6526 MiB at most on an H200; here 7038 less 600.
    The driver, asked twice a second, has seen 4457 MiB: that moment is short, and too small a GPU ends in it.
    """
    if options.method == "autoround":
        return _tuning_gpu(sizes, options, hidden)
    packing = sizes.packed_linear + 6 * sizes.largest  # in int32, after the windows
    return _CUDA_CONTEXT + sizes.embeddings + max(_states(options, hidden), packing)


def _windows(options: QuantizeOptions) -> int:
    return 0 if options.calibration == "none" else options.samples


def _states(options: QuantizeOptions, hidden: int) -> int:
    """Of all windows; with a search the inputs of each linear layer are kept beside them."""
    copies = _HIDDEN_COPIES + (4 if options.search_scale else 0)
    return copies * _windows(options) * options.seqlen * hidden * 2


def _tuning_ram(sizes: Sizes, options: QuantizeOptions, hidden: int, device: Device) -> int:
    """AutoRound 0.16.1: in 32 bits without a GPU, as it is saved; inputs and outputs of a layer for every window."""
    width = 2 if device == "cpu" else 1
    kept = 2 * _windows(options) * options.seqlen * hidden * 2 * width
    saved = sizes.packed_linear + (sizes.packed - sizes.packed_linear) * width
    tuned = _tuned(sizes, options) if device == "cpu" else 0
    return _BASE_RAM[device] + sizes.dense * width + saved + kept + tuned


def _tuning_gpu(sizes: Sizes, options: QuantizeOptions, hidden: int) -> int:
    """As AutoRound estimates it itself, and never measured by us.

    Source: auto_round/utils/device.py, estimate_tuning_block_mem (0.16.1), with the inputs of all windows.
    """
    kept = 2 * _windows(options) * options.seqlen * hidden * 2
    return _CUDA_CONTEXT + _TUNED_EXTRA + kept + _tuned(sizes, options)


def _tuned(sizes: Sizes, options: QuantizeOptions) -> int:
    """Of one layer: its weights, what is learned and both gradients; and what its linear layers give, twice."""
    tokens = min(_TUNED_WINDOWS, _windows(options)) * options.seqlen
    return 4 * sizes.layer + 4 * tokens * sizes.outputs * 2


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


def require_disk(artifact: Artifact, destination: Path, method: Method = "awq") -> None:
    """Raises QuantizeError when the result, and what is written on the way, has no room."""
    sizes = sizes_of(artifact)
    # The tool's own directory becomes the result; only where it is written once more are there two of it.
    wider = sizes.packed - sizes.packed_linear if method == "autoround" else 0  # it may save in 32 bits
    needed = 2 * sizes.packed + wider + (sizes.dense if is_rewritten(artifact) else 0) + _SPARE_DISK
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
