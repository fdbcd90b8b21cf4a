"""The weight files of a workspace: which names, how many bytes.

They are raw `numpy.tofile` without any header, so that name and size are all there is to check, and LMDeploy
itself only warns about a missing one. Source: turbomind/deploy/target_model/{fp,w4}.py of v0.1.0-v0.5.3 and
turbomind/deploy/module.py of v0.6.4-v0.9.2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from deploytk.artifact.tensor_sums import TensorSums


@dataclass(frozen=True, slots=True)
class WorkspaceShape:
    """What the names and sizes of a workspace's weight files follow from."""

    config_format: Literal["ini", "yaml"]
    is_int4: bool
    group_size: int
    ranks: int
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: tuple[int, ...]  # (layers,), 0 where a layer has no dense feed-forward part
    vocab: int  # rows of the embedding as stored
    has_bias: bool
    has_qk_norm: bool
    kv_scale_bytes: int  # of a past_kv_scale file; 0 when there are none
    experts: tuple[int, ...] = ()  # (layers,) or empty
    expert_intermediate: int = 0
    has_shared_gate: bool = False  # of the dense part beside the experts (Qwen2-MoE)
    has_latent_attention: bool = False  # DeepSeek-V2: other files, whose sizes `expected_weights` does not know

    @property
    def qkv(self) -> int:
        """Columns of the merged query, key and value projection, over all ranks."""
        return (self.heads + 2 * self.kv_heads) * self.head_dim

    @property
    def parameters(self) -> int:
        """Parameters, as if nothing were quantized."""
        attention = self.hidden * self.qkv + self.heads * self.head_dim * self.hidden
        bias = self.qkv + self.hidden if self.has_bias else 0
        norms = 2 * self.hidden + (2 * self.head_dim if self.has_qk_norm else 0)
        dense = 3 * self.hidden * sum(self.intermediate)
        expert = 3 * self.hidden * self.expert_intermediate + self.hidden  # the last is its column of the gate
        sparse = expert * sum(self.experts)
        sparse += self.hidden * sum(1 for count in self.experts if count and self.has_shared_gate)
        return self.layers * (attention + bias + norms) + dense + sparse + 2 * self.vocab * self.hidden + self.hidden


def expected_weights(shape: WorkspaceShape) -> dict[str, int]:
    """File name -> bytes of every weight file of a workspace of that shape."""
    return dict(_top_level(shape)) | {
        name: size for layer in range(shape.layers) for name, size in _layer(shape, layer)
    }


def _top_level(shape: WorkspaceShape) -> Iterator[tuple[str, int]]:
    ranks = shape.ranks
    embedding = -(-shape.vocab // ranks) * ranks * shape.hidden * 2
    yield "norm.weight", shape.hidden * 2
    for name in ("tok_embeddings", "output"):
        if shape.config_format == "ini":
            yield f"{name}.weight", embedding
        else:
            for rank in range(ranks):
                yield f"{name}.{rank}.weight", embedding // ranks


def _layer(shape: WorkspaceShape, layer: int) -> Iterator[tuple[str, int]]:
    prefix = f"layers.{layer}"
    attention = f"{prefix}.attention"
    yield f"{prefix}.attention_norm.weight", shape.hidden * 2
    yield f"{prefix}.ffn_norm.weight", shape.hidden * 2
    if shape.has_qk_norm:
        yield f"{attention}.q_norm", shape.head_dim * 2
        yield f"{attention}.k_norm", shape.head_dim * 2
    for rank in range(shape.ranks):
        columns = shape.qkv // shape.ranks
        rows = shape.heads * shape.head_dim // shape.ranks
        yield from _linear(shape, f"{attention}.w_qkv.{rank}", shape.hidden, columns)
        yield from _linear(shape, f"{attention}.wo.{rank}", rows, shape.hidden)
        if shape.has_bias:
            yield f"{attention}.w_qkv.{rank}.bias", columns * 2
            yield f"{attention}.wo.{rank}.bias", shape.hidden * 2
        if shape.kv_scale_bytes:
            yield f"{prefix}.past_kv_scale.{rank}.weight", shape.kv_scale_bytes
        yield from _feed_forward(shape, f"{prefix}.feed_forward", shape.intermediate[layer] // shape.ranks, rank)
        for expert in range(shape.experts[layer] if shape.experts else 0):
            columns = shape.expert_intermediate // shape.ranks
            yield from _feed_forward(shape, f"{prefix}.moe_ffn.experts.{expert}", columns, rank)
    if shape.experts and shape.experts[layer]:
        yield f"{prefix}.moe_ffn.gate.weight", shape.hidden * shape.experts[layer] * 2
        if shape.has_shared_gate:
            yield f"{prefix}.moe_ffn.shared_gate.weight", shape.hidden * 2


def _feed_forward(shape: WorkspaceShape, prefix: str, columns: int, rank: int) -> Iterator[tuple[str, int]]:
    if not columns:
        return
    if shape.is_int4 and shape.config_format == "ini":
        yield from _linear(shape, f"{prefix}.w13.{rank}", shape.hidden, 2 * columns)
    else:
        yield from _linear(shape, f"{prefix}.w1.{rank}", shape.hidden, columns)
        yield from _linear(shape, f"{prefix}.w3.{rank}", shape.hidden, columns)
    yield from _linear(shape, f"{prefix}.w2.{rank}", columns, shape.hidden)


def _linear(shape: WorkspaceShape, name: str, rows: int, columns: int) -> Iterator[tuple[str, int]]:
    if not shape.is_int4:
        yield f"{name}.weight", rows * columns * 2
        return
    groups = rows // shape.group_size * columns
    yield f"{name}.qweight", rows * columns // 2
    if shape.config_format == "ini":
        yield f"{name}.scales_zeros", groups * 4
    else:
        yield f"{name}.scales", groups * 2
        yield f"{name}.zeros", groups * 2


def sum_files(sizes: Mapping[str, int], ranks: int) -> TensorSums:
    """What the weight files (name -> bytes) of all ranks hold; vectors of one rank, since each has its own copy."""
    sums = dict.fromkeys(("linear", "scale", "vector", "embedding", "head"), 0)
    scales = 0
    for name, size in sizes.items():
        role = _role(name)
        sums[role] += size
        if role == "scale" and not name.endswith(".zeros"):
            scales += size // (4 if name.endswith("scales_zeros") else 2)
    sums["vector"] //= ranks
    return TensorSums(scales=scales, feed_forward=(), **{f"{role}_bytes": size for role, size in sums.items()})


def _role(name: str) -> Literal["linear", "scale", "vector", "embedding", "head"]:
    if name.startswith("tok_embeddings."):
        return "embedding"
    if name.startswith("output."):
        return "head"
    if name.endswith((".scales_zeros", ".scales", ".zeros")):
        return "scale"
    return "vector" if "norm" in name or name.endswith(".bias") or ".past_kv_scale." in name else "linear"
