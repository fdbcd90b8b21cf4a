"""Which GPUs CUDA shows to a process that is started from here, as handles of NVML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def visible_handles(nvml: Any, environment: Mapping[str, str]) -> list[Any]:
    """Those that CUDA_VISIBLE_DEVICES names, in its order, else all; raises NVMLError when the driver tells nothing.

    Where GPUs are split (MIG) and one of their slices is visible, CUDA shows the first slice and nothing else.
    NVML counts by PCI bus, as CUDA does with CUDA_DEVICE_ORDER=PCI_BUS_ID; by default CUDA begins with the fastest,
    which differs only where GPUs of several kinds are mixed. NVIDIA_VISIBLE_DEVICES is for whoever starts a
    container: inside, NVML has nothing but those.
    Sources: CUDA C++ Programming Guide, environment variables; NVIDIA MIG User Guide, CUDA device enumeration.
    """
    gpus = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    chosen = environment.get("CUDA_VISIBLE_DEVICES")
    named = gpus if chosen is None else _named(nvml, gpus, chosen)
    shown = [(handle, _slices(nvml, handle)) for handle in named]
    slices = [one for handle, found in shown for one in found or [handle] if _is_slice(nvml, one)]
    return slices[:1] or named


def _named(nvml: Any, gpus: list[Any], chosen: str) -> list[Any]:
    """Like CUDA, up to the first name that is none."""
    found: list[Any] = []
    for name in (part.strip() for part in chosen.split(",")):
        handle = _one(nvml, gpus, name)
        if handle is None:
            break
        found.append(handle)
    return found


def _one(nvml: Any, gpus: list[Any], name: str) -> Any:
    """The GPU or slice of that index, or of a UUID that begins so; None where there is none."""
    if name.isdecimal():
        return gpus[int(name)] if int(name) < len(gpus) else None
    if not name.startswith(("GPU-", "MIG-")):
        return None
    known = gpus if name.startswith("GPU-") else [one for handle in gpus for one in _slices(nvml, handle)]
    alike = [handle for handle in known if _uuid(nvml, handle).startswith(name)]
    return alike[0] if len(alike) == 1 else None


def _uuid(nvml: Any, handle: Any) -> str:
    try:
        found = nvml.nvmlDeviceGetUUID(handle)
    except nvml.NVMLError:
        return ""
    return found.decode() if isinstance(found, bytes) else str(found)


def _slices(nvml: Any, gpu: Any) -> list[Any]:
    """Of a GPU that is split: its parent tells its memory only to root."""
    try:
        if _is_slice(nvml, gpu) or nvml.nvmlDeviceGetMigMode(gpu)[0] != 1:
            return []
        count = nvml.nvmlDeviceGetMaxMigDeviceCount(gpu)
    except nvml.NVMLError:
        return []
    found = (_slice(nvml, gpu, number) for number in range(count))
    return [one for one in found if one is not None]


def _slice(nvml: Any, gpu: Any, number: int) -> Any:
    try:
        return nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, number)
    except nvml.NVMLError:
        return None


def _is_slice(nvml: Any, handle: Any) -> bool:
    try:
        return bool(nvml.nvmlDeviceIsMigDeviceHandle(handle))
    except nvml.NVMLError:
        return False
