"""InternLM2 equals a Llama model whose query, key and value are merged: here are both directions.

`wqkv` has, for each key/value head, the query heads that share it, then the key, then the value (`InternLM2Reader`,
turbomind/deploy/source_model/internlm2.py, v0.2.6 to v0.9.2). The rest is other names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import gcd, lcm

import numpy as np

from deploytk.weights.names import INTERNLM2, LLAMA
from deploytk.weights.value import Array, Tensor

_RENAMED = (
    (LLAMA.embeddings, INTERNLM2.embeddings),
    (LLAMA.head, INTERNLM2.head),
    (LLAMA.attention_norm, INTERNLM2.attention_norm),
    (LLAMA.ffn_norm, INTERNLM2.ffn_norm),
    (LLAMA.attention[3], INTERNLM2.attention[3]),
    *zip(LLAMA.ffn, INTERNLM2.ffn, strict=True),
)


def from_llama(tensors: Sequence[Tensor], heads: int, kv_heads: int) -> Iterator[Tensor]:
    """The tensors of InternLM2 that equal those of a Llama model."""
    by_name = {tensor.name: tensor for tensor in tensors}
    query, key, value = LLAMA.attention[:3]
    for tensor in tensors:
        if f".{query}." in tensor.name:
            three = [by_name[tensor.name.replace(query, name)] for name in (query, key, value)]
            yield _merged(three, tensor.name.replace(query, INTERNLM2.qkv), heads // kv_heads, kv_heads)
        elif f".{key}." not in tensor.name and f".{value}." not in tensor.name:
            yield Tensor(
                _renamed(tensor.name, _RENAMED), tensor.dtype, tensor.shape, tensor.fill, tensor.source, tensor.step
            )


def to_llama(tensors: Sequence[Tensor], heads: int, kv_heads: int) -> Iterator[Tensor]:
    """The tensors of a Llama model that equal those of InternLM2."""
    backwards = tuple((new, old) for old, new in _RENAMED)
    for tensor in tensors:
        if f".{INTERNLM2.qkv}." in tensor.name:
            for part, name in enumerate(LLAMA.attention[:3]):
                yield _part(tensor, tensor.name.replace(INTERNLM2.qkv, name), part, heads // kv_heads, kv_heads)
        else:
            yield Tensor(
                _renamed(tensor.name, backwards), tensor.dtype, tensor.shape, tensor.fill, tensor.source, tensor.step
            )


def _renamed(name: str, names: Sequence[tuple[str, str]]) -> str:
    """`name` with its module exchanged; what comes before and after a module is a dot or nothing."""
    for old, new in names:
        if f".{old}." in f".{name}":
            return f".{name}".replace(f".{old}.", f".{new}.")[1:]
    return name


def _output_axis(name: str) -> int:
    """The axis that counts outputs: AWQ's tensors have the inputs first."""
    return 1 if name.endswith((".qweight", ".qzeros", ".scales")) else 0


def _places(share: int) -> tuple[slice, slice, slice]:
    """Of query, key and value among the heads that share a key."""
    return slice(0, share), slice(share, share + 1), slice(share + 1, share + 2)


def _merged(three: Sequence[Tensor], name: str, share: int, kv_heads: int) -> Tensor:
    axis = _output_axis(name)
    shape = list(three[0].shape)
    shape[axis] = sum(tensor.shape[axis] for tensor in three)
    width = shape[axis] // (kv_heads * (share + 2))

    def fill(out: Array, first: int) -> None:
        groups = np.moveaxis(out, axis, 0)
        groups = groups.reshape(-1, share + 2, width, *groups.shape[1:])
        for tensor, place, heads in zip(three, _places(share), (share, 1, 1), strict=True):
            rows = len(out) if axis else len(groups) * heads * width
            values: Array = np.empty((rows, *tensor.shape[1:]), out.dtype)
            tensor.fill(values, first if axis else first // (share + 2) * heads)
            moved = np.moveaxis(values, axis, 0)
            groups[:, place] = moved.reshape(len(groups), heads, width, *moved.shape[1:])

    return Tensor(name, three[0].dtype, tuple(shape), fill, step=_step(three, axis, width, share))


def _step(three: Sequence[Tensor], axis: int, width: int, share: int) -> int:
    """The rows of the merged tensor that go together, when whole groups of heads, or the same rows, make each part."""
    if not all(tensor.step for tensor in three):
        return 0
    if axis:
        return lcm(*(tensor.step for tensor in three))
    heads = zip(three, (share, 1, 1), strict=True)
    groups = lcm(*(tensor.step // gcd(tensor.step, count * width) for tensor, count in heads))
    return groups * (share + 2) * width


def _part(merged: Tensor, name: str, part: int, share: int, kv_heads: int) -> Tensor:
    axis = _output_axis(name)
    heads = kv_heads * share if part == 0 else kv_heads
    shape = list(merged.shape)
    width = shape[axis] // (kv_heads * (share + 2))
    shape[axis] = heads * width
    place = _places(share)[part]

    def fill(out: Array, _first: int) -> None:
        values = np.moveaxis(merged.read(), axis, 0)
        groups = values.reshape(kv_heads, share + 2, width, *values.shape[1:])[:, place]
        np.moveaxis(out, axis, 0)[...] = groups.reshape(heads * width, *values.shape[1:])

    return Tensor(name, merged.dtype, tuple(shape), fill)
