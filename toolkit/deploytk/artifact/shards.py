"""Finds the weight files of a Hugging Face directory and what their headers and their index say."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from deploytk.artifact.header_scan import Scanned, scan_header
from deploytk.artifact.pickled_tensors import read_pickled
from deploytk.artifact.problems import few
from deploytk.artifact.tensors import Tensors
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


_PACKED = {"qweight": 8, "weight_packed": 8}


@dataclass(frozen=True, slots=True)
class Shards:
    """The weight files of a directory and what their headers hold."""

    files: dict[str, int]  # path -> bytes
    tensors: Tensors  # all shards together; empty where nothing tells
    names: frozenset[str]  # of tensors, known from an index also for pickles
    problems: tuple[Problem, ...]

    @property
    def parameters(self) -> int:
        """Parameters as if nothing were quantized: a 4-bit tensor holds eight in an int32, two in a byte."""
        count = 0
        for group, tensors in self.tensors:
            if not group.pattern.endswith(_SIDE_TENSORS):
                packed = _PACKED.get(group.pattern.rpartition(".")[2], 2 if group.pattern.endswith("_blocks") else 1)
                count += group.elements * tensors * packed
        return count


def read_shards(root: Path, entries: Sequence[FileEntry], layers: int) -> Shards:
    """The weights at `root` of a model of so many layers; pickles are never loaded."""
    at_root = {entry.path: entry.bytes for entry in entries if "/" not in entry.path and _may_hold_weights(entry)}
    if _INDEX in at_root:
        return _read_safetensors(root, at_root, _INDEX, layers)
    safetensors, pickles, *others = _WITHOUT_INDEX
    if _matching(at_root, safetensors):
        return _read_safetensors(root, _matching(at_root, safetensors), None, layers)
    if _PICKLE_INDEX in at_root:
        return _read_pickles(root, at_root, _PICKLE_INDEX, layers)
    for pattern in (pickles, *others):
        found = _matching(at_root, pattern)
        if found:
            is_safe = pattern.endswith(".safetensors")
            return _read_safetensors(root, found, None, layers) if is_safe else _read_pickles(root, found, None, layers)
    hint = "expected *.safetensors beside config.json"
    return Shards({}, Tensors(layers), frozenset(), (Problem("error", "no weights are here", hint),))


def _may_hold_weights(entry: FileEntry) -> bool:
    """An adapter's matrices are no model."""
    return entry.may_belong and not entry.name.startswith("adapter_")


def _matching(files: Mapping[str, int], pattern: str) -> dict[str, int]:
    return {path: size for path, size in files.items() if fnmatch(path, pattern)}


def _read_safetensors(root: Path, candidates: Mapping[str, int], index: str | None, layers: int) -> Shards:
    problems: list[Problem] = []
    weight_map = _read_weight_map(root, index, problems)
    shards = _of_index(_matching(candidates, "*.safetensors"), weight_map, problems)
    tensors = Tensors(layers)
    scanned: dict[str, Scanned] = {}
    broken: list[str] = []
    for shard in shards:
        found = _scanned(root, shard, tensors)
        if isinstance(found, Scanned):
            scanned[shard] = found
        else:
            broken.append(found)
    problems += few(broken, "broken weight files", _WHOLE)
    home, twice = _homes(scanned)
    problems += few(twice, "tensors that are there twice", _WHOLE)
    if weight_map and not problems:
        problems += _against_index(weight_map, scanned, home)
    if index is None:
        problems += _unindexed(shards)
    return Shards(shards, tensors, frozenset(home), tuple(problems))


def _scanned(root: Path, shard: str, tensors: Tensors) -> Scanned | str:
    """What the header of `shard` holds, or what is wrong with it."""
    try:
        return scan_header(root / shard, tensors)
    except ArtifactError as error:
        return str(error).replace(f"{root}/", "")


def _homes(scanned: Mapping[str, Scanned]) -> tuple[dict[str, str], list[str]]:
    """Tensor -> shard, and words for those in two shards."""
    home: dict[str, str] = {}
    twice = []
    for shard, header in scanned.items():
        names = header.names or ()
        twice += [f"{name} is in both {home[name]} and {shard}" for name in names if name in home]
        home |= dict.fromkeys(names, shard)
    return home, twice


def _against_index(
    weight_map: Mapping[str, str], scanned: Mapping[str, Scanned], home: Mapping[str, str]
) -> Iterator[Problem]:
    listed = {shard for shard, header in scanned.items() if header.names is not None}
    lost = [
        f"{name} is not in {shard}" for name, shard in weight_map.items() if shard in listed and home.get(name) != shard
    ]
    yield from few(lost, "tensors of the index missing", _WHOLE)
    unlisted = [f"{name} in {shard} is not in the index" for name, shard in home.items() if name not in weight_map]
    yield from few(unlisted, "tensors not in the index", _WHOLE)
    expected = Counter(weight_map.values())
    counts = [
        f"{shard} holds {header.count} tensors, {expected[shard]} in the index"
        for shard, header in scanned.items()
        if shard not in listed and header.count != expected[shard]
    ]
    yield from few(counts, "files with other tensors than in the index", _WHOLE)


def _read_pickles(root: Path, candidates: Mapping[str, int], index: str | None, layers: int) -> Shards:
    problems: list[Problem] = []
    weight_map = _read_weight_map(root, index, problems)
    shards = _of_index(_matching(candidates, "*.bin") or dict(candidates), weight_map, problems)
    problems += _unnumbered(shards) if index is None else ()
    tensors = Tensors(layers)
    names: set[str] = set(weight_map)
    for shard in shards:
        try:
            pickled = read_pickled(root / shard)
        except ArtifactError as error:
            problems.append(Problem("warning", str(error).replace(f"{root}/", ""), error.hint))
            return Shards(shards, Tensors(layers), frozenset(weight_map), tuple(problems))
        for tensor in pickled:
            tensors.add(tensor.name, tensor.dtype, tensor.shape)
        names |= {tensor.name for tensor in pickled}
    return Shards(shards, tensors, frozenset(names), tuple(problems))


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
