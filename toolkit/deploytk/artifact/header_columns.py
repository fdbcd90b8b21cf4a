"""A safetensors header of a million tensors, a piece at a time, as columns of numpy arrays.

Python's own json needs 40 s and 1.3 GB for a header of 87 MB. The text has one form, as the safetensors library
writes it: "name":{"dtype":"F16","shape":[2,3],"data_offsets":[0,12]}. Its quotes are found at once for a whole piece,
ten of them to an entry; the rest looks at eight bytes of every entry at a time. A piece of any other form is left to
json (`header_scan`).
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_QUOTE, _COMMA, _DOT, _ZERO, _NINE = b'",.09'
_QUOTES = 10  # of an entry
_WORD = 8  # bytes
_LONGEST_NAME = 512
_LENGTHS = ((2, 1, 3), (3, 2, 6), (4, 3, 2), (6, 5, 2), (7, 6, 6), (9, 8, 13))  # quote, quote before it, bytes between
_FORM = ((1, 0, b'":{"dtyp'), (1, 4, b'dtype":"'), (5, 0, b'","shape'), (5, 3, b'shape":['), (8, -2, b'],"data_'),
         (8, 6, b'offsets"'), (8, 8, b'fsets":['))  # fmt: skip

Numbers = NDArray[np.int64]
Words = NDArray[np.uint64]
Word = np.uint64

_ALL = Word(2**64 - 1)
_SEED = np.random.default_rng(secrets.randbits(64))  # so that no file can be made whose hashes collide
_FACTORS: Words = _SEED.integers(1, 2**63, 2 * _LONGEST_NAME // _WORD, dtype=np.uint64) | Word(1)


def _bytes8(byte: int) -> Word:
    """A word of eight such bytes."""
    found: Word = Word(byte * 0x0101010101010101)
    return found


@dataclass(frozen=True, slots=True)
class Columns:
    """The entries of a piece of a header; a row of each column is one entry."""

    name_start: Numbers  # in the piece
    name_end: Numbers
    shape_end: Numbers  # after its bracket
    begin: Numbers  # data_offsets
    end: Numbers
    group: Words  # the same for names that differ in equally long numbers alone, with the same dtype and shape
    name: Words  # the same for the same name


def columns_of(piece: bytes) -> Columns | None:
    """The entries in `piece`, which begins with a name's quote and ends with the comma after an entry.

    None where it has another form than safetensors writes.
    """
    text = np.frombuffer(piece + bytes(_WORD), np.uint8)
    quotes = np.flatnonzero(text == _QUOTE)
    if b"\\" in piece or not len(quotes) or len(quotes) % _QUOTES:
        return None
    words: Words = np.ndarray(len(piece), "<u8", text, strides=(1,))
    q = np.ascontiguousarray(quotes.reshape(-1, _QUOTES).T)
    last = np.append(q[0][1:], len(piece)) - 1  # the comma after each entry
    if not _has_form(words, q, last):
        return None
    end, before = _number_before(words, last - 2)
    begin, bracket = _number_before(words, before)
    if not (np.all(text[before] == _COMMA) and np.array_equal(bracket, q[9] + 2) and begin.min() >= 0 <= end.min()):
        return None
    name = _hash(words, q[0] + 1, q[1], 0)
    group = _hash(words, q[0] + 1, q[1], 0, without_numbers=True)
    group += _hash(words, q[4] + 1, q[8] - 1, _LONGEST_NAME // _WORD)
    return Columns(q[0] + 1, q[1], q[8] - 1, begin, end, group, name)


def _has_form(words: Words, q: Numbers, last: Numbers) -> bool:
    if q[0][0] != 0 or int(np.max(q[1] - q[0])) >= _LONGEST_NAME or int(np.max(q[8] - q[4])) >= _LONGEST_NAME:
        return False
    if not all(np.all(q[one] - q[other] == length) for one, other, length in _LENGTHS):
        return False
    for quote, distance, expected in _FORM:
        found = words[q[quote] + distance] & _mask(len(expected))
        if np.any(found != int.from_bytes(expected, "little")):
            return False
    return bool(np.all(words[last - 2] & _mask(3) == int.from_bytes(b"]},", "little")))


def _mask(length: int) -> Word:
    found: Word = Word(2 ** (8 * length) - 1)
    return found


def _number_before(words: Words, end: Numbers) -> tuple[Numbers, Numbers]:
    """The numbers of at most 16 digits that end before `end`, and the places before them; -1 where there is none."""
    value, digits = _last_digits(words[end - _WORD])
    if np.any(digits == _WORD):
        more, further = _last_digits(words[np.maximum(end - 2 * _WORD, 0)])
        is_long = digits == _WORD
        value = np.where(is_long, value + more * 10**_WORD, value)
        digits = np.where(is_long, digits + further, digits)
    return np.where(digits > 0, value, -1), end - 1 - digits


def _last_digits(word: Words) -> tuple[Numbers, Numbers]:
    """The number at the end of eight bytes, and how many digits it has.

    Eight digits at a time: https://kholdstare.github.io/technical/2020/05/26/faster-integer-parsing.html
    """
    value = word ^ _bytes8(_ZERO)
    others = ~_is_at_most(value, _NINE - _ZERO)
    for shift in (8, 16, 32):  # whatever is before a byte that is no digit is none of the number
        others |= others >> Word(shift)
    digits = ((~others & _bytes8(1)) * _bytes8(1)) >> Word(56)
    value = ((value & ~others) * Word(10 * 256 + 1)) >> Word(8)
    value = ((value & Word(0x00FF00FF00FF00FF)) * Word(100 * 2**16 + 1)) >> Word(16)
    value = ((value & Word(0x0000FFFF0000FFFF)) * Word(10_000 * 2**32 + 1)) >> Word(32)
    return value.astype(np.int64), digits.astype(np.int64)


def _hash(words: Words, start: Numbers, end: Numbers, first_factor: int, *, without_numbers: bool = False) -> Words:
    """A number for the text from `start` to `end` of each row: the same for the same text."""
    total = (end - start).astype(np.uint64) * _FACTORS[-1]
    numbers = np.zeros(len(start), np.uint64)
    for step in range(-(-int(np.max(end - start)) // _WORD)):
        place = np.minimum(start + step * _WORD, len(words) - 1)
        left = np.clip(end - place, 0, _WORD).astype(np.uint64) * Word(8)
        kept = np.where(left == 64, _ALL, (Word(1) << (left & Word(63))) - Word(1))
        word = words[place] & kept
        if without_numbers:
            numbers = _numbers_in(word, words[np.maximum(place - 1, 0)], numbers)
            word = (word & ~numbers) | (_bytes8(_ZERO) & numbers)
        total += (word ^ (word >> Word(29))) * _FACTORS[first_factor + step]
    mixed: Words = total ^ (total >> Word(32))
    return mixed


def _numbers_in(word: Words, before: Words, numbers: Words) -> Words:
    """255 for every byte of a word that belongs to a number after a dot.

    `before` is the word one byte earlier, `numbers` the answer for the word eight bytes earlier.
    """
    digits = _is_at_most(word ^ _bytes8(_ZERO), _NINE - _ZERO)
    found = digits & _is_at_most(before ^ _bytes8(_DOT), 0)
    carried = numbers >> Word(56)
    for _ in range(_WORD):
        more = found | (digits & ((found << Word(8)) | carried))
        if np.array_equal(more, found):
            break
        found = more
    return found


def _is_at_most(word: Words, largest: int) -> Words:
    """255 for every byte that is not larger."""
    high = _bytes8(0x80)
    is_larger = (((word & _bytes8(0x7F)) + _bytes8(0x7F - largest)) | word) & high
    found: Words = ((is_larger ^ high) >> Word(7)) * Word(0xFF)
    return found


def numbers_at(piece: bytes, start: Numbers, places: Numbers) -> Numbers:
    """The number in each name that begins so far from its `start` and has so many digits; -1 where it has none."""
    text = np.frombuffer(piece, np.uint8)
    digits = np.minimum(places[:, 1], 9)
    value = np.where(digits > 0, 0, -1)
    for step in range(int(digits.max())):
        place = np.minimum(start + places[:, 0] + step, len(text) - 1)
        value = np.where(step < digits, value * 10 + text[place] - _ZERO, value)
    return value
