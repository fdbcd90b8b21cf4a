"""A safetensors header of a million tensors, a piece at a time, as columns of numpy arrays.

Python's own json needs 40 s and 1.3 GB for a header of 87 MB. The text has one form, as the safetensors library
writes it: "name":{"dtype":"F16","shape":[2,3],"data_offsets":[0,12]}. Its brackets are found at once for a whole
piece, four that matter to an entry. Entries whose text up to data_offsets is the same but for the numbers in their
names are one group: json reads the first of each. A piece of any other form is left to json (`header_scan`).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BRACKETS = 4  # of an entry: { [ [ }
_BRACE, _CLOSED, _COMMA, _DOT, _ZERO = b"{},.0"
_LOWER = 0x20  # what a [ lacks to be a {
_WORD = 8  # bytes
_LONGEST_BYTES = 1024  # of a name, and of what follows it up to data_offsets

Numbers = NDArray[np.int64]
Words = NDArray[np.uint64]
Word = np.uint64

_MASKS: Words = np.array([2 ** (8 * kept) - 1 for kept in range(_WORD + 1)], np.uint64)


def _factors() -> Words:
    """Random ones, so that no file can be made whose hashes collide."""
    found: Words = np.frombuffer(secrets.token_bytes(_LONGEST_BYTES + _WORD), "<u8") | Word(1)
    return found


def _bytes8(byte: int) -> Word:
    """A word of eight such bytes."""
    found: Word = Word(byte * 0x0101010101010101)
    return found


_OF_NAMES, _OF_FIELDS = _factors(), _factors()
_ONES, _LOW, _HIGH, _ALL = _bytes8(1), _bytes8(0x7F), _bytes8(0x80), _bytes8(0xFF)
_ZEROS, _DOTS, _ABOVE_NINE = _bytes8(_ZERO), _bytes8(_DOT), _bytes8(0x7F - 9)


@dataclass(frozen=True, slots=True)
class Columns:
    """The entries of a piece of a header; a row of each column is one entry."""

    text: NDArray[np.uint8]  # the piece itself
    name_start: Numbers  # in the piece
    name_end: Numbers
    fields_end: Numbers  # after the bracket of data_offsets
    begin: Numbers  # data_offsets
    end: Numbers
    group: Words  # the same for the same text up to there but for equally long numbers in names
    name: Words  # the same for the same name


def columns_of(piece: bytes) -> Columns | None:
    """The entries in `piece`, which begins with a name's quote and ends with the comma after an entry.

    None where it has another form than safetensors writes, as far as that can be seen without reading every entry:
    the first of each group is still to be read.
    """
    text = padded(piece + b'"')
    brackets = np.flatnonzero(((text | _LOWER) == _BRACE) | (text == _CLOSED))
    if b"\\" in piece or not len(brackets) or len(brackets) % _BRACKETS:
        return None
    opened, _, offsets, closed = (np.ascontiguousarray(column) for column in brackets.reshape(-1, _BRACKETS).T)
    start, name_end, fields_end = np.append(1, closed[:-1] + 3), opened - 2, offsets + 1
    if not _has_order(start, name_end, fields_end) or not _have_ends(text, closed):
        return None
    end, before = _number_before(text, closed - 1)
    begin, bracket = _number_before(text, before)
    if not (np.all(text[before] == _COMMA) and np.array_equal(bracket, offsets) and begin.min() >= 0 <= end.min()):
        return None
    name, group = _hash_names(text, start, name_end)
    group += _hash_fields(text, name_end, fields_end)
    return Columns(text, start, name_end, fields_end, begin, end, group, name)


def padded(piece: bytes) -> NDArray[np.uint8]:
    """The bytes of `piece`, and after them as many zeros as the longest entry may have bytes, in whole words."""
    return np.frombuffer(piece + bytes(_LONGEST_BYTES + 2 * _WORD - len(piece) % _WORD), np.uint8)


def _has_order(start: Numbers, name_end: Numbers, fields_end: Numbers) -> bool:
    longest = max(int(np.max(name_end - start)), int(np.max(fields_end - name_end)))
    return bool(np.all(start <= name_end)) and longest <= _LONGEST_BYTES


def _have_ends(text: NDArray[np.uint8], closed: Numbers) -> bool:
    """Whether what is around each bracket that closes an entry is `]},"`."""
    return all(bool(np.all(text[closed + place] == byte)) for place, byte in zip((-1, 1, 2), b'],"', strict=True))


def hashes_of(names: Sequence[bytes]) -> Words:
    """What `Columns.name` has for these names."""
    if max(map(len, names)) > _LONGEST_BYTES:
        raise ValueError("a name is too long")
    lengths = np.array([len(name) for name in names], np.int64)
    start = np.cumsum(lengths) - lengths
    return hashes_in(padded(b"".join(names)), start, start + lengths)


def hashes_in(text: NDArray[np.uint8], start: Numbers, end: Numbers) -> Words:
    """What `Columns.name` has for the names from `start` to `end`."""
    lengths = end - start
    total = lengths.astype(np.uint64)
    for step, word in enumerate(_words(text, start, _steps(lengths))):
        total += _mixed(_kept(word, lengths, step)) * _OF_NAMES[step]
    return _mixed(total)


def _words(text: NDArray[np.uint8], start: Numbers, count: int) -> Iterator[Words]:
    """Eight bytes of each row after the other, `count` times.

    From whole words, which numpy takes five times as fast as eight bytes that lie anywhere.
    """
    whole: Words = text.view("<u8")
    place, first = start >> 3, ((start & 7) << 3).astype(np.uint64)
    rest = Word(64) - first
    low = whole[place]
    for _ in range(count):
        place = place + 1
        high = whole[place]
        yield (low >> first) | (high << rest)
        low = high


def _number_before(text: NDArray[np.uint8], end: Numbers) -> tuple[Numbers, Numbers]:
    """The numbers of at most 16 digits that end before `end`, and the places before them; -1 where there is none."""
    value, digits = _last_digits(next(_words(text, np.maximum(end - _WORD, 0), 1)))
    if np.any(digits == _WORD):
        more, further = _last_digits(next(_words(text, np.maximum(end - 2 * _WORD, 0), 1)))
        is_long = digits == _WORD
        value = np.where(is_long, value + more * 10**_WORD, value)
        digits = np.where(is_long, digits + further, digits)
    return np.where(digits > 0, value, -1), end - 1 - digits


def _no_digits(word: Words) -> Words:
    """128 for every byte that is no digit."""
    value: Words = word ^ _ZEROS
    found: Words = (((value & _LOW) + _ABOVE_NINE) | value) & _HIGH
    return found


def _last_digits(word: Words) -> tuple[Numbers, Numbers]:
    """The number at the end of eight bytes, and how many digits it has.

    Eight digits at a time: https://kholdstare.github.io/technical/2020/05/26/faster-integer-parsing.html
    """
    others: Words = (_no_digits(word) >> Word(7)) * Word(0xFF)
    for shift in (8, 16, 32):  # whatever is before a byte that is no digit is none of the number
        others |= others >> Word(shift)
    digits = ((~others & _ONES) * _ONES) >> Word(56)
    value = (((word ^ _ZEROS) & ~others) * Word(10 * 256 + 1)) >> Word(8)
    value = ((value & Word(0x00FF00FF00FF00FF)) * Word(100 * 2**16 + 1)) >> Word(16)
    value = ((value & Word(0x0000FFFF0000FFFF)) * Word(10_000 * 2**32 + 1)) >> Word(32)
    return value.astype(np.int64), digits.astype(np.int64)


def _hash_names(text: NDArray[np.uint8], start: Numbers, end: Numbers) -> tuple[Words, Words]:
    """Numbers for the names from `start` to `end`: the same for the same name, and for one with other numbers in it."""
    lengths = end - start
    name = lengths.astype(np.uint64)
    group = name.copy()
    before = np.zeros(len(start), np.uint64)  # the numbers and dots that the word before ends with
    for step, word in enumerate(_words(text, start, _steps(lengths))):
        word, numbers, before = _kept(word, lengths, step), *_numbers_in(word, before)
        name += _mixed(word) * _OF_NAMES[step]
        group += _mixed(word & ~numbers) * _OF_NAMES[step]
    return _mixed(name), group


def _hash_fields(text: NDArray[np.uint8], start: Numbers, end: Numbers) -> Words:
    """A number for the text from `start` to `end` of each row: the same for the same text."""
    lengths = end - start
    total: Words = lengths.astype(np.uint64) << Word(32)
    for step, word in enumerate(_words(text, start, _steps(lengths))):
        total += _mixed(_kept(word, lengths, step)) * _OF_FIELDS[step]
    return total


def _steps(lengths: Numbers) -> int:
    return -(-int(lengths.max()) // _WORD)


def _kept(word: Words, lengths: Numbers, step: int) -> Words:
    """Of the word at that step, what is not beyond the length of its row."""
    if int(lengths.min()) >= (step + 1) * _WORD:
        return word
    kept: Words = word & _MASKS[np.clip(lengths - step * _WORD, 0, _WORD)]
    return kept


def _mixed(word: Words) -> Words:
    found: Words = word ^ (word >> Word(29))
    return found


def _numbers_in(word: Words, before: Words) -> tuple[Words, Words]:
    """255 for every byte of a word that belongs to a number after a dot, and what the next word has to know.

    That is 1 where the word ends within such a number, 128 where it ends with a dot.
    """
    dots = (((((word ^ _DOTS) & _LOW) + _LOW) | (word ^ _DOTS)) & _HIGH) ^ _HIGH
    digits = _no_digits(word) ^ _HIGH
    starts = digits & ((dots << Word(8)) | (before & Word(128)))
    digits = (digits >> Word(7)) * Word(0xFF)
    # One that is added to the first byte of a run of 255 is carried to its end.
    numbers = digits & ~(digits + (starts >> Word(7)) + (before & Word(1)))
    return numbers, (numbers >> Word(63)) | (dots >> Word(56))


def has_number_from(
    columns: Columns, rows: Numbers, offsets: Numbers, digits: Numbers, least: int
) -> NDArray[np.bool_]:
    """Whether the number in the name of each of `rows` that begins so far from its start is at least `least`.

    It has 1 to 8 digits, none of them a zero in front: the longer one, or the later in the order of text, is larger.
    """
    word = next(_words(columns.text, columns.name_start[rows] + offsets, 1))
    word <<= (_WORD - digits).astype(np.uint64) << Word(3)
    found: NDArray[np.bool_] = word.byteswap() >= Word(int.from_bytes(str(least).encode(), "big"))
    return found
