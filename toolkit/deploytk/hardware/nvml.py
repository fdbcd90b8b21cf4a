"""Owner of NVML: what the GPUs of this machine hold. It never calls CUDA, which would take memory itself."""

from __future__ import annotations

import bisect
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from types import TracebackType
from typing import Any, Literal

from deploytk.hardware.visible import visible_handles

_LOADING_EVERY_S = 0.02
_SERVING_EVERY_S = 0.1

# Of nvmlClocksEventReasons: those that make a measurement worth less. Power capping is how a GPU under load is.
_HOT = {0x08: "hardware slowdown", 0x20: "too hot, by software", 0x40: "too hot", 0x80: "power brake"}


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """Something that computes on a GPU."""

    pid: int  # as the host counts; a container does not know it under this number
    used_bytes: int | None  # None where the driver does not tell: WSL, MIG without rights


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """One GPU, or one MIG slice of it, at one moment."""

    name: str
    uuid: str
    driver: str
    api: Literal["nvml_v2", "nvml_v1"]  # the second leaves the driver's reserve out of `used_bytes`
    is_mig: bool
    total_bytes: int
    reserved_bytes: int | None  # None where the API does not tell
    used_bytes: int
    processes: tuple[GpuProcess, ...]
    power_limit_w: float | None
    sm_clock_mhz: int | None
    slowed_by: tuple[str, ...]  # heat and the like, at this moment
    compute_capability: str | None = None  # "9.0"; None where the driver does not tell


def read_memory(environment: Mapping[str, str] = os.environ) -> GpuMemory | None:
    """The GPU that a server started from here would use first; None without NVML or GPU."""
    return next(iter(read_gpus(environment)), None)


def read_gpus(environment: Mapping[str, str] = os.environ) -> tuple[GpuMemory, ...]:
    """Every GPU that a server started from here would see, in CUDA's order; none without NVML."""
    with _devices(environment) as devices:
        read = tuple(device.read() for device in devices)
    return tuple(one for one in read if one is not None)


@dataclass(slots=True)
class Track:
    """Use of one GPU over time."""

    first: GpuMemory  # before anything was started
    times_ns: list[int] = field(default_factory=list)  # `time.perf_counter_ns`, ascending
    used_bytes: list[int] = field(default_factory=list)  # at those times
    interval_ms: float = _LOADING_EVERY_S * 1000

    @property
    def peak_bytes(self) -> int:
        return max(self.used_bytes, default=0)

    @property
    def largest_gap_ms(self) -> float:
        return max((b - a for a, b in pairwise(self.times_ns)), default=0) / 1e6

    def used_at(self, when_ns: int) -> int | None:
        """What was in use at that time, from the sample before it."""
        place = bisect.bisect_right(self.times_ns, when_ns)
        return self.used_bytes[place - 1] if place else None

    def note(self, used_bytes: int) -> None:
        self.times_ns.append(time.perf_counter_ns())
        self.used_bytes.append(used_bytes)


class PeakSampler:
    """Use of every visible GPU over time, while the context is open: every 20 ms, later every 100 ms."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._environment = environment
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="vram", daemon=True)
        self._every_s = _LOADING_EVERY_S
        self.tracks = tuple(Track(first) for first in read_gpus(environment))

    def __enter__(self) -> PeakSampler:
        for track in self.tracks:
            track.note(track.first.used_bytes)
        if self.tracks:
            self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._end.set()
        if self._thread.is_alive():
            self._thread.join()

    def slow_down(self) -> None:
        """Loading is over: look less often from now on."""
        self._every_s = _SERVING_EVERY_S
        for track in self.tracks:
            track.interval_ms = _SERVING_EVERY_S * 1000

    def _watch(self) -> None:
        with _devices(self._environment) as devices:
            while devices and not self._end.wait(self._every_s):
                for device, track in zip(devices, self.tracks, strict=False):
                    used_bytes = device.used_bytes()
                    if used_bytes is None:
                        return
                    track.note(used_bytes)


class _Device:
    """An NVML handle, and the second or the first memory API, whichever works."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml, self._handle = nvml, handle
        self._has_v2 = hasattr(nvml, "nvmlMemory_v2")
        if self._has_v2:
            try:
                nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
            except (nvml.NVMLError, TypeError):
                self._has_v2 = False  # drivers before 510, and some of WSL

    def used_bytes(self) -> int | None:
        try:
            return int(self._memory().used)
        except self._nvml.NVMLError:
            return None

    def read(self) -> GpuMemory | None:
        nvml, handle = self._nvml, self._handle
        try:
            memory = self._memory()
        except nvml.NVMLError:
            return None
        limit = self._ask(nvml.nvmlDeviceGetEnforcedPowerLimit, handle)
        return GpuMemory(
            name=_text(self._ask(nvml.nvmlDeviceGetName, handle) or "unknown"),
            uuid=_text(self._ask(nvml.nvmlDeviceGetUUID, handle) or ""),
            driver=_text(self._ask(nvml.nvmlSystemGetDriverVersion) or "unknown"),
            api="nvml_v2" if self._has_v2 else "nvml_v1",
            is_mig=bool(self._ask(nvml.nvmlDeviceIsMigDeviceHandle, handle)),
            total_bytes=int(memory.total),
            reserved_bytes=int(memory.reserved) if self._has_v2 else None,
            used_bytes=int(memory.used),
            processes=self._processes(),
            power_limit_w=limit / 1000 if limit else None,
            sm_clock_mhz=self._ask(nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_SM),
            slowed_by=self._slowed_by(),
            compute_capability=self._capability(),
        )

    def _memory(self) -> Any:
        if not self._has_v2:
            return self._nvml.nvmlDeviceGetMemoryInfo(self._handle)
        memory = self._nvml.nvmlDeviceGetMemoryInfo(self._handle, version=self._nvml.nvmlMemory_v2)
        # Drivers disagree whether `used` holds the reserve; the sum tells.
        if memory.used + memory.free == memory.total and memory.reserved:
            memory.used -= memory.reserved
        return memory

    def _processes(self) -> tuple[GpuProcess, ...]:
        found = self._ask(self._nvml.nvmlDeviceGetComputeRunningProcesses, self._handle) or ()
        return tuple(GpuProcess(int(one.pid), one.usedGpuMemory) for one in found)

    def _slowed_by(self) -> tuple[str, ...]:
        reasons = self._ask(self._nvml.nvmlDeviceGetCurrentClocksThrottleReasons, self._handle) or 0
        return tuple(name for bit, name in _HOT.items() if reasons & bit)

    def _capability(self) -> str | None:
        found = self._ask(self._nvml.nvmlDeviceGetCudaComputeCapability, self._handle)
        return ".".join(map(str, found)) if found else None

    def _ask(self, question: Any, *arguments: Any) -> Any:
        """The answer, None where this driver, device or user gets none."""
        try:
            return question(*arguments)
        except self._nvml.NVMLError:
            return None


@contextmanager
def _devices(environment: Mapping[str, str]) -> Iterator[list[_Device]]:
    try:
        import pynvml as nvml
    except ImportError:
        yield []
        return
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        yield []
        return
    try:
        try:
            found = [_Device(nvml, handle) for handle in visible_handles(nvml, environment)]
        except nvml.NVMLError:
            found = []
        yield found
    finally:
        nvml.nvmlShutdown()


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
