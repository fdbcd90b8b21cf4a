"""The linear layers of a workspace: which part of which files holds which Hugging Face tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from deploytk.base.errors import WeightsError
from deploytk.weights import matrices, nibbles
from deploytk.weights.mapped import MappedFiles
from deploytk.weights.value import Array, Dtype, Tensor

GROUP = 128  # rows that share a scale and a zero point; TurboMind has kernels for this size alone

_OFFSET_64 = 0x5400  # 64 as a half; the nibble of a zero point is in the four bits above its lowest four

# The number 0 to 15 that each half is, 255 where it is none of them; numpy computes with halves one by one.
_NUMBERS = np.full(2**16, 255, np.uint8)
_NUMBERS[np.arange(16).astype(np.float16).view(np.uint16)] = np.arange(16)
_NUMBERS[np.float16(-0.0).view(np.uint16)] = 0


@dataclass(frozen=True, slots=True)
class Files:
    """The weight files of a workspace."""

    directory: Path
    ranks: int
    is_ini: bool
    dtype: Dtype  # of what is not quantized
    mapped: MappedFiles  # those of two tensors: of the one that is being made, and of the next

    def open(self, name: str, dtype: npt.DTypeLike, *shape: int) -> Array:
        """The file `name`, mapped; refuses it when its size is not that of `shape`."""
        expected = int(np.prod(shape)) * np.dtype(dtype).itemsize
        whole = self.mapped.get(self.directory / name, expected)
        return whole.view(dtype).reshape(shape)


@dataclass(frozen=True, slots=True)
class Linear:
    """One linear layer of the Hugging Face model, and where a workspace keeps it."""

    files: Files
    stem: str  # "layers.0.attention.w_qkv"
    rows: int  # inputs, all ranks together
    columns: int  # outputs, all ranks together
    split: Literal["rows", "columns"]  # how it is parted over the ranks
    beside: int = 0  # columns of the other layers in the same file, all ranks together
    offset: int = 0  # columns before this one in that file, all ranks together
    zipped: int = 0  # columns are zipped in pieces of this length (see nibbles.py)
    half: int | None = None  # this layer is one half of a file of two zipped layers

    def tensors(self, name: str, *, is_int4: bool, dequantize: bool, has_bias: bool) -> Iterator[Tensor]:
        """The tensors of this layer, called `name`.weight and so on."""
        groups = self.rows // GROUP
        shape = (self.columns, self.rows)
        if not is_int4:
            step = matrices.stripe(self.zipped)
            yield Tensor(f"{name}.weight", self.files.dtype, shape, self.fill_weight, step=step)
        elif dequantize:
            yield Tensor(f"{name}.weight", "F16", shape, self.fill_dequantized)
        else:
            words = self.columns // 8
            yield Tensor(f"{name}.qweight", "I32", (self.rows, words), self.fill_qweight, step=nibbles.TILE)
            yield Tensor(f"{name}.qzeros", "I32", (groups, words), self.fill_qzeros)
            yield Tensor(f"{name}.scales", "F16", (groups, self.columns), self.fill_scales)
        if has_bias:
            yield Tensor(f"{name}.bias", self.files.dtype, (self.columns,), self.fill_bias)

    def fill_weight(self, out: Array, first: int) -> None:
        target = out.view(np.uint16)
        for rank in range(self.files.ranks):
            columns = shared(self._columns_of(rank), first, len(out))
            if not columns.is_empty:
                stored = self._open(rank, "weight", np.uint16, self._rank_rows)[:, self._own][:, columns.theirs]
                matrices.transpose(stored, target[columns.ours, self._rows_of(rank)], self.zipped)

    def fill_bias(self, out: Array, _first: int = 0) -> None:
        """All ranks together; a bias of a layer whose rows are parted is there once per rank."""
        target = out.view(np.uint16)
        for rank in range(self.files.ranks):
            stored = self.files.open(f"{self.stem}.{rank}.bias", np.uint16, self._file_columns)
            target[self._columns_of(rank)] = matrices.unzip(stored[self._own], self.zipped)

    def fill_qweight(self, out: Array, first: int) -> None:
        target = out.view(np.uint32)
        for rank in range(self.files.ranks):
            rows = shared(self._rows_of(rank), first, len(out))
            if not rows.is_empty:
                part = target[rows.ours, _words(self._columns_of(rank))]
                if self.files.is_ini:
                    self._fill_from_tiles(rank, rows.theirs, part)
                else:
                    self._fill_from_plain(rank, rows.theirs, part)

    def _fill_from_plain(self, rank: int, rows: slice, part: Array) -> None:
        words = self._words(rank, self._file_columns // 8)[rows, _words(self._own)]
        if self.zipped:
            nibbles.from_plain_zipped(words, part, self.zipped)
        else:
            nibbles.from_plain(words, part)

    def _fill_from_tiles(self, rank: int, rows: slice, part: Array) -> None:
        shape = self._rank_rows // nibbles.TILE, self._file_columns // nibbles.TILE, 128
        tiles = self._words(rank, self._file_columns // nibbles.TILE * 4).reshape(shape)
        tiles = tiles[_tiles(rows), _tiles(self._own)]
        if self.half is not None:
            nibbles.from_tiles_zipped(tiles, part[:, None], self.half)
        elif self.zipped:
            # transpose_qk_s4 gets the size of a group as that of a head (target_model/w4.py, all tags).
            halves = part.reshape(part.shape[0], -1, 2, GROUP // 16)
            for half in (0, 1):
                nibbles.from_tiles_zipped(tiles, halves[:, :, half], half)
        else:
            nibbles.from_tiles(tiles, part)

    def fill_scales(self, out: Array, _first: int = 0) -> None:
        target = out.view(np.uint16)
        for rank in range(self.files.ranks):
            stored = self._groups(rank, "scales")
            target[self._groups_of(rank), self._columns_of(rank)] = matrices.unzip(stored, self.zipped)

    def fill_qzeros(self, out: Array, _first: int = 0) -> None:
        target = out.view(np.uint32)
        values: Array
        for rank in range(self.files.ranks):
            if self.files.is_ini:
                stored = self._groups(rank, "zeros")
                values = (stored - _OFFSET_64) >> 4
                is_whole = not ((stored ^ _OFFSET_64) & ~np.uint16(0xF0)).any()
                zipped = GROUP if self.zipped else 0
            else:
                values = _NUMBERS[self._groups(rank, "zeros")]
                is_whole = not (values > 15).any()
                zipped = self.zipped
            if not is_whole:
                raise WeightsError(
                    f"{self.files.directory / self.stem}.{rank} has zero points that are not the numbers 0 to 15",
                    hint="copy the file from the original workspace, or start from the original model",
                )
            packed = nibbles.pack(matrices.unzip(values, zipped).astype(np.uint8, copy=False))
            target[self._groups_of(rank), _words(self._columns_of(rank))] = packed

    def fill_dequantized(self, out: Array, _first: int = 0) -> None:
        parts: list[Array] = []
        for shape, dtype, fill in (
            ((self.rows, self.columns // 8), np.int32, self.fill_qweight),
            ((self.rows // GROUP, self.columns // 8), np.int32, self.fill_qzeros),
            ((self.rows // GROUP, self.columns), np.float16, self.fill_scales),
        ):
            part: Array = np.empty(shape, dtype)
            fill(part, 0)
            parts.append(part)
        dequantize(parts[0], parts[1], parts[2], out)

    @property
    def _rank_rows(self) -> int:
        return self.rows // self.files.ranks if self.split == "rows" else self.rows

    @property
    def _rank_columns(self) -> int:
        return self.columns // self.files.ranks if self.split == "columns" else self.columns

    @property
    def _file_columns(self) -> int:
        """Columns of a rank's file: this layer's and those of the layers merged or zipped with it."""
        own = self._rank_columns * (1 if self.half is None else 2)
        return own + self.beside // self.files.ranks

    @property
    def _own(self) -> slice:
        """This layer's columns in a rank's file."""
        start = self.offset // self.files.ranks
        return slice(start, start + self._rank_columns * (1 if self.half is None else 2))

    def _rows_of(self, rank: int) -> slice:
        height = self._rank_rows
        return slice(rank * height, (rank + 1) * height) if self.split == "rows" else slice(0, height)

    def _groups_of(self, rank: int) -> slice:
        groups = self._rank_rows // GROUP
        return slice(rank * groups, (rank + 1) * groups) if self.split == "rows" else slice(None)

    def _columns_of(self, rank: int) -> slice:
        width = self._rank_columns
        return slice(rank * width, (rank + 1) * width) if self.split == "columns" else slice(0, width)

    def _open(self, rank: int, kind: str, dtype: npt.DTypeLike, rows: int) -> Array:
        return self.files.open(f"{self.stem}.{rank}.{kind}", dtype, rows, self._file_columns)

    def _words(self, rank: int, words: int) -> Array:
        return self.files.open(f"{self.stem}.{rank}.qweight", np.uint32, self._rank_rows, words)

    def _groups(self, rank: int, kind: Literal["scales", "zeros"]) -> Array:
        """Scales or zero points of a rank as 16 bits each, in the order of the stored columns."""
        groups = self._rank_rows // GROUP
        if self.files.is_ini:
            name = f"{self.stem}.{rank}.scales_zeros"
            pairs = self.files.open(name, np.uint16, groups, self._file_columns, 2)  # half2: zero point + 64, scale
            stored = pairs[:, self._own, 1 if kind == "scales" else 0]
        else:
            stored = self._open(rank, kind, np.uint16, groups)[:, self._own]
        return stored if self.half is None else stored[:, self.half :: 2]


def dequantize(qweight: Array, qzeros: Array, scales: Array, out: Array) -> None:
    """`out` [columns, rows] as float16 of the three tensors of AWQ: (number - zero point) * scale.

    The difference has 5 bits and the scale 11, so that the product is exact in float32 and is rounded once.
    """
    zeros = nibbles.unpack(qzeros.view(np.uint32)).astype(np.float32)
    factors = scales.astype(np.float32)
    for group in range(len(zeros)):
        rows = slice(group * GROUP, (group + 1) * GROUP)
        values = nibbles.unpack(qweight[rows].view(np.uint32)).astype(np.float32)
        values -= zeros[group]
        values *= factors[group]
        out[:, rows] = values.astype(np.float16).T


def resized(tensor: Tensor, shape: tuple[int, ...], take: Callable[[Array], Array]) -> Tensor:
    """`tensor` without what was added to it: `take` picks out of its values those of `shape`."""

    def fill(out: Array, _first: int) -> None:
        out[...] = take(tensor.read())

    return Tensor(tensor.name, tensor.dtype, shape, fill)


def copied(name: str, dtype: Dtype, shape: tuple[int, ...], values: Callable[[], Array]) -> Tensor:
    """A tensor of 16-bit values that are kept as they are."""

    def fill(out: Array, _first: int) -> None:
        out.view(np.uint16)[...] = values()

    return Tensor(name, dtype, shape, fill)


@dataclass(frozen=True, slots=True)
class Shared:
    """What a rank has of the rows or columns that are asked for."""

    ours: slice  # among those that are asked for
    theirs: slice  # among those of the rank

    @property
    def is_empty(self) -> bool:
        return bool(self.ours.start >= self.ours.stop)


def shared(of_rank: slice, first: int, count: int) -> Shared:
    start, stop = max(of_rank.start, first), min(of_rank.stop, first + count)
    return Shared(slice(start - first, stop - first), slice(start - of_rank.start, stop - of_rank.start))


def _words(columns: slice) -> slice:
    return slice(columns.start // 8, columns.stop // 8)


def _tiles(places: slice) -> slice:
    return slice(places.start // nibbles.TILE, places.stop // nibbles.TILE)
