"""The tensors of a model, in groups: there are up to a million, and their names differ in layer and expert alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod

DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "C64": 64, "F64": 64,
    "I64": 64, "U64": 64,
}  # fmt: skip

# Of a layer or an expert.
NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")


def shape_in_words(shape: Iterable[int]) -> str:
    return " x ".join(map(str, shape)) or "no dimensions"


@dataclass(frozen=True, slots=True)
class TensorGroup:
    """Tensors of one dtype and shape whose names differ in nothing but numbers."""

    pattern: str  # their name, with # for every number in it
    dtype: str  # a key of DTYPE_BITS
    shape: tuple[int, ...]
    is_beyond: bool = False  # in layers after the last one of the language model

    @property
    def elements(self) -> int:
        """Of one of them."""
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        """Of one of them."""
        return self.elements * DTYPE_BITS[self.dtype] // 8


_PACKED = {"qweight": 8, "weight_packed": 8}


def parameters_of(group: TensorGroup) -> int:
    """Of one of them, as if it were not quantized: a 4-bit tensor holds eight in an int32, two in a byte."""
    packed = _PACKED.get(group.pattern.rpartition(".")[2], 2 if group.pattern.endswith("_blocks") else 1)
    return group.elements * packed


class Tensors:
    """All tensors of a model, by group."""

    def __init__(self, layers: int) -> None:
        self.layers = layers
        self.counts: Counter[TensorGroup] = Counter()

    def add(self, name: str, dtype: str, shape: tuple[int, ...]) -> None:
        number = NUMBER.search(name)
        is_beyond = number is not None and int(number[0][:9]) >= self.layers
        self.add_many(name, dtype, shape, int(not is_beyond), int(is_beyond))

    def add_many(self, name: str, dtype: str, shape: tuple[int, ...], within: int, beyond: int) -> None:
        """So many tensors whose names differ from `name` in numbers alone, within the layers and beyond them."""
        pattern = NUMBER.sub("#", name)
        for count, is_beyond in ((within, False), (beyond, True)):
            if count:
                self.counts[TensorGroup(pattern, dtype, shape, is_beyond)] += count

    def __iter__(self) -> Iterator[tuple[TensorGroup, int]]:
        yield from self.counts.items()

    def ending(self, *ends: str) -> list[TensorGroup]:
        """The groups whose names end so."""
        return [group for group in self.counts if group.pattern.endswith(ends)]
