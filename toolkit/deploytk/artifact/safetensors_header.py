"""Reads and checks the header of a safetensors file; its tensors are never loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

from deploytk.artifact.tensors import DTYPE_BITS
from deploytk.base.errors import ArtifactError

# https://github.com/huggingface/safetensors: format, and the limit of its own reader.
_LARGEST_HEADER_BYTES = 100_000_000
_MOST_AXES = 16

_OTHER_FORMATS = {
    b"PK\x03\x04": "a zip file (a PyTorch pickle)",
    b"\x80\x02": "a pickle",
    b"\x80\x03": "a pickle",
    b"\x80\x04": "a pickle",
    b"\x80\x05": "a pickle",
    b"GGUF": "a GGUF file",
    b"version https://git-lfs": "a git-lfs pointer: the file itself was never fetched (git lfs pull)",
}


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """Where a tensor lies in a safetensors file."""

    dtype: str  # a key of DTYPE_BITS
    shape: tuple[int, ...]
    begin: int  # bytes from the start of the file
    end: int

    @property
    def bytes(self) -> int:
        return self.end - self.begin


@contextmanager
def open_header(path: Path) -> Iterator[tuple[IO[bytes], int, int]]:
    """The file `path` at the start of its header, the bytes of the header and those of the file.

    Raises ArtifactError when the file is another format or is shorter than the header that it announces.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            start = file.read(32)
            kind = next((name for magic, name in _OTHER_FORMATS.items() if start.startswith(magic)), None)
            if kind and start[8:9] != b"{":  # a header of 640 bytes begins as a pickle does
                raise broken(path, f"is {kind}, not a safetensors file")
            length = int.from_bytes(start[:8], "little")
            if len(start) < 8 or length > min(_LARGEST_HEADER_BYTES, size - 8):
                raise broken(path, f"has {size} bytes, too few for the header of {length} bytes that it announces")
            file.seek(8)
            yield file, length, size
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}", hint="check the file and its rights") from error


def read_header(path: Path) -> dict[str, TensorEntry]:
    """Name -> entry of every tensor in `path`, in the order of their bytes.

    Raises ArtifactError when the file is another format, the header is malformed, an entry's size is not that
    of its shape, tensors overlap or leave gaps, or the file is shorter or longer than its header says.
    """
    with open_header(path) as (file, length, size):
        header = file.read(length)
    entries = _parse(path, header, 8 + length)
    expected = max((entry.end for entry in entries.values()), default=8 + length)
    if expected != size:
        raise broken(path, f"has {size} bytes, {expected} expected")
    return entries


def _parse(path: Path, header: bytes, data_start: int) -> dict[str, TensorEntry]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a name is there twice")
        return found

    try:
        parsed = json.loads(header, object_pairs_hook=unique)
        fields = {name: entry for name, entry in parsed.items() if name != "__metadata__"}
        entries = {
            name: TensorEntry(
                entry["dtype"],
                tuple(entry["shape"]),
                data_start + entry["data_offsets"][0],
                data_start + entry["data_offsets"][1],
            )
            for name, entry in fields.items()
        }
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise broken(path, "has a malformed header") from error
    in_order = dict(sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)))
    place = data_start
    for name, entry in in_order.items():
        _check_entry(path, name, entry)
        if entry.begin != place:
            raise broken(path, f"has a gap or an overlap before {name[:120]!r}")
        place = entry.end
    return in_order


def _check_entry(path: Path, name: str, entry: TensorEntry) -> None:
    are_places = all(type(place) is int and 0 <= place < 2**63 for place in (entry.begin, entry.end))
    if not are_places or not is_kind(entry.dtype, entry.shape):
        raise broken(path, f"has a malformed entry for {name[:120]!r}")
    expected = prod(entry.shape) * DTYPE_BITS[entry.dtype] // 8
    if entry.bytes != expected:
        raise broken(path, f"holds {name[:120]!r} with {entry.bytes} bytes, {expected} expected for its shape")


def is_kind(dtype: object, shape: Sequence[object]) -> bool:
    """Whether a tensor can have that dtype and shape."""
    are_sizes = all(type(axis) is int and 0 <= axis < 2**63 for axis in shape)
    return isinstance(dtype, str) and dtype in DTYPE_BITS and are_sizes and len(shape) <= _MOST_AXES


def broken(path: Path, what: str) -> ArtifactError:
    """What is wrong with the file at `path`."""
    return ArtifactError(f"{path} {what}", hint="take the file from the original model, whole")
