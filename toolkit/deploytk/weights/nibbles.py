"""Puts 4-bit weights from the order in which a workspace keeps them into that of AutoAWQ.

Every order met here is a permutation of *index bits*. A matrix of K rows (inputs) and N columns (outputs) is kept
as uint32 words of eight nibbles; an element has an index of bits, some of which choose the word and three of which
choose the nibble in it (b2 b1 b0, b0 changing fastest, the lowest nibble first). Two moves do everything:

- `_exchange`: the bit that chooses between two arrays of words changes places with a nibble bit;
- `_swap`: two nibble bits change places.

AWQ ("gemm") packs eight neighbouring columns c = c2 c1 c0 of a row into a word with the nibble bits (c0 c2 c1): from
the lowest nibble on, the columns 0 2 4 6 1 3 5 7.

config.yaml (0.6.0 and later; `pack_u4_row`, turbomind/deploy/parameter.py): words [K, N/8], nibble bits (c2 c1 c0).

config.ini (`reformat_s4_k_m8`, kernels/gemm_s_f16/format.cu, the same file from v0.0.5 to v0.5.3). It reads the words
of AWQ, [K, N/8], and writes tiles of 32 x 32, in the order of the tensor core's registers:

    shape{k/32, 2, 2, 4, 2, m/32, 2, 2, 2, 4}, written in the order <0, 5, 9, 8, 3, 1, 6, 4, 2, 7>

Here the axes 1 2 3 4 are the row in the tile, 6 7 the word of AWQ in the tile, 8 9 the nibble of AWQ in that word. So
a tile has 128 words with the axes (9, 8, 3, 1, 6), their nibble bits are the axes (4 2 7). Below, 9 is split into its
two bits 9h 9l: AWQ's nibble bits are (8 9h 9l).

Two orders of columns are zipped: the two halves of each head of q and k (TurboMind rotates neighbours, Hugging Face
halves), and in config.ini w1 with w3. `transpose_qk_s4_k_m8_hf` and `fuse_w1_w3_s4_k_m8` do it: column 2j+s of the
zipped order is column j of half s. There the zipped column bits of a word are (j1 j0 s), so AWQ's nibble bits (s j1 j0)
name the half in axis 8; axis 7, the lower bit of the word, is j2, and the column j wants the nibble bits (j0 j2 j1).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from deploytk.weights.scratch import scratch

Words = npt.NDArray[np.uint32]

TILE = 32
AWQ_COLUMNS = (0, 2, 4, 6, 1, 3, 5, 7)
"""The column of each nibble in a word of AWQ, the lowest nibble first."""

_BLOCK_WORDS = 2**16  # what is permuted at once has to fit into the cache of a core, with a copy and what it becomes


def from_plain(stored: Words, out: Words) -> None:
    """`out` [K, N/8] of AWQ from the rows of a config.yaml workspace, [K, N/8]."""
    for rows in _blocks(*stored.shape):
        words = stored[rows]  # (c2 c1 c0)
        swapped = scratch("words", words.shape, np.uint32)
        _swap(words, 0, 1, swapped)  # (c2 c0 c1)
        _swap(swapped, 1, 2, out[rows])  # (c0 c2 c1)


def from_plain_zipped(stored: Words, out: Words, length: int) -> None:
    """The same for columns that are zipped in pieces of `length`, the length of a head."""
    together = np.uint64 if length % 32 == 0 else np.uint32  # what is moved at once
    width = length // 16 * 4 // np.dtype(together).itemsize  # of a half
    for rows in _blocks(*stored.shape):
        # A half's eight columns are in two words: column bits (j2 j1 j0 s), where j2 chooses the word.
        words = scratch("words", (2, len(out[rows]), stored.shape[1] // 2), np.uint32)
        words[0], words[1] = stored[rows, ::2], stored[rows, 1::2]  # (j1 j0 s)
        _exchange(words[0], words[1], 0)  # (j1 j0 j2), and s chooses the array
        _swap(words, 1, 2, words)  # (j0 j1 j2)
        _swap(words, 0, 1, words)  # (j0 j2 j1)
        halves, target = words.view(together), out[rows].view(together)
        for half in (0, 1):
            for place in range(width):
                target[:, half * width + place :: 2 * width] = halves[half, :, place::width]


def from_tiles(stored: Words, out: Words) -> None:
    """`out` [K, N/8] of AWQ from the tiles of a config.ini workspace, [K/32, N/32, 128]."""
    across = stored.shape[1]
    for tiles in _blocks(stored.shape[0], across * 128):
        words = _gathered(stored[tiles], slice(None))  # [9h, 9l, 8 | k, n, 3, 1, 6], (4 2 7)
        _exchange(words[:, :, 0], words[:, :, 1], 2)  # [9h, 9l, 4], (8 2 7)
        _exchange(words[0], words[1], 1)  # [2, 9l, 4], (8 9h 7)
        _exchange(words[:, 0], words[:, 1], 0)  # [2, 7, 4], (8 9h 9l)
        target = out[tiles.start * TILE : tiles.stop * TILE].reshape(-1, 2, 2, 4, 2, across, 2, 2)
        # [2, 7, 4, k, n, 3, 1, 6] -> [k, 1, 2, 3, 4, n, 6, 7], in steps that leave numpy long inner loops, along n
        moved = words.reshape(2, 2, 2, -1, across, 4, 2, 2).transpose(3, 6, 0, 5, 2, 4, 7, 1)
        for six, seven in ((0, 0), (0, 1), (1, 0), (1, 1)):
            target[..., six, seven] = moved[..., six, seven]


def from_tiles_zipped(stored: Words, out: Words, half: int) -> None:
    """One `half` of zipped columns; `out` is [K, pieces, words]: the halves of a piece need not be neighbours."""
    across, pieces = stored.shape[1], out.shape[1]
    for tiles in _blocks(stored.shape[0], across * 64):
        words = _gathered(stored[tiles], half)  # [9h, 9l | k, n, 3, 1, 6], (4 2 7)
        _exchange(words[0], words[1], 0)  # [7, 9l], (4 2 9h)
        _exchange(words[:, 0], words[:, 1], 2)  # [7, 4], (9l 2 9h)
        _exchange(words[0], words[1], 1)  # [2, 4], (9l 7 9h), which is (j0 j2 j1)
        # [2, 4, k, n, 3, 1, 6] -> [k, 1, 2, 3, 4, n, 6], where n counts tiles in pieces; both words of 6 move as one
        moved = words.view(np.uint64).reshape(2, 2, -1, pieces, across // pieces, 4, 2).transpose(2, 6, 0, 5, 1, 3, 4)
        target = out[tiles.start * TILE : tiles.stop * TILE].view(np.uint64).reshape(moved.shape)
        for tile in range(moved.shape[-1]) if pieces > 1 else (slice(None),):  # long inner loops again
            target[..., tile] = moved[..., tile]


def pack(values: npt.NDArray[np.uint8]) -> Words:
    """Words of AWQ, [..., N/8], of the numbers 0 to 15 in `values` [..., N]."""
    eight = np.ascontiguousarray(values).view(np.uint64)  # a byte per column
    even, odd = eight & np.uint64(0x000F000F000F000F), eight >> np.uint64(8) & np.uint64(0x000F000F000F000F)
    for four in (even, odd):  # columns 0 2 4 6 and 1 3 5 7: from a nibble in every 16 bits to four in 16 bits
        four |= four >> np.uint64(12)
        four &= np.uint64(0x000000FF000000FF)
        four |= four >> np.uint64(24)
        four &= np.uint64(0xFFFF)
    words: Words = np.bitwise_or(even, odd << np.uint64(16)).astype(np.uint32)
    return words


def unpack(words: Words) -> npt.NDArray[np.uint8]:
    """The numbers 0 to 15, [..., N], in words of AWQ [..., N/8]."""
    shifts = np.array([4 * AWQ_COLUMNS.index(column) for column in range(8)], np.uint32)
    return ((words[..., None] >> shifts) & 15).astype(np.uint8).reshape(*words.shape[:-1], -1)


def _blocks(rows: int, words_per_row: int) -> Iterator[slice]:
    step = max(1, _BLOCK_WORDS // max(1, words_per_row))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def _gathered(tiles: npt.NDArray[Any], eight: int | slice) -> Words:
    """A copy [9h, 9l, 8 | k, n, the 16 words of 3, 1 and 6] of the tiles [k, n, 128]: 64 bytes are moved at once."""
    lines = tiles.reshape(*tiles.shape[:2], 8, 16).view("V64").reshape(*tiles.shape[:2], 2, 2, 2)
    lines = lines.transpose(2, 3, 4, 0, 1)[:, :, eight]
    gathered: Words = scratch("words", (*lines.shape, 16), np.uint32)
    gathered.view("V64")[..., 0] = lines
    return gathered


def _where_clear(bit: int) -> int:
    """The mask of the nibbles whose index has `bit` clear."""
    return sum(15 << 4 * nibble for nibble in range(8) if not nibble >> bit & 1)


def _exchange(first: Words, second: Words, bit: int) -> None:
    """Exchange the bit that chooses between `first` and `second` with a nibble bit, in place."""
    shift, mask = np.uint32(4 << bit), np.uint32(_where_clear(bit))
    moved = scratch("moved", first.shape, np.uint32)
    np.right_shift(first, shift, out=moved)
    np.bitwise_xor(moved, second, out=moved)
    np.bitwise_and(moved, mask, out=moved)
    np.bitwise_xor(second, moved, out=second)
    np.left_shift(moved, shift, out=moved)
    np.bitwise_xor(first, moved, out=first)


def _swap(words: Words, low: int, high: int, out: Words) -> None:
    """`out`, which may be `words`, is `words` with two nibble bits swapped."""
    distance = 4 * ((1 << high) - (1 << low))
    mask = np.uint32(_where_clear(high) & ~_where_clear(low) & 0xFFFFFFFF)
    moved = scratch("moved", words.shape, np.uint32)
    np.right_shift(words, np.uint32(distance), out=moved)
    np.bitwise_xor(moved, words, out=moved)
    np.bitwise_and(moved, mask, out=moved)  # in what the two places differ
    np.multiply(moved, np.uint32(1 + (1 << distance)), out=moved)  # at both of them
    np.bitwise_xor(words, moved, out=out)
