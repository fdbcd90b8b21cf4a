"""What a hub's apps run on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Platform:
    name: str  # the target's
    python: tuple[int, int]
    host: str  # where the app must listen
    port: int
    memory_bytes: int  # of the machine, in the tier that has the GPU
    vram_bytes: int
