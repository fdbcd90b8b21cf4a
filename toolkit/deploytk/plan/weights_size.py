"""What the weights of a model take on a GPU."""

from __future__ import annotations

import math

from deploytk import lmdeploy
from deploytk.artifact import Artifact

_SCALE_AND_ZERO_BYTES = 4
_KERNEL_COLUMNS = 32


def weights_bytes(artifact: Artifact, version: str, ranks: int, engine: lmdeploy.LmdeployEngine = "turbomind") -> int:
    """Bytes of the weights on one of `ranks` GPUs, as that engine stores them: `artifact.tensors`, and what differs.

    TurboMind fuses each 4-bit group's scale and zero point to a half2, keeps tied embeddings twice, and splits
    embedding and head from 0.6.0 on; the PyTorch engine keeps what the files have, tied embeddings once, and
    embedding and head whole. Norms, biases and towers are on every GPU.
    Source: LMDeploy v0.16.0 src/turbomind/models/linear_weight.cc, lmdeploy/turbomind/models/llama.py,
    lmdeploy/pytorch/models/utils/model.py.
    """
    sums = artifact.tensors
    split = sums.linear_bytes + _scale_bytes(artifact, engine) + _repeated_bytes(artifact, ranks)
    if engine == "turbomind":
        split += _latent_bytes(artifact, version) + _padding_bytes(artifact, version, ranks)
    whole = sums.vector_bytes + sums.tower_bytes
    vocabulary = _vocabulary_bytes(artifact, engine)
    if engine == "turbomind" and lmdeploy.splits_vocabulary(version):
        vocabulary //= ranks
    return split // ranks + vocabulary + whole


def _scale_bytes(artifact: Artifact, engine: lmdeploy.LmdeployEngine) -> int:
    is_fused = artifact.weight_format in ("awq", "gptq", "compressed-tensors") and engine == "turbomind"
    return artifact.tensors.scales * _SCALE_AND_ZERO_BYTES if is_fused else artifact.tensors.scale_bytes


def _vocabulary_bytes(artifact: Artifact, engine: lmdeploy.LmdeployEngine) -> int:
    sums = artifact.tensors
    if engine == "pytorch" and artifact.tied_embeddings:
        return sums.embedding_bytes
    return sums.embedding_bytes + (sums.head_bytes or sums.embedding_bytes)


def _repeated_bytes(artifact: Artifact, ranks: int) -> int:
    """What the key and value projections of heads take that are repeated until every GPU has one."""
    if artifact.attention.latent or ranks <= artifact.kv_heads:
        return 0
    columns = 2 * (ranks - artifact.kv_heads) * artifact.head_dim
    return int(artifact.attention.kv_layers * columns * artifact.hidden_size * bytes_per_parameter(artifact))


def _padding_bytes(artifact: Artifact, version: str, ranks: int) -> int:
    """What feed-forward layers, three matrices each, take more so that every GPU has as many groups of weights.

    Source: `_pad_inter_size` of v0.6.0 turbomind/deploy/target_model/base.py, builders/ffn.py of v0.14.0.
    """
    if ranks == 1 or artifact.layout == "workspace" or not lmdeploy.pads_feed_forward(version):
        return 0
    block = max(1, artifact.group_size or (128 if artifact.weight_format == "fp8" else 1))
    if lmdeploy.pads_feed_forward_for_kernels(version):
        block = math.lcm(block, _KERNEL_COLUMNS)
    each = 0.5 + 1 / 32 if artifact.weight_format == "mxfp4" else bytes_per_parameter(artifact)
    more = 0.0
    for part in artifact.tensors.feed_forward:
        columns = -(-part.inner // block // ranks) * ranks * block
        more += 3 * part.parameters * max(0, columns / part.inner - 1)
    return int(more * each)


def bytes_per_parameter(artifact: Artifact) -> float:
    """Of a linear layer of the attention, on average."""
    if artifact.weight_format in ("awq", "gptq", "compressed-tensors"):
        return artifact.weight_bits / 8 + _SCALE_AND_ZERO_BYTES / (artifact.group_size or 128)
    return 1.0 if artifact.weight_format in ("fp8", "smooth_quant") else 2.0


def _latent_bytes(artifact: Artifact, version: str) -> int:
    """What TurboMind's own form of latent attention takes more than the files.

    From 0.12.2 on the expansion of keys and values is folded into the projections of queries and output; before,
    values are padded to the width of keys. Source: turbomind/deploy/source_model/deepseek2.py, module.py.
    """
    latent = artifact.attention.latent
    if latent is None or artifact.is_quantized:
        return 0
    key, hidden = latent.nope_dim + latent.rope_dim, artifact.hidden_size
    if not folds_latent(artifact, version):
        more = artifact.heads * (key - latent.value_dim) * hidden
    else:
        query = (latent.query_rank or hidden) * artifact.heads * (latent.rank + latent.rope_dim - key)
        output = artifact.heads * (latent.rank - latent.value_dim) * hidden
        more = query + output - latent.rank * artifact.heads * (latent.nope_dim + latent.value_dim)
    return 2 * artifact.layers * more


def folds_latent(artifact: Artifact, version: str) -> bool:
    """Whether TurboMind of that version caches the latent vector of this model instead of its heads."""
    latent = artifact.attention.latent
    return latent is not None and lmdeploy.folds_latent_attention(version) and latent.rank != latent.nope_dim
