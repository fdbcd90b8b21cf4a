"""Counts the tensors of a safetensors file from its header; small headers by json, large ones as columns."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from deploytk.artifact.safetensors_header import broken, is_kind, open_header, read_header
from deploytk.artifact.tensors import DTYPE_BITS, NUMBER, Tensors

if TYPE_CHECKING:
    from deploytk.artifact.header_columns import Columns

_SMALL_BYTES = 2**16
_PIECE_BYTES = 2**20  # what a processor's cache holds with the columns of it
_LARGEST_METADATA_BYTES = 2**22
_LARGEST_LISTED_BYTES = 2**24  # of a header whose names are kept: those of 100 000 tensors
_MOST_GROUPS = 50_000


@dataclass(frozen=True, slots=True)
class Scanned:
    """What a header held."""

    count: int
    names: tuple[str, ...] | None  # None where there are too many to list


def scan_header(path: Path, tensors: Tensors, *, small_bytes: int = _SMALL_BYTES) -> Scanned:
    """Adds the tensors in `path` to `tensors`; raises ArtifactError as `read_header` does.

    Headers of up to `small_bytes` are left to json.
    """
    with open_header(path) as (file, length, size):
        if length > small_bytes:
            return _LargeHeader(path, length, tensors).scan(file, size)
    header = read_header(path)
    for name, entry in header.items():
        tensors.add(name, entry.dtype, entry.shape)
    return Scanned(len(header), tuple(header))


@dataclass(frozen=True, slots=True)
class _Group:
    name: str  # of the first of them
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    number: tuple[int, int]  # where in the name its first number is, and how long; (0, 0) without


class _LargeHeader:
    """A header that is read a piece at a time; the columns of all pieces are all that is kept."""

    def __init__(self, path: Path, length: int, tensors: Tensors) -> None:
        self.path, self.length, self.tensors = path, length, tensors
        self.groups: dict[int, _Group] = {}
        self.columns: list[tuple[Any, Any, Any]] = []  # begin, end, hash of the name
        self.names: list[str] | None = [] if length <= _LARGEST_LISTED_BYTES else None

    def scan(self, file: IO[bytes], size: int) -> Scanned:
        for piece in _pieces(self.path, file, self.length):
            self._add(piece)
        return Scanned(self._check_order(size), None if self.names is None else tuple(self.names))

    def _add(self, piece: bytes) -> None:
        from deploytk.artifact.header_columns import columns_of

        columns = columns_of(piece)
        if columns is None:
            piece = _as_safetensors_writes(self.path, piece)
            if not piece:
                return
            columns = columns_of(piece)
        if columns is None:
            raise broken(self.path, "has a malformed header")
        self._count(piece, columns)
        self.columns.append((columns.begin, columns.end, columns.name))
        if self.names is not None:
            places = zip(columns.name_start.tolist(), columns.name_end.tolist(), strict=True)
            self.names += [piece[start:end].decode("utf-8", "replace") for start, end in places]

    def _count(self, piece: bytes, columns: Columns) -> None:
        import numpy as np

        from deploytk.artifact.header_columns import numbers_at

        hashes, firsts, rows = np.unique(columns.group, return_index=True, return_inverse=True)
        groups = [self._group(piece, columns, *pair) for pair in zip(hashes.tolist(), firsts.tolist(), strict=True)]
        expected = np.array([group.bytes for group in groups])[rows]
        wrong = np.flatnonzero(columns.end - columns.begin != expected)
        if len(wrong):
            row = int(wrong[0])
            name = piece[columns.name_start[row] : columns.name_end[row]].decode("utf-8", "replace")
            found = int(columns.end[row] - columns.begin[row])
            what = f"holds {name[:120]!r} with {found} bytes, {expected[row]} expected for its shape"
            raise broken(self.path, what)
        numbers = numbers_at(piece, columns.name_start, np.array([group.number for group in groups])[rows])
        beyond = np.bincount(rows, numbers >= self.tensors.layers, len(groups)).astype(int).tolist()
        counts = np.bincount(rows, minlength=len(groups)).tolist()
        for group, count, further in zip(groups, counts, beyond, strict=True):
            self.tensors.add_many(group.name, group.dtype, group.shape, count - further, further)

    def _group(self, piece: bytes, columns: Columns, key: int, row: int) -> _Group:
        found = self.groups.get(key)
        if found is None:
            if len(self.groups) >= _MOST_GROUPS:
                raise broken(self.path, f"holds more than {_MOST_GROUPS} different kinds of tensors")
            found = self.groups[key] = self._parsed(piece, columns, row)
        return found

    def _parsed(self, piece: bytes, columns: Columns, row: int) -> _Group:
        raw = piece[columns.name_start[row] : columns.name_end[row]]
        name = raw.decode("utf-8", "replace")
        try:
            entry = json.loads(b"{" + piece[columns.name_end[row] + 3 : columns.shape_end[row]] + b"}")
        except ValueError as error:
            raise broken(self.path, "has a malformed header") from error
        if not is_kind(entry["dtype"], entry["shape"]):
            raise broken(self.path, f"has a malformed entry for {name[:120]!r}")
        number = NUMBER.search(raw.decode("latin-1"))
        place = (number.start(), number.end() - number.start()) if number else (0, 0)
        size = prod(entry["shape"]) * DTYPE_BITS[entry["dtype"]] // 8
        if size >= 2**62:
            raise broken(self.path, f"has a malformed entry for {name[:120]!r}")
        return _Group(name, entry["dtype"], tuple(entry["shape"]), size, place)

    def _check_order(self, size: int) -> int:
        """Raises ArtifactError for a name that is there twice, gaps, overlaps or another size; returns the count."""
        import numpy as np

        if not self.columns:
            raise broken(self.path, "holds no tensors")
        begin, end, names = (np.concatenate(column) for column in zip(*self.columns, strict=True))
        names.sort()
        if np.any(names[1:] == names[:-1]):
            raise broken(self.path, "has a malformed header")
        if begin[0] or np.any(begin[1:] != end[:-1]):
            order = np.lexsort((end, begin))
            begin, end = begin[order], end[order]
            gaps = np.flatnonzero(begin != np.append(0, end[:-1]))
            if len(gaps):
                raise broken(self.path, f"has a gap or an overlap at byte {begin[gaps[0]]} of its tensors")
        expected = 8 + self.length + int(end[-1])
        if expected != size:
            raise broken(self.path, f"has {size} bytes, {expected} expected")
        return len(begin)


def _pieces(path: Path, file: IO[bytes], length: int) -> Iterator[bytes]:
    """The entries of the header, so many at a time; every piece ends with a comma."""
    left = length

    def more() -> bytes:
        nonlocal left
        found = file.read(min(_PIECE_BYTES, left))
        left = left - len(found) if found else 0
        return found

    text = _without_metadata(path, more)
    while True:
        cut = text.rfind(b"},") + 2
        if cut > 1:
            yield text[:cut]
            text = text[cut:].lstrip(b" \t\r\n")
        elif len(text) > _LARGEST_METADATA_BYTES:
            raise broken(path, "has a malformed header")
        if not left:
            break
        text += more()
    text = text.rstrip(b" \t\r\n")
    if not text.endswith(b"}"):
        raise broken(path, "has a malformed header")
    yield text[:-1].rstrip(b" \t\r\n") + b","


def _without_metadata(path: Path, more: Callable[[], bytes]) -> bytes:
    """The beginning of the header without its bracket and what it says of itself."""
    text = more().lstrip(b" \t\r\n")
    if not text.startswith(b"{"):
        raise broken(path, "has a malformed header")
    text = text[1:].lstrip(b" \t\r\n")
    if not text.startswith(b'"__metadata__"'):
        return text
    while True:
        start = text.find(b"{")
        try:
            _, end = json.JSONDecoder().raw_decode(text[start:].decode("latin-1"))
        except (ValueError, RecursionError) as error:
            added = more() if len(text) < _LARGEST_METADATA_BYTES else b""
            if not added:
                raise broken(path, "has a malformed header") from error
            text += added
            continue
        rest = text[start + end :].lstrip(b" \t\r\n")
        return rest[1:].lstrip(b" \t\r\n") if rest.startswith(b",") else rest


def _as_safetensors_writes(path: Path, piece: bytes) -> bytes:
    """The same entries in the form of the safetensors library: other writers put blanks in, or another order."""
    try:
        entries = json.loads(b"{" + piece.rstrip(b" \t\r\n").removesuffix(b",") + b"}", object_pairs_hook=_Pairs)
        written = [_written(name, dict(fields)) for name, fields in entries if name != "__metadata__"]
    except (ValueError, RecursionError, TypeError, KeyError) as error:
        raise broken(path, "has a malformed header") from error
    return "".join(written).encode()


class _Pairs(tuple):  # type: ignore[type-arg]
    """The keys and values of an object, in order and with duplicates: an array is a list."""

    __slots__ = ()


def _written(name: str, fields: dict[str, Any]) -> str:
    """An entry in the form of the safetensors library; ValueError for a name that has none there."""
    begin, end = fields["data_offsets"]
    numbers = [*fields["shape"], begin, end]
    if '"' in name or "\\" in name or any(type(number) is not int or number < 0 for number in numbers):
        raise ValueError(name)
    shape = ",".join(map(str, fields["shape"]))
    kind = json.dumps(fields["dtype"])
    return f'"{name}":{{"dtype":{kind},"shape":[{shape}],"data_offsets":[{begin},{end}]}},'
