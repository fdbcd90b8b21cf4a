"""Finds the weight files of a Hugging Face directory and what their headers and their index say."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from math import prod
from pathlib import Path

from deploytk.artifact.problems import few
from deploytk.artifact.safetensors_header import TensorEntry, read_header
from deploytk.artifact.text_formats import LARGEST_INDEX_BYTES, read_json
from deploytk.artifact.tree import FileEntry
from deploytk.artifact.value import Problem
from deploytk.base.errors import ArtifactError

_WHOLE = "take the file from the original model, whole"

# The first of these that matches holds the weights: `create_loader`, LMDeploy turbomind/deploy/loader.py, 0.9.2.
_INDEX = "model.safetensors.index.json"
_PICKLE_INDEX = "pytorch_model.bin.index.json"
_WITHOUT_INDEX = ("model*.safetensors", "pytorch_model*.bin", "*.safetensors", "*.pt", "*.bin")

_NUMBERED = re.compile(r"-(\d{5})-of-(\d{5})\.(?:safetensors|bin)$")

# What a quantized tensor holds besides the weights themselves.
_SIDE_TENSORS = (
    ".qzeros",
    ".scales",
    ".g_idx",
    "_scale",
    "_scale_inv",
    "_scales",
    ".weight_shape",
    ".weight_zero_point",
    ".scale",
)


@dataclass(frozen=True, slots=True)
class Shards:
    """The weight files of a directory and what their headers hold."""

    files: dict[str, int]  # path -> bytes
    tensors: dict[str, TensorEntry]  # all shards together; empty for pickles
    names: frozenset[str]  # of tensors, known from an index also for pickles
    problems: tuple[Problem, ...]

    @property
    def parameters(self) -> int:
        """Parameters as if nothing were quantized: a 4-bit tensor holds eight in an int32, two in a byte."""
        count = 0
        for name, entry in self.tensors.items():
            if name.endswith(_SIDE_TENSORS):
                continue
            packed = 8 if name.endswith((".qweight", ".weight_packed")) else 2 if name.endswith("_blocks") else 1
            count += prod(entry.shape) * packed
        return count


def read_shards(root: Path, entries: Sequence[FileEntry]) -> Shards:
    """The weights at `root`; pickles are never opened: only an index beside them tells what they hold."""
    at_root = {entry.path: entry.bytes for entry in entries if "/" not in entry.path and entry.may_belong}
    if _INDEX in at_root:
        return _read_safetensors(root, at_root, _INDEX)
    safetensors, pickles, *others = _WITHOUT_INDEX
    if _matching(at_root, safetensors):
        return _read_safetensors(root, _matching(at_root, safetensors), None)
    if _PICKLE_INDEX in at_root:
        return _read_pickles(root, at_root, _PICKLE_INDEX)
    for pattern in (pickles, *others):
        found = _matching(at_root, pattern)
        if found:
            is_safe = pattern.endswith(".safetensors")
            return _read_safetensors(root, found, None) if is_safe else _read_pickles(root, found, None)
    hint = "expected *.safetensors beside config.json"
    return Shards({}, {}, frozenset(), (Problem("error", "no weights are here", hint),))


def _matching(files: Mapping[str, int], pattern: str) -> dict[str, int]:
    return {path: size for path, size in files.items() if fnmatch(path, pattern)}


def _read_safetensors(root: Path, candidates: Mapping[str, int], index: str | None) -> Shards:
    problems: list[Problem] = []
    weight_map = _read_weight_map(root, index, problems)
    shards = _of_index(_matching(candidates, "*.safetensors"), weight_map, problems)
    tensors: dict[str, TensorEntry] = {}
    home: dict[str, str] = {}
    broken: list[ArtifactError] = []
    for shard in shards:
        try:
            header = read_header(root / shard)
        except ArtifactError as error:
            broken.append(error)
            continue
        twice = next((name for name in header if name in home), None)
        if twice:
            problems.append(Problem("error", f"{twice} is in both {home[twice]} and {shard}", _WHOLE))
        tensors |= header
        home |= dict.fromkeys(header, shard)
    problems += few([str(error).replace(f"{root}/", "") for error in broken], "broken weight files", _WHOLE)
    if weight_map and not problems:
        lost = [f"{name} is not in {shard}" for name, shard in weight_map.items() if home.get(name) != shard]
        problems += few(lost, "tensors of the index missing", _WHOLE)
        unlisted = [f"{name} in {shard} is not in the index" for name, shard in home.items() if name not in weight_map]
        problems += few(unlisted, "tensors not in the index", _WHOLE)
    if index is None:
        problems += _unindexed(shards)
    return Shards(shards, tensors, frozenset(tensors), tuple(problems))


def _read_pickles(root: Path, candidates: Mapping[str, int], index: str | None) -> Shards:
    problems: list[Problem] = []
    weight_map = _read_weight_map(root, index, problems)
    shards = _of_index(_matching(candidates, "*.bin") or dict(candidates), weight_map, problems)
    return Shards(shards, {}, frozenset(weight_map), (*problems, *(_unnumbered(shards) if index is None else ())))


def _read_weight_map(root: Path, index: str | None, problems: list[Problem]) -> dict[str, str]:
    """Tensor -> shard; empty without an index, and when it is broken, which goes to `problems`."""
    if index is None:
        return {}
    try:
        weight_map = read_json(root / index, LARGEST_INDEX_BYTES).get("weight_map")
    except ArtifactError as error:
        problems.append(Problem("error", str(error).replace(f"{root}/", ""), error.hint))
        return {}
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        problems.append(Problem("error", f"{index} has no weight_map", "copy it from the original model"))
        return {}
    return weight_map


def _of_index(found: dict[str, int], weight_map: Mapping[str, str], problems: list[Problem]) -> dict[str, int]:
    """The shards that the index names and that are there, all of them when there is no index."""
    if not weight_map:
        return found
    named = set(weight_map.values())
    problems += few([f"{shard} is missing" for shard in sorted(named - found.keys())], "files missing", _WHOLE)
    strays = sorted(shard for shard in found.keys() - named if _NUMBERED.search(shard))
    problems += few([f"{shard} is not in the index" for shard in strays], "files not in the index", _WHOLE)
    return {shard: size for shard, size in found.items() if shard in named or shard in strays}


def _unindexed(shards: Mapping[str, int]) -> Iterator[Problem]:
    yield from _unnumbered(shards)
    if any(_NUMBERED.search(shard) for shard in shards):
        message = f"{_INDEX} is missing, although the weights are in {len(shards)} files"
        yield Problem("warning", message, "copy it from the original model: LMDeploy can do without, transformers not")


def _unnumbered(shards: Mapping[str, int]) -> Iterator[Problem]:
    """Gaps in model-00001-of-00003 and so on, which only an index would show otherwise."""
    numbers = [(int(match[1]), int(match[2])) for match in map(_NUMBERED.search, shards) if match]
    if not numbers:
        return
    last = max(total for _, total in numbers)
    gaps = sorted(set(range(1, min(last, 10_000) + 1)) - {number for number, _ in numbers})
    yield from few([f"weight file {gap} of {last} is missing" for gap in gaps], "files missing", _WHOLE)
