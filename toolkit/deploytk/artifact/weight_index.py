"""model.safetensors.index.json: which tensor is in which file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from deploytk.artifact.header_scan import Scanned
from deploytk.artifact.text_formats import LARGEST_INDEX_BYTES, read_json
from deploytk.base.errors import ArtifactError

if TYPE_CHECKING:
    from deploytk.artifact.index_columns import IndexColumns

_SMALL_BYTES = 2**20  # what json reads in the time that it takes to load numpy


@dataclass(frozen=True)
class WeightIndex:
    """An index; the names of a large one are read only when somebody asks for them."""

    path: Path
    columns: IndexColumns | None = None  # of a large one

    @cached_property
    def weight_map(self) -> dict[str, str]:
        """Tensor -> file; ArtifactError where there is none."""
        found = read_json(self.path, LARGEST_INDEX_BYTES).get("weight_map")
        if not isinstance(found, dict) or not all(isinstance(file, str) for file in found.values()):
            raise ArtifactError(f"{self.path} has no weight_map", hint="copy it from the original model")
        return found

    @cached_property
    def files(self) -> frozenset[str]:
        """The files that it names."""
        return self.columns.files if self.columns else frozenset(self.weight_map.values())

    def agrees_with(self, scanned: Mapping[str, Scanned]) -> bool:
        """Whether it is certain that it names just the tensors that are there, each in its file."""
        return self.columns is not None and self.columns.agree_with(scanned)


def read_index(path: Path, *, small_bytes: int = _SMALL_BYTES) -> WeightIndex:
    """The index at `path`; ArtifactError for one that cannot be read."""
    if small_bytes < _size(path) <= LARGEST_INDEX_BYTES:
        from deploytk.artifact.index_columns import index_columns

        columns = index_columns(path.read_bytes())
        if columns is not None:
            return WeightIndex(path, columns)
    index = WeightIndex(path)
    index.weight_map  # noqa: B018 (for the error)
    return index


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
