"""What a model's attention keeps of every token, and of every sequence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from deploytk.artifact.text_formats import Reader

_MOST_LAYERS = 10_000


@dataclass(frozen=True, slots=True)
class LatentAttention:
    """Multi-head latent attention (DeepSeek-V2): keys and values of all heads come from one short vector."""

    rank: int  # kv_lora_rank
    query_rank: int  # q_lora_rank, 0 where queries are projected at once
    rope_dim: int
    nope_dim: int
    value_dim: int
    index_dim: int  # of the keys by which sparse attention chooses (DeepSeek-V3.2), 0 without


@dataclass(frozen=True, slots=True)
class CompressedAttention:
    """That of DeepSeek-V4: every layer keeps a window of tokens, and most of them one entry of several tokens each."""

    by_4: int  # layers with an entry of every 4 tokens, and an index by which they are chosen
    by_128: int  # layers with an entry of every 128 tokens
    window: int  # tokens
    head_dim: int
    index_dim: int


@dataclass(frozen=True, slots=True)
class Attention:
    """Which layers keep what."""

    kv_layers: int  # layers that keep keys and values of every token
    latent: LatentAttention | None = None
    state_values: int = 0  # numbers that the layers of linear attention keep of a sequence, whatever its length
    compressed: CompressedAttention | None = None


def read_attention(config: Reader, layers: int) -> Attention:
    """The attention of the language model that `config` describes."""
    kinds = layer_kinds(config, layers)
    linear = sum(1 for kind in kinds if not keeps_tokens(kind))
    shared = config.whole("num_kv_shared_layers", 0, smallest=0, largest=_MOST_LAYERS)
    kv_layers = max(0, layers - linear - shared)
    state = linear * _state_values(config) if linear else 0
    return Attention(kv_layers, read_latent(config), state, _read_compressed(config, layers))


def layer_kinds(config: Reader, layers: int) -> list[str]:
    """The kind of every layer, under transformers' names; empty where all are alike."""
    kinds = config.values.get("layer_types")
    if isinstance(kinds, list) and kinds and all(isinstance(kind, str) for kind in kinds):
        return kinds[:layers]
    period = config.whole("full_attention_interval", 0, smallest=0, largest=_MOST_LAYERS)
    if not period:
        return []
    return ["linear_attention" if (layer + 1) % period else "full_attention" for layer in range(layers)]


def keeps_tokens(kind: str) -> bool:
    """Whether layers of that kind keep keys and values: all that attend to tokens, also within a window."""
    return "attention" in kind and "linear" not in kind


def read_latent(config: Reader) -> LatentAttention | None:
    """The latent attention that `config` describes; None where keys and values have heads of their own.

    DeepSeek-VL2-tiny says so with use_mla, others with a rank of null.
    """
    if not config.has("kv_lora_rank") or config.values.get("use_mla") is False:
        return None
    size = _sizes(config)
    rank = size("kv_lora_rank")
    if not rank:
        return None
    return LatentAttention(
        rank=rank,
        query_rank=size("q_lora_rank"),
        rope_dim=size("qk_rope_head_dim"),
        nope_dim=size("qk_nope_head_dim"),
        value_dim=size("v_head_dim"),
        index_dim=size("index_head_dim"),
    )


_RATIOS = {"compressed_sparse_attention": 4, "heavily_compressed_attention": 128}


def _read_compressed(config: Reader, layers: int) -> CompressedAttention | None:
    """The layers of DeepSeek-V4, as its class in transformers reads them: by name, by ratio, or by its own default."""
    if config.values.get("model_type") != "deepseek_v4":
        return None
    kinds, ratios = layer_kinds(config, layers), config.values.get("compress_ratios")
    if kinds:
        ratios = [_RATIOS.get(kind, 0) for kind in kinds]
    elif not isinstance(ratios, list):
        ratios = [128, 128, *(4 if layer % 2 else 128 for layer in range(layers))]
    size = _sizes(config)
    return CompressedAttention(
        by_4=ratios[:layers].count(4),
        by_128=ratios[:layers].count(128),
        window=size("sliding_window"),
        head_dim=size("head_dim"),
        index_dim=size("index_head_dim"),
    )


def _sizes(config: Reader) -> Any:
    return lambda key: config.whole(key, 0, smallest=0, largest=2**24)


def _state_values(config: Reader) -> int:
    """Of one layer of gated delta rule: what its convolution and its recurrence remember.

    Source: LMDeploy src/turbomind/models/llama/GatedDeltaNetLayer.cc, pytorch/configurations/qwen3_next.py, v0.16.0.
    """
    size = _sizes(config)
    keys = size("linear_num_key_heads") * size("linear_key_head_dim")
    values = size("linear_num_value_heads") * size("linear_value_head_dim")
    convolution = (2 * keys + values) * size("linear_conv_kernel_dim")
    return int(convolution + values * size("linear_key_head_dim"))
