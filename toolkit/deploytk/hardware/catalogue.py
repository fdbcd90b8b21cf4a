"""GPUs by name or size, from gpus.yaml."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from deploytk.base.errors import UsageError
from deploytk.base.yaml import load_yaml

MIB = 2**20
_UNITS = {"g": 2**30, "gib": 2**30, "gb": 2**30, "m": MIB, "mib": MIB, "mb": MIB}


@dataclass(frozen=True, slots=True)
class Gpu:
    name: str
    total_bytes: int  # what the driver reports as total, one GPU
    reserved_bytes: int  # what the driver keeps of that
    compute_capability: str | None  # "8.0"; None when only a size is known
    bandwidth_gb_s: int | None = None  # of its memory, 10^9 bytes per second, as published
    used_bytes: int = 0  # by others, now; of a GPU of this machine
    is_here: bool = False
    is_offered: bool = False  # proposed where a model does not fit

    @property
    def usable_bytes(self) -> int:
        """What a server can have of it."""
        return self.total_bytes - self.reserved_bytes - self.used_bytes

    @property
    def capability(self) -> float | None:
        return float(self.compute_capability) if self.compute_capability else None


def find_gpu(text: str) -> Gpu:
    """The GPU of that name, also as nvidia-smi prints it, or one of that size: 24G, 24GiB, 24576MiB.

    GB is read as GiB: vendors print 24 GB on a card whose driver reports 24 GiB. Raises UsageError for others.
    """
    size = re.fullmatch(r"(\d{1,9}(?:\.\d+)?)\s*(g|gb|gib|m|mb|mib)", text.strip().lower())
    if size:
        return Gpu(text.strip(), int(float(size[1]) * _UNITS[size[2]]), 0, None)
    known = _known()
    found = known_gpu(text)
    if found:
        return found
    near = {known[key].name for key in difflib.get_close_matches(_plain(text), known, n=3, cutoff=0.5)}
    hint = f"take {' or '.join(sorted(near) or _offered())}, as nvidia-smi prints it, or a size such as 24G"
    raise UsageError(f"no GPU {text!r} is known", hint=hint)


def known_gpu(name: str) -> Gpu | None:
    """The GPU of that name in the catalogue."""
    return _known().get(_plain(name))


def larger_gpus(than: Gpu) -> list[str]:
    """The names of the offered GPUs with more memory, the smallest first."""
    known = {gpu.name: gpu.total_bytes for gpu in _known().values()}
    return [name for name in _offered() if known[name] > than.total_bytes]


def _offered() -> list[str]:
    known = {gpu.name: gpu.total_bytes for gpu in _known().values() if gpu.is_offered}
    return sorted(known, key=lambda name: (known[name], name))


@cache
def _known() -> dict[str, Gpu]:
    gpus: dict[str, Gpu] = {}
    for name, row in load_yaml(Path(__file__).with_name("gpus.yaml")).items():
        gpu = Gpu(
            name, row["total"] * MIB, row.get("reserved", 0) * MIB, row["capability"], row.get("bandwidth"),
            is_offered=row.get("offered", False),
        )  # fmt: skip
        gpus |= {_plain(alias): gpu for alias in (name, *row.get("aliases", ()))}
    return gpus


def _plain(name: str) -> str:
    """Without what does not matter, and without the brands that nvidia-smi puts before a name."""
    return re.sub(r"[\s_-]+", "", re.sub(r"\b(nvidia|tesla|geforce|graphics device)\b", "", name.lower()))
