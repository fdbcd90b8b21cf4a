"""Counts the tensors of a safetensors file from its header."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deploytk.artifact.safetensors_header import read_header
from deploytk.artifact.tensors import Tensors


@dataclass(frozen=True, slots=True)
class Scanned:
    """What a header held."""

    count: int
    names: tuple[str, ...] | None  # None where there are too many to list


def scan_header(path: Path, tensors: Tensors) -> Scanned:
    """Adds the tensors in `path` to `tensors`; raises ArtifactError as `read_header` does."""
    header = read_header(path)
    for name, entry in header.items():
        tensors.add(name, entry.dtype, entry.shape)
    return Scanned(len(header), tuple(header))
