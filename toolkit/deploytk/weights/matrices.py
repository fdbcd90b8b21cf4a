"""Turns 16-bit matrices of a workspace, [inputs, outputs], into those of Hugging Face, [outputs, inputs]."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_BLOCK_ROWS = 512
_BLOCK_COLUMNS = 128

# A uint64 holds four values of a row. Exchanging halves, then quarters, between four rows transposes 4 x 4 values,
# and what is left is to move uint64: four times fewer than values.
_HALVES, _LOWER_HALF = np.uint64(32), np.uint64(0x00000000FFFFFFFF)
_QUARTERS, _LOWER_QUARTERS = np.uint64(16), np.uint64(0x0000FFFF0000FFFF)


def transpose(stored: Array, out: Array, zipped: int = 0) -> None:
    """`out` [columns, rows] from `stored` [rows, columns] of 16-bit values.

    `zipped`: the columns are zipped in pieces of that length (see nibbles.py), the length of a head.
    """
    rows, columns = stored.shape
    width = zipped or _BLOCK_COLUMNS
    if rows % 4 or columns % 4 or width % 8:
        out[...] = unzip(stored, zipped).T
        return
    source = stored.view(np.uint64)
    for start in range(0, columns, width):
        stop = min(start + width, columns)
        for top in range(0, rows, _BLOCK_ROWS):
            bottom = min(top + _BLOCK_ROWS, rows)
            words = _transposed(source[top:bottom, start // 4 : stop // 4])
            target = out[start:stop, top:bottom].view(np.uint64)
            if zipped:  # column 4w + 2j + s is column 2w + j of half s
                target = target.reshape(2, -1, 2, target.shape[1]).transpose(1, 2, 0, 3)
            else:
                target = target.reshape(-1, 2, 2, target.shape[1])
            target[...] = words.reshape(2, 2, *words.shape[1:]).transpose(3, 0, 1, 2)


def unzip(stored: Array, zipped: int) -> Array:
    """`stored` [..., columns] with the halves of each piece of `zipped` columns one after the other; 0: as it is."""
    if not zipped:
        return stored
    pieces = stored.reshape(*stored.shape[:-1], -1, zipped // 2, 2)
    apart: Array = pieces.swapaxes(-1, -2).reshape(stored.shape)
    return apart


def _transposed(block: Array) -> Array:
    """[column in the word, rows/4, words]: each uint64 holds four rows' values of one column."""
    words: Array = block.reshape(-1, 4, block.shape[1]).transpose(1, 0, 2).copy()
    _exchange(words[:2], words[2:], _HALVES, _LOWER_HALF)
    _exchange(words[::2], words[1::2], _QUARTERS, _LOWER_QUARTERS)
    return words


def _exchange(first: Array, second: Array, shift: np.uint64, lower: np.uint64) -> None:
    """Exchange the upper parts of `first` with the lower ones of `second`, in place."""
    moved = first >> shift
    np.bitwise_xor(moved, second, out=moved)
    np.bitwise_and(moved, lower, out=moved)
    np.bitwise_xor(second, moved, out=second)
    np.left_shift(moved, shift, out=moved)
    np.bitwise_xor(first, moved, out=first)
