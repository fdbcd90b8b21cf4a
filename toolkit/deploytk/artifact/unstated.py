"""How weights are quantized about which config.json says nothing."""

from __future__ import annotations

from deploytk.artifact.dense import dense_sums
from deploytk.artifact.quantization import Quantization
from deploytk.artifact.shape import Shape
from deploytk.artifact.shards import Shards
from deploytk.artifact.value import Problem

_GROUP_SIZE = 128
_TOLERANCE = 0.03  # biases, and what a pickle has beside its numbers; 16 bits take more than twice as much


def tensors_tell(shards: Shards) -> Quantization | None:
    """The 4-bit format of weights that config.json does not describe, None when they have none.

    LMDeploy up to 0.3.0 wrote AWQ so. AWQ packs eight columns into an int32, GPTQ eight rows
    (`weight_format.py`, LMDeploy 0.18.0). An index of pickles shows no shapes: there it is AWQ unless GPTQ's g_idx is.
    """
    packed = shards.tensors.ending(".qweight")
    if not packed:
        names = [name for name in shards.names if name.endswith(".qweight")]
        return (
            Quantization("gptq" if any(n.endswith(".g_idx") for n in shards.names) else "awq", 4, 128)
            if names
            else None
        )
    stem = packed[0].pattern.removesuffix("qweight")
    scales = next((group for group in shards.tensors.ending(f"{stem}scales") if group.pattern == f"{stem}scales"), None)
    is_gptq = bool(shards.tensors.ending(f"{stem}g_idx"))
    weight = packed[0].shape
    if scales is None:
        return Quantization("gptq" if is_gptq else "awq", 4, 128)
    if len(weight) != 2 or len(scales.shape) != 2 or 0 in scales.shape:
        problem = Problem("error", f"{packed[0].pattern} and its scales are no matrices", "quantize the model again")
        return Quantization("awq", 4, 128, (problem,))
    is_gptq = is_gptq or weight[1] == scales.shape[1]
    rows = weight[0] * (8 if is_gptq else 1)
    return Quantization("gptq" if is_gptq else "awq", 4, rows // scales.shape[0])


def size_tells(shape: Shape, on_disk_bytes: int) -> Quantization | None:
    """AWQ where weights that cannot be read have the size of that model in 4 bits, None otherwise."""
    expected = dense_sums(shape, group_size=_GROUP_SIZE).loaded_bytes
    return Quantization("awq", 4, _GROUP_SIZE) if abs(on_disk_bytes - expected) <= _TOLERANCE * expected else None
