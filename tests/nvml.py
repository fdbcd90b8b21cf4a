"""A stand-in for the module pynvml: one GPU whose memory, processes and faults a test sets."""

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

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        return f"gpu {index}"

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes) -> str:
        return f"gpu {uuid.decode()}"

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
        if version == 2 and "v2" in self.broken:
            raise NVMLError("Function Not Found")
        if version == 2:  # `used` without the reserve, as drivers from 510 on say it
            free = self.total - self.reserved - self.used
            return SimpleNamespace(total=self.total, reserved=self.reserved, used=self.used, free=free)
        used = self.used + self.reserved
        return SimpleNamespace(total=self.total, used=used, free=self.total - used)

    def nvmlDeviceGetName(self, handle: str) -> bytes:
        return b"NVIDIA H200"

    def nvmlDeviceGetUUID(self, handle: str) -> str:
        return "GPU-1"

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
