"""Writes tensors as safetensors files: header first, then every tensor at its place, in parts, several at once."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from deploytk.base.progress import Advance
from deploytk.weights import STORED_AS, Source, Tensor, scratch

SHARD_BYTES = 2 * 2**30  # what an interrupted run loses at most, and a hub uploads without splitting it

# numpy lets go of the interpreter while it works, and what is in memory grows with the workers.
_WORKERS = min(4, os.cpu_count() or 1)
_PART_BYTES = 2**20  # made and written before it has left the cache of its core
# Linux takes as large a piece of memory for the page cache as is written at once: 8 MiB take four times the system
# time of 256 KiB when memory is fragmented.
_WRITTEN_AT_ONCE = 2**18
_PAGE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Shard:
    """One safetensors file to write."""

    name: str
    tensors: tuple[Tensor, ...]
    header: bytes

    @property
    def bytes(self) -> int:
        return len(self.header) + sum(tensor.bytes for tensor in self.tensors)


def plan_shards(tensors: Sequence[Tensor]) -> tuple[Shard, ...]:
    """The files that `tensors` go into, in their order, none larger than SHARD_BYTES unless one tensor is."""
    groups = list(_grouped(tensors))
    names = ["model.safetensors"]
    if len(groups) > 1:
        names = [f"model-{number:05d}-of-{len(groups):05d}.safetensors" for number in range(1, len(groups) + 1)]
    return tuple(Shard(name, group, _header(group)) for name, group in zip(names, groups, strict=True))


def index(shards: Sequence[Shard]) -> dict[str, object]:
    """The model.safetensors.index.json of `shards`."""
    total = sum(tensor.bytes for shard in shards for tensor in shard.tensors)
    weight_map = {tensor.name: shard.name for shard in shards for tensor in shard.tensors}
    return {"metadata": {"total_size": total}, "weight_map": weight_map}


def write_shard(shard: Shard, path: Path, advance: Advance) -> None:
    """Write `shard` as `path`, which is there under its name only when it is whole."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    descriptor = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        os.fchmod(descriptor, 0o644)
        os.posix_fallocate(descriptor, 0, shard.bytes)  # a full disk is found here, not after an hour
        os.pwrite(descriptor, shard.header, 0)
        _write_tensors(shard, descriptor, advance)
    finally:
        os.close(descriptor)
    unfinished.rename(path)


def is_written(shard: Shard, path: Path) -> bool:
    """Whether the file `path` holds `shard`, byte for byte."""
    if not path.is_file() or path.is_symlink() or path.stat().st_size != shard.bytes:
        return False
    with path.open("rb") as file:
        if file.read(len(shard.header)) != shard.header:
            return False
        for part in _parts(shard):
            if file.read(part.bytes) != part.values().data.cast("B"):
                return False
    return True


@dataclass(frozen=True, slots=True)
class _Part:
    """Some rows of a tensor, and where they go."""

    tensor: Tensor
    first: int
    shape: tuple[int, ...]
    place: int  # in the file

    @property
    def bytes(self) -> int:
        return prod(self.shape) * np.dtype(STORED_AS[self.tensor.dtype]).itemsize

    def values(self) -> npt.NDArray[Any]:
        """The values, in memory that this thread uses again for the next part."""
        values = scratch("part", self.shape, STORED_AS[self.tensor.dtype])
        self.tensor.fill(values, self.first)
        return values


def _parts(shard: Shard) -> Iterator[_Part]:
    place = len(shard.header)
    for tensor in shard.tensors:
        for first, shape in tensor.parts(_PART_BYTES):
            part = _Part(tensor, first, shape, place)
            yield part
            place += part.bytes


def _write_tensors(shard: Shard, descriptor: int, advance: Advance) -> None:
    """All tensors, a few parts at a time; the first failure stops the rest."""
    parts, taking = _parts(shard), threading.Lock()
    turn = threading.Lock()  # the system writes a file for one at a time; waiting here leaves the core to others
    has_failed = threading.Event()

    def take() -> _Part | None:
        with taking:
            return None if has_failed.is_set() else next(parts, None)

    def work() -> None:
        try:
            while part := take():
                if part.tensor.source is None:
                    values = part.values().data.cast("B")
                    with turn:
                        _write_all(descriptor, values, part.place)
                else:
                    _copy(part, part.tensor.source, descriptor)
                advance(part.bytes)
        except BaseException:
            has_failed.set()
            raise

    with ThreadPoolExecutor(_WORKERS) as pool:
        try:
            for worker in [pool.submit(work) for _ in range(_WORKERS)]:
                worker.result()
        except BaseException:
            has_failed.set()
            raise


def _write_all(descriptor: int, data: memoryview, place: int) -> None:
    done = 0
    while done < len(data):
        done += os.pwrite(descriptor, data[done : done + _WRITTEN_AT_ONCE], place + done)


def _copy(part: _Part, source: Source, descriptor: int) -> None:
    """Copy the bytes of a part that is kept as it is."""
    if not part.bytes:
        return
    begin = source.offset + part.first * (part.bytes // part.shape[0] if part.first else 0)
    with source.path.open("rb") as file:
        done = 0
        while done < part.bytes:
            left = min(_WRITTEN_AT_ONCE, part.bytes - done)
            data = os.pread(file.fileno(), left, begin + done)
            if not data:
                raise EOFError(f"{source.path} ends before {part.tensor.name} does")
            _write_all(descriptor, memoryview(data), part.place + done)
            done += len(data)


def _grouped(tensors: Sequence[Tensor]) -> Iterator[tuple[Tensor, ...]]:
    group: list[Tensor] = []
    size = 0
    for tensor in tensors:
        if group and size + tensor.bytes > SHARD_BYTES:
            yield tuple(group)
            group, size = [], 0
        group.append(tensor)
        size += tensor.bytes
    yield tuple(group)


def _header(tensors: Sequence[Tensor]) -> bytes:
    """Length and JSON (https://github.com/huggingface/safetensors, format), padded so that data begin on a page."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for tensor in tensors:
        end = begin + tensor.bytes
        entries[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % _PAGE_BYTES)
    return len(text).to_bytes(8, "little") + text
