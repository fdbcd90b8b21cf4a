"""What attention that is not heads x head_dim takes; numbers of public models, worked out by hand."""

from __future__ import annotations

import dataclasses

import pytest
from artifacts import internlm_7b

from deploytk.artifact import Artifact, Attention, LatentAttention
from deploytk.hardware.catalogue import find_gpu
from deploytk.plan.kv import kv_bytes_per_token, state_bytes
from deploytk.plan.memory import Memory
from deploytk.plan.weights_size import weights_bytes

DEEPSEEK_V2_LITE = LatentAttention(512, 0, 64, 128, 128, 0)


def _latent(latent: LatentAttention, layers: int, heads: int, architecture: str, hidden: int = 2048) -> Artifact:
    return dataclasses.replace(
        internlm_7b(architecture=architecture),
        layers=layers,
        heads=heads,
        hidden_size=hidden,
        kv_heads=1,
        head_dim=latent.rank + latent.rope_dim,
        attention=Attention(layers, latent),
    )


@pytest.mark.parametrize(
    ("version", "engine", "ranks", "expected"),
    [
        ("0.18.0", "pytorch", 1, 27 * 576 * 2),  # the latent vector, keys alone
        ("0.18.0", "pytorch", 2, 27 * 576 * 2),  # on every GPU
        ("0.13.0", "turbomind", 1, 27 * 576 * 2),  # folded: keys and values share it
        ("0.13.0", "turbomind", 4, 27 * 576 * 2),
        ("0.12.1", "turbomind", 1, 27 * 16 * 192 * 2 * 2),  # 16 heads of 192, keys and values
        ("0.12.1", "turbomind", 4, 27 * 4 * 192 * 2 * 2),
    ],
)
def test_latent_attention_by_engine_and_version(version: str, engine: str, ranks: int, expected: int) -> None:
    model = _latent(DEEPSEEK_V2_LITE, 27, 16, "DeepseekV2ForCausalLM")

    assert kv_bytes_per_token(model, "none", version, ranks, engine) == expected  # type: ignore[arg-type]


def test_sparse_attention_keeps_an_index_too() -> None:
    latent = dataclasses.replace(DEEPSEEK_V2_LITE, query_rank=1536, index_dim=128)
    v32 = _latent(latent, 61, 128, "DeepseekV32ForCausalLM", 7168)
    glm = _latent(latent, 61, 128, "GlmMoeDsaForCausalLM", 7168)

    # 512 x 8 bits + 4 scales of 32 + 64 x 16 bits = 656; the index 128 x 8 bits + a scale = 132
    assert kv_bytes_per_token(v32, "none", "0.16.0", 1, "pytorch") == 61 * (656 + 132)
    # from 0.17.0 on in 16 bits, as GLM-5 does: 576 x 2
    assert kv_bytes_per_token(v32, "none", "0.18.0", 1, "pytorch") == 61 * (1152 + 132)
    # GLM-5 keeps the vector in 16 bits
    assert kv_bytes_per_token(glm, "none", "0.18.0", 1, "pytorch") == 61 * (576 * 2 + 132)


def test_expanded_latent_attention_is_cached_by_head() -> None:
    latent = LatentAttention(256, 768, 32, 64, 64, 0)
    minicpm3 = dataclasses.replace(
        _latent(latent, 62, 40, "MiniCPM3ForCausalLM", 2560), kv_heads=40, head_dim=96, attention=Attention(62, latent)
    )

    assert kv_bytes_per_token(minicpm3, "none", "0.18.0", 1, "pytorch") == 62 * 40 * 96 * 2 * 2


def test_folding_makes_the_weights_larger() -> None:
    model = _latent(DEEPSEEK_V2_LITE, 27, 16, "DeepseekV2ForCausalLM")

    more = weights_bytes(model, "0.13.0", 1, "turbomind") - weights_bytes(model, "0.13.0", 1, "pytorch")

    # q 2048 x 16 x (576 - 192), o 16 x (512 - 128) x 2048, less kv_b 512 x 16 x 256: 23 068 672 numbers a layer
    assert more == 27 * 2 * (2048 * 16 * 384 + 16 * 384 * 2048 - 512 * 16 * 256)


def test_linear_attention_keeps_a_state_of_every_sequence() -> None:
    # Qwen3.5-27B: 16 of 64 layers have a cache, of 4 heads of 256; 48 have a state of
    # (2 x 16 x 128 + 48 x 128) x 4 numbers of the convolution and 48 x 128 x 128 of the recurrence
    values = 48 * ((2 * 16 * 128 + 48 * 128) * 4 + 48 * 128 * 128)
    model = dataclasses.replace(
        internlm_7b(architecture="Qwen3_5ForConditionalGeneration"),
        layers=64,
        kv_heads=4,
        head_dim=256,
        attention=Attention(16, None, values),
    )

    assert kv_bytes_per_token(model, "none", "0.18.0", 1) == 16 * 4 * 256 * 2 * 2
    assert state_bytes(model, 1) == 2 * values
    assert state_bytes(model, 4) == values // 2


def test_the_state_of_every_session_is_in_what_is_needed() -> None:
    plain = internlm_7b(architecture="LlamaForCausalLM")
    hybrid = dataclasses.replace(plain, attention=Attention(8, None, 40_000_000))
    gpu = find_gpu("A100-40G")
    memory = Memory.of(hybrid, ("0.18.0", "turbomind"), 1, "none", gpu)

    tokens_alone = dataclasses.replace(memory, sequence_bytes=0)
    assert memory.needed_bytes(2048, 4) == tokens_alone.needed_bytes(2048, 4) + 4 * 80_000_000
    largest = memory.largest_batch(2048)
    assert largest is not None
    assert memory.room_bytes is not None
    assert memory.needed_bytes(2048, largest) <= memory.room_bytes < memory.needed_bytes(2048, largest + 1)
    longest = memory.largest_session_len(10**9, 4)
    assert longest is not None
    assert memory.needed_bytes(longest, 4) <= memory.room_bytes


def test_layers_that_share_keys_and_values_are_counted_once() -> None:
    model = dataclasses.replace(internlm_7b(), attention=Attention(20))

    assert kv_bytes_per_token(model, "none", "0.18.0", 1) == 20 * 32 * 128 * 2 * 2
