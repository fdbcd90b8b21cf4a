"""4-bit weights that others than AWQ pack: GPTQ (version 1 of its format) and compressed-tensors (pack-quantized).

GPTQ keeps `qweight` [inputs/8, outputs], eight inputs to a word, the first in the lowest bits; `qzeros` [groups,
outputs/8], each one less than it is; `scales` [groups, outputs]. Source: AutoGPTQ, qlinear_cuda.py.

compressed-tensors keeps `weight_packed` [outputs, inputs/8], `weight_scale` [outputs, groups] and, where weights are
not symmetric, `weight_zero_point` [outputs/8, groups]; numbers and zero points are 8 more than they are. Source:
compressed_tensors, compressors/pack_quantized.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import Literal

import numpy as np
import numpy.typing as npt

from deploytk.artifact import Artifact, other_groups, stated_quantization
from deploytk.artifact.tensors import shape_in_words
from deploytk.base.errors import WeightsError
from deploytk.weights.value import Array, Tensor

_EIGHT = np.arange(0, 32, 4, dtype=np.uint32)
_CENTRE = 8  # what symmetric numbers of four bits are counted from

Packing = Literal["gptq", "compressed-tensors"]
_PARTS: dict[Packing, tuple[str, tuple[str, ...]]] = {
    "gptq": ("qweight", ("qweight", "qzeros", "scales", "g_idx")),
    "compressed-tensors": (
        "weight_packed",
        ("weight_packed", "weight_scale", "weight_zero_point", "weight_shape", "weight_g_idx"),
    ),
}
PARTS = frozenset(name for _, names in _PARTS.values() for name in names)
"""The last parts of the names of tensors that make one matrix together."""


def refuse_misread(artifact: Artifact) -> None:
    """Raises WeightsError for what TurboMind would read otherwise than it is: a preview must not look right then."""
    facts = artifact.facts.quantization if artifact.facts else None
    if facts is None or artifact.weight_format not in _PARTS:
        return
    what = None
    if artifact.weight_bits != 4:
        what = f"weights of {artifact.weight_bits} bits in {artifact.weight_format}"
    elif artifact.weight_format == "gptq" and facts.zeros == "v2":
        what = "zero points of GPTQ v2, which LMDeploy takes for v1"
    elif artifact.weight_format == "gptq" and (facts.desc_act or facts.symmetric is False):
        what = "GPTQ weights with desc_act" if facts.desc_act else "GPTQ weights that are not symmetric"
    elif artifact.weight_format == "compressed-tensors" and other_groups(stated_quantization(artifact.config)):
        what = "compressed-tensors with several schemes"
    elif artifact.weight_format == "compressed-tensors":
        what = _odd_packing(facts.group_0_format or facts.format, facts.value_type, facts.actorder)
    if what:
        raise WeightsError(
            f"{artifact.root}: {what} cannot be previewed", hint="quantize the model again: deploytk quantize"
        )


def _odd_packing(form: str | None, value_type: str | None, actorder: str | None) -> str | None:
    if form != "pack-quantized" or value_type not in (None, "int"):
        return f"compressed-tensors in the format {form or 'that nobody names'}"
    return "weights in the order of activations (actorder group)" if actorder == "group" else None


def dense(packing: Packing, stored: tuple[Tensor, ...]) -> Iterator[Tensor]:
    """Every tensor, those of a packed matrix as one in float16."""
    key, names = _PARTS[packing]
    by_name = {tensor.name: tensor for tensor in stored}
    for tensor in stored:
        module, _, kind = tensor.name.rpartition(".")
        if kind == key:
            parts = {name: by_name[f"{module}.{name}"] for name in names if f"{module}.{name}" in by_name}
            yield _gptq(module, parts) if packing == "gptq" else _compressed(module, parts)
        elif f"{module}.{key}" not in by_name or kind not in names:
            yield tensor


def _gptq(module: str, parts: Mapping[str, Tensor]) -> Tensor:
    rows, outputs = parts["qweight"].shape
    inputs, groups = rows * 8, _groups(module, parts, "scales", axis=0)
    _require(module, parts, {"qzeros": (groups, outputs // 8), "scales": (groups, outputs)})

    def fill(out: Array, _first: int) -> None:
        zeros = _unpacked(parts["qzeros"].read(), axis=1) + 1
        scales, words = _floats(parts["scales"]), parts["qweight"].read()
        size = inputs // groups
        for group in range(groups):
            numbers = _unpacked(words[group * size // 8 : (group + 1) * size // 8], axis=0)
            out[:, group * size : (group + 1) * size] = _scaled(numbers, zeros[group], scales[group]).T

    _require_in_order(module, parts.get("g_idx"), inputs, groups)
    return Tensor(f"{module}.weight", "F16", (outputs, inputs), fill)


def _compressed(module: str, parts: Mapping[str, Tensor]) -> Tensor:
    outputs, words_of_row = parts["weight_packed"].shape
    inputs, groups = words_of_row * 8, _groups(module, parts, "weight_scale", axis=1)
    _require(module, parts, {"weight_scale": (outputs, groups)})
    if "weight_zero_point" in parts:
        _require(module, parts, {"weight_zero_point": (-(-outputs // 8), groups)})

    def fill(out: Array, _first: int) -> None:
        scales, words, size = _floats(parts["weight_scale"]), parts["weight_packed"].read(), inputs // groups
        zeros: Array = np.full((outputs, groups), _CENTRE, np.int16)
        if "weight_zero_point" in parts:
            zeros = _unpacked(parts["weight_zero_point"].read(), axis=0)[:outputs]
        for group in range(groups):
            numbers = _unpacked(words[:, group * size // 8 : (group + 1) * size // 8], axis=1)
            columns = slice(group * size, (group + 1) * size)
            out[:, columns] = _scaled(numbers, zeros[:, group, None], scales[:, group, None])

    return Tensor(f"{module}.weight", "F16", (outputs, inputs), fill)


def _groups(module: str, parts: Mapping[str, Tensor], name: str, axis: int) -> int:
    scales = parts.get(name)
    groups = scales.shape[axis] if scales is not None and len(scales.shape) == 2 else 0
    packed = next(iter(parts.values())).shape
    inputs = packed[axis] * 8
    if not groups or inputs % groups or inputs // groups % 8:
        raise WeightsError(
            f"{module}.{name} has no whole groups of {inputs} inputs", hint="take the model's files whole"
        )
    return groups


def _require(module: str, parts: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    for name, shape in shapes.items():
        part = parts.get(name)
        if part is None or part.shape != shape:
            found = "missing" if part is None else f"of shape {shape_in_words(part.shape)}"
            raise WeightsError(
                f"{module}.{name} is {found}, {shape_in_words(shape)} expected", hint="take the model's files whole"
            )


def _require_in_order(module: str, order: Tensor | None, inputs: int, groups: int) -> None:
    """Raises WeightsError where inputs are in another order than that of their groups, whatever config.json says."""
    if order is None or not prod(order.shape):
        return
    if not np.array_equal(order.read().reshape(-1), np.arange(inputs) // (inputs // groups)):
        raise WeightsError(
            f"{module}.g_idx puts inputs into another order, which LMDeploy does not read",
            hint="quantize the model again without desc_act",
        )


def _unpacked(words: Array, axis: int) -> npt.NDArray[np.int16]:
    """Numbers 0 to 15, eight for each word along an axis, the lowest four bits first."""
    wide = np.moveaxis(np.ascontiguousarray(words).view(np.uint32), axis, -1)
    numbers = (wide[..., None] >> _EIGHT & 15).astype(np.int16).reshape(*wide.shape[:-1], -1)
    return np.moveaxis(numbers, -1, axis)


def _floats(tensor: Tensor) -> npt.NDArray[np.float32]:
    values = tensor.read()
    if tensor.dtype == "BF16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32)


def _scaled(numbers: Array, zeros: Array, scales: Array) -> Array:
    with np.errstate(over="ignore"):
        scaled: Array = ((numbers - zeros).astype(np.float32) * scales).astype(np.float16)
    return scaled
