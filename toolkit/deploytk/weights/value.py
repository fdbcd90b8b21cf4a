"""Tensors as values: a name, a type, a shape, and a way to read them when they are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Dtype = Literal["F16", "BF16", "F32", "I32"]
"""As safetensors names them."""

AWQ = {"bits": 4, "group_size": 128, "quant_method": "awq", "version": "gemm", "zero_point": True}
"""The quantization_config that LMDeploy and transformers read (lite/apis/auto_awq.py, LMDeploy 0.18.0)."""

Array = npt.NDArray[Any]

STORED_AS: dict[Dtype, npt.DTypeLike] = {"F16": np.float16, "BF16": np.uint16, "F32": np.float32, "I32": np.int32}
"""What `Tensor.read` returns: numpy has no bfloat16, so those come as their 16 bits."""


@dataclass(frozen=True, slots=True)
class Source:
    """A place in a file."""

    path: Path
    offset: int  # bytes


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor under its Hugging Face name; nothing is read before `read`."""

    name: str
    dtype: Dtype
    shape: tuple[int, ...]
    fill: Callable[[Array, int], None]  # writes the values of the rows from that one on into an array for them
    source: Source | None = None  # where its bytes lie one after the other, when nothing has to be done to them
    step: int = 0  # rows that `fill` makes together: what it is asked for starts at a multiple; 0: it makes all at once

    @property
    def bytes(self) -> int:
        return prod(self.shape) * np.dtype(STORED_AS[self.dtype]).itemsize

    def read(self) -> Array:
        """The values, as `STORED_AS[dtype]`; bfloat16 as the 16 bits of each."""
        values = np.empty(self.shape, STORED_AS[self.dtype])
        self.fill(values, 0)
        return values

    def parts(self, about_bytes: int) -> Iterator[tuple[int, tuple[int, ...]]]:
        """First row and shape of each part that can be filled by itself, none much larger than `about_bytes`."""
        rows = self.shape[0] if self.shape else 1
        if not self.step or self.bytes <= about_bytes:
            yield 0, self.shape
            return
        together = max(self.step, about_bytes // (self.bytes // rows) // self.step * self.step)
        for first in range(0, rows, together):
            yield first, (min(together, rows - first), *self.shape[1:])


@dataclass(frozen=True, slots=True)
class ModelWeights:
    """The weights of a model, whatever layout they lie in."""

    config: dict[str, Any]  # config.json for these tensors, without quantization_config
    is_awq: bool
    stored: tuple[Tensor, ...]  # as they lie there: 4-bit ones as the three tensors of AWQ (qweight, qzeros, scales)
    dense: tuple[Tensor, ...]  # the same, dequantized

    def tensors(self, *, dequantize: bool = False) -> tuple[Tensor, ...]:
        """Every tensor in the order of the layers; none is read before its `read` is called."""
        return self.dense if dequantize else self.stored

    def hf_config(self, *, dequantize: bool = False) -> dict[str, Any]:
        """The config.json for `tensors`."""
        return self.config | ({"quantization_config": AWQ} if self.is_awq and not dequantize else {})
