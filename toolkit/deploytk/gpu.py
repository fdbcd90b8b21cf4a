"""Owner of NVML: what the GPUs of this machine hold. It never calls CUDA, which would take memory itself."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Any

_SAMPLE_EVERY_S = 0.05


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """One GPU at one moment."""

    name: str
    driver: str
    api: str  # "nvml_v2", which leaves the driver's reserve out of `used_bytes`, or "nvml_v1"
    total_bytes: int
    reserved_bytes: int | None  # None where the API does not tell
    used_bytes: int
    processes: int  # that compute on it, as far as the driver tells


def read_memory(index: int = 0) -> GpuMemory | None:
    """The memory of a GPU, None without NVML or GPU."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        return _read(pynvml, index)
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()


def _read(pynvml: Any, index: int) -> GpuMemory:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    try:
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)
        api, reserved = "nvml_v2", int(memory.reserved)
    except (pynvml.NVMLError, AttributeError):
        memory, api, reserved = pynvml.nvmlDeviceGetMemoryInfo(handle), "nvml_v1", None
    try:
        processes = len(pynvml.nvmlDeviceGetComputeRunningProcesses(handle))
    except pynvml.NVMLError:
        processes = 0
    name, driver = pynvml.nvmlDeviceGetName(handle), pynvml.nvmlSystemGetDriverVersion()
    return GpuMemory(_text(name), _text(driver), api, int(memory.total), reserved, int(memory.used), processes)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


class PeakSampler:
    """The most that was used on a GPU while the context was open."""

    def __init__(self, index: int = 0) -> None:
        self._index = index
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.first = read_memory(index)
        self.peak_bytes = self.first.used_bytes if self.first else 0
        self.samples = 0

    def __enter__(self) -> PeakSampler:
        if self.first:
            self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._end.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        import pynvml

        pynvml.nvmlInit()
        try:
            while not self._end.wait(_SAMPLE_EVERY_S):
                self.peak_bytes = max(self.peak_bytes, _read(pynvml, self._index).used_bytes)
                self.samples += 1
        finally:
            pynvml.nvmlShutdown()
