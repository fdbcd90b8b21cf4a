"""What a model's KV cache takes: of every token, and of every sequence."""

from __future__ import annotations

from deploytk import lmdeploy
from deploytk.artifact import Artifact, CompressedAttention, KvPolicy, LatentAttention
from deploytk.plan.weights_size import folds_latent

_KV_BITS = {"none": 16, "int8": 8, "int4": 4}
_SCALE_AND_ZERO_BYTES = 4
_SHARED_DIM = 576  # the one width of latent vectors for which TurboMind has kernels that share keys and values
_SPARSE_TOKEN_BYTES = 656  # 512 values of 8 bits, 4 scales of 32, 64 rotated values of 16: flash_mla's fp8_ds_mla
_INDEX_SCALE_BYTES = 4
_PACKED_TOKEN_BYTES = (
    584  # of DeepSeek-V4: 448 values of 8 bits, 64 rotated values of 16, 7 scales and a byte of padding
)

# The PyTorch engine keeps everything for models in which some layers alone have a window, by these, and has no window
# for others: pytorch/configurations/, LMDeploy 0.18.0.
_WITHOUT_WINDOW = (
    "ChatGLMForConditionalGeneration",
    "ChatGLMModel",
    "DeepseekV4ForCausalLM",
    "Gemma3ForConditionalGeneration",
    "GptOssForCausalLM",
    "LlavaForConditionalGeneration",
    "LlavaNextForConditionalGeneration",
)


def stored_kv_heads(artifact: Artifact, ranks: int) -> int:
    """Key/value heads over all GPUs: repeated until every GPU has one."""
    return max(artifact.kv_heads, ranks)


def kv_bytes_per_token(
    artifact: Artifact, kv_policy: KvPolicy, version: str, ranks: int, engine: lmdeploy.LmdeployEngine = "turbomind"
) -> int:
    """Bytes that one token's keys and values take on one GPU, over all layers.

    From 0.4.0 a quantized cache also stores a 16-bit scale and a 16-bit zero point per head and token, for keys
    and for values; the static int8 of 0.3.0 and before has one scale per layer. Layers with a sliding window get
    as much room as the others; what the PyTorch engine drops of long sessions, `window_tokens` says.
    Source: LMDeploy src/turbomind/kernels/attention/block.h, `layer_size`; SequenceManager.cc of v0.2.0;
    pytorch/engine/cache_engine.py.
    """
    is_static = lmdeploy.has_static_int8(version)
    side = 0 if kv_policy == "none" or is_static else _SCALE_AND_ZERO_BYTES
    bits = _KV_BITS[kv_policy]
    layers = artifact.attention.kv_layers
    latent = artifact.attention.latent
    if latent and artifact.kv_heads == 1:
        if engine == "pytorch":
            return layers * _pytorch_latent_bytes(artifact, latent, bits, side, version)
        return (
            layers
            * _turbomind_latent_bytes(artifact, latent, bits, side, version)
            // (1 if folds_latent(artifact, version) else ranks)
        )
    if artifact.attention.compressed:
        return _compressed_bytes(artifact.attention.compressed)
    heads = stored_kv_heads(artifact, ranks) // ranks
    return layers * heads * 2 * (artifact.head_dim * bits // 8 + side)


def window_tokens(artifact: Artifact, engine: lmdeploy.LmdeployEngine) -> int | None:
    """How many tokens of a session's past are kept, None for all.

    The PyTorch engine drops blocks behind the window of the configuration for all layers at once: executor/base.py,
    paging/block_manager/window_block_manager.py. TurboMind keeps them all.
    """
    facts = artifact.facts
    is_kept = facts is None or artifact.attention.latent or facts.architecture in _WITHOUT_WINDOW
    return None if engine != "pytorch" or is_kept or facts is None else facts.sliding_window


def _compressed_bytes(attention: CompressedAttention) -> int:
    """Of one token of DeepSeek-V4, over all layers: 8 bits in every version, on every GPU.

    Source: pytorch/configurations/deepseek_v4.py of LMDeploy 0.16.0, backends/cuda/v4_compressor.py of 0.18.0.
    """
    index = attention.index_dim + _INDEX_SCALE_BYTES
    return -(-(32 * attention.by_4 * (_PACKED_TOKEN_BYTES + index) + attention.by_128 * _PACKED_TOKEN_BYTES) // 128)


def _pytorch_latent_bytes(artifact: Artifact, latent: LatentAttention, bits: int, side: int, version: str) -> int:
    """Of one token and layer; every GPU has the whole latent vector."""
    index = latent.index_dim + _INDEX_SCALE_BYTES if latent.index_dim else 0
    if index and artifact.architecture.startswith("DeepseekV32") and lmdeploy.packs_sparse_attention(version):
        return _SPARSE_TOKEN_BYTES + index
    return (latent.rank + latent.rope_dim) * bits // 8 + 2 * side + index


def _turbomind_latent_bytes(artifact: Artifact, latent: LatentAttention, bits: int, side: int, version: str) -> int:
    """Of one token and layer: of the latent vector, which every GPU has, or of all heads, which are split."""
    if not folds_latent(artifact, version):
        return artifact.heads * 2 * ((latent.nope_dim + latent.rope_dim) * bits // 8 + side)
    width = latent.rank + latent.rope_dim
    return (1 if width == _SHARED_DIM else 2) * (width * bits // 8 + side)


def state_bytes(artifact: Artifact, ranks: int) -> int:
    """Bytes on one GPU that the layers of linear or compressed attention keep of one sequence, whatever its length."""
    compressed = _window_bytes(artifact.attention.compressed, artifact.layers) if artifact.attention.compressed else 0
    return 2 * artifact.attention.state_values // ranks + compressed


def _window_bytes(attention: CompressedAttention, layers: int) -> int:
    """Windows of all layers, and what is not yet an entry: two rows in 32 bits for each token of two entries or one."""
    by_4 = 16 * 2 * (attention.head_dim + attention.index_dim) * 4
    by_128 = 256 * attention.head_dim * 4
    return layers * attention.window * _PACKED_TOKEN_BYTES + attention.by_4 * by_4 + attention.by_128 * by_128
