"""The tensors of large safetensors headers, counted by groups whose entries say the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from deploytk.artifact.header_columns import Columns, Numbers, Words, has_number_from, hashes_of
from deploytk.artifact.safetensors_header import broken, is_kind
from deploytk.artifact.tensors import DTYPE_BITS, NUMBER, Tensors

_MOST_GROUPS = 50_000
_MOST_BYTES = 2**62  # of a tensor
_KEPT_BYTES = 2**24
_LONGEST_NUMBER = 8  # digits
_LAST_FIELD = b'"data_offsets":['


@dataclass(frozen=True, slots=True)
class _Group:
    name: str  # of the first of them
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    number: tuple[int, int]  # where in the name its first number is, and how long; (0, 0) without


class HeaderGroups:
    """The groups of all files of a model; `finish` adds them to its tensors."""

    def __init__(self, tensors: Tensors) -> None:
        # From now on the C library keeps memory that is freed, instead of asking the kernel for every array anew.
        np.empty(_KEPT_BYTES, np.uint8)
        self.tensors = tensors
        self.groups: list[_Group] = []
        self.hashes: Words = np.empty(0, np.uint64)  # sorted
        self.order: Numbers = np.empty(0, np.int64)  # of each hash, the place of its group in what follows
        self.bytes: Numbers = np.empty(0, np.int64)
        self.numbers: Numbers = np.empty((0, 2), np.int64)
        self.counts: Numbers = np.zeros((0, 2), np.int64)  # within the model's layers, and beyond them

    def of_file(self, path: Path, *, is_listed: bool = False) -> HeaderListing:
        return HeaderListing(self, path, [] if is_listed else None)

    def count(self, path: Path, columns: Columns) -> None:
        """Add the rows of `columns`; ArtifactError for an entry whose size is not that of its shape."""
        rows = self._places(path, columns)
        wrong = np.flatnonzero(columns.end - columns.begin != self.bytes[rows])
        if len(wrong):
            row = int(wrong[0])
            found = int(columns.end[row] - columns.begin[row])
            _check_size(path, _name(columns, row), found, int(self.bytes[rows[row]]))
        self.counts[:, 0] += np.bincount(rows, minlength=len(self.groups))
        layers = self.tensors.layers
        numbered = np.flatnonzero(self.numbers[rows, 1] >= len(str(layers)))
        if len(numbered):
            offsets, digits = self.numbers[rows[numbered]].T
            beyond = rows[numbered][has_number_from(columns, numbered, offsets, digits, layers)]
            counts = np.bincount(beyond, minlength=len(self.groups))
            self.counts += np.stack((-counts, counts), 1)

    def _places(self, path: Path, columns: Columns) -> Numbers:
        """The group of each row; groups that are new are read."""
        places, is_known = self._find(columns.group)
        if not is_known.all():
            new = np.flatnonzero(~is_known)
            hashes, first = np.unique(columns.group[new], return_index=True)
            if len(self.groups) + len(hashes) > _MOST_GROUPS:
                raise broken(path, f"holds more than {_MOST_GROUPS} different kinds of tensors")
            self._learn(hashes, [_read_group(path, columns, row) for row in new[first].tolist()])
            places, _ = self._find(columns.group)
        return places

    def _find(self, hashes: Words) -> tuple[Numbers, Any]:
        if not len(self.hashes):
            return np.zeros(len(hashes), np.int64), np.zeros(len(hashes), bool)
        found = np.minimum(np.searchsorted(self.hashes, hashes), len(self.hashes) - 1)
        return self.order[found], self.hashes[found] == hashes

    def _learn(self, hashes: Words, groups: list[_Group]) -> None:
        places = np.arange(len(self.groups), len(self.groups) + len(groups))
        self.groups += groups
        self.bytes = np.append(self.bytes, [group.bytes for group in groups])
        self.numbers = np.append(self.numbers, [group.number for group in groups], 0)
        self.counts = np.append(self.counts, np.zeros((len(groups), 2), np.int64), 0)
        known, order = np.append(self.hashes, hashes), np.append(self.order, places)
        sorting = np.argsort(known)
        self.hashes, self.order = known[sorting], order[sorting]

    def finish(self) -> None:
        for group, (within, beyond) in zip(self.groups, self.counts.tolist(), strict=True):
            self.tensors.add_many(group.name, group.dtype, group.shape, within, beyond)


class HeaderListing:
    """The entries of one file: where its tensors lie, and how they are called."""

    def __init__(self, groups: HeaderGroups, path: Path, names: list[str] | None) -> None:
        self.groups, self.path = groups, path
        self.names = names
        self.begins: list[Numbers] = []
        self.ends: list[Numbers] = []
        self.hashes: list[Words] = []  # of names

    def add(self, piece: bytes, columns: Columns | None) -> None:
        """The entries in `piece`, each of which ends with a comma, and their columns where it has the usual form."""
        if columns is not None:
            try:
                self._add_columns(piece, columns)
            except _OtherFormError:
                columns = None
        if columns is None:
            self._add_entries(piece)

    def _add_columns(self, piece: bytes, columns: Columns) -> None:
        self.groups.count(self.path, columns)
        self._keep(columns.begin, columns.end, columns.name)
        if self.names is not None:
            places = zip(columns.name_start.tolist(), columns.name_end.tolist(), strict=True)
            text = piece.decode("latin-1")
            names = [text[start:end] for start, end in places]
            self.names += names if piece.isascii() else [_decoded(name.encode("latin-1")) for name in names]

    def _add_entries(self, piece: bytes) -> None:
        """Entries of any form that JSON has: other writers put blanks in, or another order."""
        found = list(_entries(self.path, piece))
        if not found:
            return
        for name, dtype, shape, _, _ in found:
            self.groups.tensors.add(name, dtype, shape)
        names, _, _, begin, end = zip(*found, strict=True)
        try:
            hashes = hashes_of([name.encode("utf-8", "replace") for name in names])
            self._keep(np.array(begin, np.int64), np.array(end, np.int64), hashes)
        except (ValueError, OverflowError) as error:
            raise broken(self.path, "has a malformed header") from error
        if self.names is not None:
            self.names += names

    def _keep(self, begin: Numbers, end: Numbers, hashes: Words) -> None:
        self.begins.append(begin)
        self.ends.append(end)
        self.hashes.append(hashes)

    def check_order(self, data_start: int, size: int) -> Words:
        """The hashes of all names; ArtifactError for one that is there twice, gaps, overlaps or another size."""
        if not self.hashes:
            raise broken(self.path, "holds no tensors")
        names = _joined(self.hashes)
        in_order = np.sort(names)
        if np.any(in_order[1:] == in_order[:-1]):
            raise broken(self.path, "has a malformed header")
        begin, end = _joined(self.begins), _joined(self.ends)
        if begin[0] or np.any(begin[1:] != end[:-1]):
            order = np.lexsort((end, begin))
            begin, end = begin[order], end[order]
            gaps = np.flatnonzero(begin != np.append(0, end[:-1]))
            if len(gaps):
                raise broken(self.path, f"has a gap or an overlap at byte {begin[gaps[0]]} of its tensors")
        expected = data_start + int(end[-1])
        if expected != size:
            raise broken(self.path, f"has {size} bytes, {expected} expected")
        found: Words = names
        return found


def _joined(parts: list[Any]) -> Any:
    """All `parts` as one, which are gone then: a column of a million rows has 10 MiB."""
    whole = np.concatenate(parts)
    parts.clear()
    return whole


class _OtherFormError(Exception):
    """A piece is not written as the safetensors library writes."""


def _read_group(path: Path, columns: Columns, row: int) -> _Group:
    """What the entry in `row` says; _OtherFormError where the places in `columns` are not what they are taken for."""
    start, end = int(columns.name_start[row]) - 1, int(columns.fields_end[row])
    text = bytes(columns.text[start:end])
    raw = text[1 : int(columns.name_end[row]) - start]
    if not text.endswith(_LAST_FIELD):
        raise _OtherFormError
    try:
        [(name, fields)] = json.loads(b"{" + text + b"0,0]}}", object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        raise _OtherFormError from error
    if _decoded(raw) != name or not isinstance(fields, _Pairs) or [key for key, _ in fields] != _KEYS:
        raise _OtherFormError
    size = _size(path, name, fields[0][1], fields[1][1])
    number = NUMBER.search(raw.decode("latin-1"))
    place = (number.start(), min(number.end() - number.start(), _LONGEST_NUMBER)) if number else (0, 0)
    return _Group(name, fields[0][1], tuple(fields[1][1]), size, place)


_KEYS = ["dtype", "shape", "data_offsets"]


class _Pairs(tuple):  # type: ignore[type-arg]
    """The keys and values of an object, in order and with duplicates: an array is a list."""

    __slots__ = ()


def _entries(path: Path, piece: bytes) -> Iterator[tuple[str, str, tuple[int, ...], int, int]]:
    """Name, dtype, shape, begin and end of every entry in `piece`."""
    try:
        entries = json.loads(b"{" + piece.rstrip(b" \t\r\n").removesuffix(b",") + b"}", object_pairs_hook=_Pairs)
        for name, pairs in entries:
            if name == "__metadata__":
                continue
            fields = dict(pairs)
            if len(fields) != len(pairs) or '"' in name or "\\" in name:
                raise ValueError(name)
            begin, end = fields["data_offsets"]
            size = _size(path, name, fields["dtype"], fields["shape"])
            if any(type(number) is not int or number < 0 for number in (begin, end)):
                raise ValueError(name)
            _check_size(path, name, end - begin, size)
            yield name, fields["dtype"], tuple(fields["shape"]), begin, end
    except (ValueError, RecursionError, TypeError, KeyError) as error:
        raise broken(path, "has a malformed header") from error


def _size(path: Path, name: str, dtype: object, shape: Any) -> int:
    """Bytes of a tensor of that kind."""
    if isinstance(shape, list) and isinstance(dtype, str) and is_kind(dtype, shape):
        size = prod(shape) * DTYPE_BITS[dtype] // 8
        if size < _MOST_BYTES:
            return size
    raise broken(path, f"has a malformed entry for {name[:120]!r}")


def _check_size(path: Path, name: str, found: int, expected: int) -> None:
    if found != expected:
        raise broken(path, f"holds {name[:120]!r} with {found} bytes, {expected} expected for its shape")


def _name(columns: Columns, row: int) -> str:
    return _decoded(bytes(columns.text[columns.name_start[row] : columns.name_end[row]]))


def _decoded(name: bytes) -> str:
    return name.decode("utf-8", "replace")
