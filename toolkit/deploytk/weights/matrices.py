"""Turns 16-bit matrices of a workspace, [inputs, outputs], into those of Hugging Face, [outputs, inputs]."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from deploytk.weights.scratch import scratch

Array = npt.NDArray[Any]

STRIPE = 512  # columns that are read at once: 1 KiB of each row, as memory is fast from there on
_BLOCK_ROWS = 512  # with a stripe, what fits into the cache of a core beside what becomes of it
_PADDING = 32  # values between the rows of a block, whose values of one column must not all fall to the same cache sets


def transpose(stored: Array, out: Array, zipped: int = 0) -> None:
    """`out` [columns, rows] from `stored` [rows, columns] of 16-bit values.

    `zipped`: the columns are zipped in pieces of that length (see nibbles.py), the length of a head.
    """
    rows, columns = stored.shape
    width = stripe(zipped)
    block = scratch("block", (_BLOCK_ROWS, width + _PADDING), np.uint16)
    for start in range(0, columns, width):
        stop = min(start + width, columns)
        for top in range(0, rows, _BLOCK_ROWS):
            bottom = min(top + _BLOCK_ROWS, rows)
            near = block[: bottom - top, : stop - start]
            near[...] = stored[top:bottom, start:stop]
            target = out[start:stop, top:bottom]
            if zipped:  # column 2j + s of a piece is column j of its half s
                pieces = near.reshape(bottom - top, -1, zipped // 2, 2)
                target.reshape(-1, 2, zipped // 2, bottom - top)[...] = pieces.transpose(1, 3, 2, 0)
            else:
                target[...] = near.T


def stripe(zipped: int = 0) -> int:
    """How many columns `transpose` reads at once: whole pieces."""
    return max(1, STRIPE // zipped) * zipped if zipped else STRIPE


def unzip(stored: Array, zipped: int) -> Array:
    """`stored` [..., columns] with the halves of each piece of `zipped` columns one after the other; 0: as it is."""
    if not zipped:
        return stored
    pieces = stored.reshape(*stored.shape[:-1], -1, zipped // 2, 2)
    apart: Array = pieces.swapaxes(-1, -2).reshape(stored.shape)
    return apart
