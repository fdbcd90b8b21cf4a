"""Finds the weight files of a Hugging Face directory and what their headers and their index say."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path

from deploytk.artifact.header_scan import Scanned, list_names, scan_headers
from deploytk.artifact.pickled_tensors import read_pickled
from deploytk.artifact.problems import few
from deploytk.artifact.tensors import Tensors, parameters_of
from deploytk.artifact.tree import FileEntry
from deploytk.artifact.value import Problem
from deploytk.artifact.weight_index import WeightIndex, read_index
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
    tensors: Tensors  # all shards together; empty where nothing tells
    names: frozenset[str]  # of tensors, known from an index also for pickles
    problems: tuple[Problem, ...]

    @property
    def parameters(self) -> int:
        """Parameters as if nothing were quantized."""
        count = 0
        for group, tensors in self.tensors:
            if not group.pattern.endswith(_SIDE_TENSORS):
                count += parameters_of(group) * tensors
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
    weight_index = _read_index(root, index, problems)
    shards = _of_index(_matching(candidates, "*.safetensors"), weight_index, problems)
    tensors = Tensors(layers)
    scanned: dict[str, Scanned] = {}
    broken: list[str] = []
    for shard, found in zip(shards, scan_headers([root / shard for shard in shards], tensors), strict=True):
        if isinstance(found, Scanned):
            scanned[shard] = found
        else:
            broken.append(str(found).replace(f"{root}/", ""))
    problems += few(broken, "broken weight files", _WHOLE)
    if weight_index is None or not weight_index.agrees_with(scanned):
        problems += _compared(root, scanned, weight_index if not problems else None)
    if index is None:
        problems += _unindexed(shards)
    return Shards(shards, tensors, frozenset(), tuple(problems))


def _compared(root: Path, scanned: dict[str, Scanned], index: WeightIndex | None) -> Iterator[Problem]:
    """Tensors that are there twice, and where the index says something else."""
    if index is None and len(scanned) < 2:  # none is twice in one file
        return
    listed = {shard: replace(one, names=one.names or list_names(root / shard)) for shard, one in scanned.items()}
    home, twice = _homes(listed)
    yield from few(twice, "tensors that are there twice", _WHOLE)
    if index and not twice:
        try:
            yield from _against_index(index.weight_map, listed, home)
        except ArtifactError as error:
            yield _about(root, error)


def _homes(scanned: Mapping[str, Scanned]) -> tuple[dict[str, str], list[str]]:
    """Tensor -> shard, and words for those in two shards."""
    home: dict[str, str] = {}
    twice = []
    for shard, header in scanned.items():
        own = dict.fromkeys(header.names or (), shard)
        if not home.keys().isdisjoint(own):
            twice += [f"{name} is in both {home[name]} and {shard}" for name in own if name in home]
        home |= own
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
    weight_index = _read_index(root, index, problems)
    shards = _of_index(_matching(candidates, "*.bin") or dict(candidates), weight_index, problems)
    weight_map = weight_index.weight_map if weight_index else {}
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


def _read_index(root: Path, index: str | None, problems: list[Problem]) -> WeightIndex | None:
    """None without an index, and when it is broken, which goes to `problems`."""
    try:
        return None if index is None else read_index(root / index)
    except ArtifactError as error:
        problems.append(_about(root, error))
        return None


def _about(root: Path, error: ArtifactError) -> Problem:
    return Problem("error", str(error).replace(f"{root}/", ""), error.hint)


def _of_index(found: dict[str, int], index: WeightIndex | None, problems: list[Problem]) -> dict[str, int]:
    """The shards that the index names and that are there, all of them when there is no index."""
    if index is None or not index.files:
        return found
    named = index.files
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
