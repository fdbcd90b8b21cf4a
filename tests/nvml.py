"""A stand-in for the module pynvml: GPUs whose memory, processes and faults a test sets."""

# ruff: noqa: N802 (NVML names its functions)

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

MIB = 2**20


class NVMLError(Exception):
    pass


@dataclass
class Nvml:
    """Bytes; functions that are in `broken` raise as on drivers that do not support them."""

    total: int = 80 * 2**30
    reserved: int = 600 * MIB
    used: int = 1000 * MIB
    processes: tuple[tuple[int, int | None], ...] = ()
    throttle_reasons: int = 0
    has_slices: bool = False
    count: int = 1
    used_by: dict[str, int] = field(default_factory=dict)  # handle -> bytes, where GPUs differ
    name: str = "NVIDIA H200"
    capability: tuple[int, int] = (9, 0)
    broken: frozenset[str] = frozenset()
    asked: list[str] = field(default_factory=list)

    NVMLError = NVMLError
    nvmlMemory_v2 = 2  # noqa: N815
    NVML_CLOCK_SM = 1

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("nvml") and name in object.__getattribute__(self, "broken"):

            def refuse(*_: object, **__: object) -> None:
                raise NVMLError("Not Supported")

            return refuse
        return object.__getattribute__(self, name)

    def nvmlInit(self) -> None:
        pass

    def nvmlShutdown(self) -> None:
        pass

    def nvmlDeviceGetCount(self) -> int:
        return self.count

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        return f"gpu {index}"

    def nvmlDeviceGetMigMode(self, handle: str) -> list[int]:
        return [int(self.has_slices), int(self.has_slices)]

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: str) -> int:
        return 2

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: str, number: int) -> str:
        if number == 0:
            raise NVMLError("Not Found")
        return f"slice {number}"

    def nvmlDeviceIsMigDeviceHandle(self, handle: str) -> bool:
        return handle.startswith("slice")

    def nvmlDeviceGetMemoryInfo(self, handle: str, version: int | None = None) -> SimpleNamespace:
        self.asked.append(handle)
        used = self.used_by.get(handle, self.used)
        if version == 2 and "v2" in self.broken:
            raise NVMLError("Function Not Found")
        if version == 2:  # `used` without the reserve, as drivers from 510 on say it
            free = self.total - self.reserved - used
            return SimpleNamespace(total=self.total, reserved=self.reserved, used=used, free=free)
        used += self.reserved
        return SimpleNamespace(total=self.total, used=used, free=self.total - used)

    def nvmlDeviceGetName(self, handle: str) -> bytes:
        return self.name.encode()

    def nvmlDeviceGetUUID(self, handle: str) -> str:
        """GPU-a0, GPU-a1, ...; MIG-1."""
        kind, number = handle.split()
        return f"MIG-{number}" if kind == "slice" else f"GPU-a{number}"

    def nvmlDeviceGetCudaComputeCapability(self, handle: str) -> tuple[int, int]:
        return self.capability

    def nvmlSystemGetDriverVersion(self) -> str:
        return "580.1"

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: str) -> int:
        return 700_000

    def nvmlDeviceGetClockInfo(self, handle: str, clock: int) -> int:
        return 1980

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[SimpleNamespace]:
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in self.processes]

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: str) -> int:
        return self.throttle_reasons
