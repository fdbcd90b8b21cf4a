"""Public models of every family, as their config.json and the names and shapes of their tensors have them.

What serves them follows from LMDeploy's sources (its pages and its converters at the versions named), bytes are worked
out by hand.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from public_models import DEEPSEEK, LLAMA, Tensor, layers, matrix, model_of

from deploytk.artifact import read_artifact
from deploytk.base.errors import ArtifactError, PlanError, TrustError
from deploytk.plan import PlanRequest, plan_serving, require_trusted_plan
from deploytk.plan.kv import kv_bytes_per_token, state_bytes, window_tokens
from deploytk.plan.memory import Memory
from deploytk.plan.weights_size import weights_bytes

# What no LMDeploy serves: another kind of model, whose sizes have other names or are not there at all.


@pytest.mark.parametrize(
    "config",
    [
        {"architectures": ["MambaForCausalLM"], "model_type": "mamba", "hidden_size": 2560, "num_hidden_layers": 64},
        {"architectures": ["Rwkv6ForCausalLM"], "model_type": "rwkv6", "hidden_size": 2048, "num_hidden_layers": 24},
        {"architectures": ["WhisperForConditionalGeneration"], "model_type": "whisper", "d_model": 1280},
        {"architectures": ["CLIPModel"], "model_type": "clip", "text_config": {"hidden_size": 768}},
    ],
    ids=lambda config: config["model_type"],
)
def test_a_model_of_another_kind_is_told_as_such_and_not_by_the_size_that_it_lacks(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    model_of(tmp_path, config, [("embeddings.weight", "F32", (8, 8))])

    with pytest.raises(ArtifactError, match=f"no LMDeploy serves {config['architectures'][0]}: .* is missing"):
        read_artifact(tmp_path)


@pytest.mark.parametrize(
    "config",
    [
        {"intermediate_size": [16384] * 35, "architectures": ["Gemma3nForConditionalGeneration"]},
        {"architectures": ["DeciLMForCausalLM"], "intermediate_size": None, "num_key_value_heads": None},
        {"architectures": ["JambaForCausalLM"], "attn_layer_period": 8},
        {"architectures": ["LlamaForSequenceClassification"]},
        {"architectures": ["InternLM2ForRewardModel"], "model_type": "internlm2"},
        {"architectures": ["CohereForCausalLM"], "model_type": "cohere"},
        {"architectures": ["MiniMaxM2ForCausalLM"], "model_type": "minimax_m2"},
    ],
    ids=lambda config: config["architectures"][0],
)
def test_what_lmdeploy_does_not_know_is_inspected_and_refused_with_the_reason(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    artifact = read_artifact(
        model_of(tmp_path, LLAMA | config, [("model.embed_tokens.weight", "BF16", (128256, 4096))])
    )

    with pytest.raises(PlanError, match=f"does not know {artifact.architecture}"):
        plan_serving(artifact, PlanRequest())


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("model-q4_k_m.gguf", "a GGUF file"),
        ("params.json", "in the form of its maker"),
        ("model_index.json", "makes pictures"),
        ("onnx/model.onnx", "an ONNX file"),
    ],
)
def test_a_directory_without_a_configuration_is_told_by_what_it_holds(tmp_path: Path, file: str, words: str) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("{}")

    with pytest.raises(ArtifactError, match=f"holds no model, but .*{words}"):
        read_artifact(tmp_path)


# Weights that are packed although config.json says nothing, or something else.


def test_packed_numbers_that_nobody_names_are_no_plain_weights(tmp_path: Path) -> None:
    """NVIDIA's quantizer says it in hf_quant_config.json alone, which LMDeploy does not read."""
    config = LLAMA | {"num_hidden_layers": 1}
    model_of(tmp_path, config, layers(config, "F8_E4M3"))
    (tmp_path / "hf_quant_config.json").write_text('{"quantization": {"quant_algo": "FP8"}}')

    artifact = read_artifact(tmp_path)

    assert "is of type F8_E4M3, and config.json does not say how it is quantized" in artifact.errors[0].message


@pytest.mark.parametrize("beside", [{}, {"quantization_config": {"group_size": 64, "bits": 4}}], ids=["older", "newer"])
def test_weights_for_mlx_are_named(tmp_path: Path, beside: dict[str, Any]) -> None:
    config = LLAMA | {"quantization": {"group_size": 64, "bits": 4}} | beside
    model_of(tmp_path, config, [("model.embed_tokens.weight", "U32", (128256, 512))])

    with pytest.raises(ArtifactError, match="quantized with MLX"):
        read_artifact(tmp_path)


@pytest.mark.parametrize(("act_order", "is_served"), [(False, True), (True, False)])
def test_the_first_gptq_models_say_how_they_are_quantized_in_a_file_of_their_own(
    tmp_path: Path, act_order: bool, is_served: bool
) -> None:
    config = LLAMA | {"num_hidden_layers": 1}
    model_of(tmp_path, config, layers(config, "gptq"))
    stated = {"bits": 4, "group_size": 128, "desc_act": act_order, "sym": True}
    (tmp_path / "quantize_config.json").write_text(json.dumps(stated))

    artifact = read_artifact(tmp_path)

    assert (artifact.weight_format, artifact.group_size) == ("gptq", 128)
    assert (artifact.lmdeploy.pin is not None) == is_served
    assert is_served or "desc_act is true" in artifact.lmdeploy.reason


def test_the_version_of_awq_is_compared_as_it_is_written(tmp_path: Path) -> None:
    """`assert version == 'gemm'`: turbomind/converter.py."""
    stated = {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "GEMM", "zero_point": True}
    config = LLAMA | {"num_hidden_layers": 1, "quantization_config": stated}

    artifact = read_artifact(model_of(tmp_path, config, layers(config, "awq")))

    assert artifact.lmdeploy.pin is None
    assert 'says version GEMM, "gemm" is asked for' in artifact.lmdeploy.reason


def test_a_configuration_of_awq_beside_plain_weights_is_doubted(tmp_path: Path) -> None:
    stated = {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm"}
    config = LLAMA | {"num_hidden_layers": 1, "quantization_config": stated}

    artifact = read_artifact(model_of(tmp_path, config, layers(config)))

    assert any("no tensor is packed so" in problem.message for problem in artifact.problems)


def test_a_model_for_embeddings_is_none_that_generates(tmp_path: Path) -> None:
    """Qwen3-Embedding has the class and the configuration of Qwen3, and no "model." before the names."""
    config = LLAMA | {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "num_hidden_layers": 1}

    artifact = read_artifact(model_of(tmp_path, config | {"head_dim": 128}, layers(config, prefix="")))

    assert "a model for embeddings" in artifact.errors[0].message


@pytest.mark.parametrize(("attention", "engine"), [("", "pytorch"), ("packed", None)], ids=["experts", "everything"])
def test_packed_experts_alone_are_served_by_the_pytorch_engine(
    tmp_path: Path, attention: str, engine: str | None
) -> None:
    """Kimi-K2-Thinking; _parse_compressed_tensors_config, pytorch/config.py of LMDeploy 0.17.0."""
    weights = {"num_bits": 4, "type": "int", "group_size": 32, "strategy": "group", "symmetric": True, "dynamic": False}
    group = {"format": "pack-quantized", "targets": ["Linear"], "weights": weights}
    stated = {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": {"group_0": group},
    }
    config = DEEPSEEK | {"quantization_config": stated, "num_hidden_layers": 1}
    tensors = [
        ("model.embed_tokens.weight", "BF16", (163840, 7168)),
        *matrix("model.layers.0.self_attn.o_proj", 7168, 8192, attention),
        *matrix("model.layers.0.mlp.experts.0.down_proj", 7168, 2048, "packed"),
    ]

    artifact = read_artifact(model_of(tmp_path, config, tensors))

    assert artifact.lmdeploy.engine == engine
    assert artifact.lmdeploy.pin == ("0.18.0" if engine else None)


# Caches that are not heads x values.


def _deepseek_v4(root: Path, **changes: object) -> Path:
    config = {
        "architectures": ["DeepseekV4ForCausalLM"],
        "model_type": "deepseek_v4",
        "hidden_size": 4096,
        "num_hidden_layers": 5,
        "num_attention_heads": 64,
        "num_key_value_heads": 1,
        "head_dim": 512,
        "vocab_size": 129280,
        "sliding_window": 128,
        "index_head_dim": 128,
    }
    return model_of(root, config | changes, [("embed.weight", "BF16", (129280, 4096))])


@pytest.mark.parametrize(
    "changes",
    [
        {"compress_ratios": [0, 4, 128, 4, 0]},
        {
            "layer_types": [
                "sliding_attention",
                "compressed_sparse_attention",
                "heavily_compressed_attention",
                "compressed_sparse_attention",
                "sliding_attention",
            ]
        },
    ],
    ids=["ratios", "names"],
)
def test_the_compressed_cache_of_deepseek_v4(tmp_path: Path, changes: dict[str, object]) -> None:
    artifact = read_artifact(_deepseek_v4(tmp_path, **changes))

    # two layers have (584 + 128 + 4) bytes for every 4 tokens, one has 584 for every 128: 2 x 179 + 4.5625
    assert kv_bytes_per_token(artifact, "none", "0.18.0", 1, "pytorch") == 363
    assert kv_bytes_per_token(artifact, "none", "0.18.0", 8, "pytorch") == 363
    # five windows of 128 x 584; 16 rows of 2 x 512 and of 2 x 128 numbers of 32 bits twice; 256 rows of 512 once
    assert state_bytes(artifact, 1) == 5 * 128 * 584 + 2 * 16 * 2 * (512 + 128) * 4 + 256 * 512 * 4
    with pytest.raises(PlanError, match="cannot be quantized to int8"):
        plan_serving(artifact, PlanRequest(kv_policy="int8"))


def test_deepseek_v4_without_a_word_has_the_layers_of_its_class(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    if "deepseek_v4" not in transformers.CONFIG_MAPPING:
        pytest.skip("an older transformers")
    config = transformers.CONFIG_MAPPING["deepseek_v4"](num_hidden_layers=9)

    compressed = read_artifact(_deepseek_v4(tmp_path, num_hidden_layers=9)).attention.compressed

    assert compressed is not None
    assert compressed.by_4 == config.layer_types.count("compressed_sparse_attention")
    assert compressed.by_128 == config.layer_types.count("heavily_compressed_attention")


@pytest.mark.parametrize(
    ("version", "expected"), [("0.16.0", 656 + 132), ("0.17.0", 1152 + 132), ("0.18.0", 1152 + 132)]
)
def test_sparse_attention_is_kept_in_16_bits_from_0_17_0_on(tmp_path: Path, version: str, expected: int) -> None:
    """mla_kv_cache_dtype in configurations/deepseek_v32.py: fp8_ds_mla until 0.16.0, bfloat16 in 0.17.0 and 0.18.0."""
    config = DEEPSEEK | {
        "architectures": ["DeepseekV32ForCausalLM"],
        "model_type": "deepseek_v32",
        "index_head_dim": 128,
    }
    artifact = read_artifact(model_of(tmp_path, config, [("model.embed_tokens.weight", "BF16", (163840, 7168))]))

    # (512 + 64) x 2 bytes; or 512 + 4 x 4 + 64 x 2; the index 128 + 4
    assert kv_bytes_per_token(artifact, "none", version, 1, "pytorch") == 61 * expected


def _mistral(root: Path, **changes: object) -> Path:
    config = LLAMA | {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "num_hidden_layers": 1}
    config |= {"vocab_size": 32000, "max_position_embeddings": 131072, "sliding_window": 4096}
    return model_of(root, config | changes, layers(config))


def test_the_pytorch_engine_keeps_no_more_of_a_session_than_its_window_and_a_step(tmp_path: Path) -> None:
    artifact = read_artifact(_mistral(tmp_path))
    memory = Memory.of(artifact, ("0.18.0", "pytorch"), 1, "none", None)

    assert (window_tokens(artifact, "pytorch"), window_tokens(artifact, "turbomind")) == (4096, None)
    # 4096 of the window, 8192 of the step that is read, 64 of a block, and a block to spare: 194 blocks
    assert memory.session_blocks(131072) == (4096 + 8192 + 64) // 64 + 1
    assert memory.session_blocks(8192) == 8192 // 64 + 1
    assert memory.needed_bytes(131072, 4) == memory.needed_bytes(16384, 4)


def test_a_window_makes_long_sessions_fit_and_is_said(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with_window = read_artifact(_mistral(tmp_path / "a"))
    without = read_artifact(_mistral(tmp_path / "b", sliding_window=None))
    request = PlanRequest(gpu="24G", session_len=131072, max_batch_size=64, serving_engine="pytorch")

    plan = plan_serving(with_window, request)

    # 64 sessions of 12 352 tokens of 4096 bytes are 3 GiB, of 131 072 tokens 32 GiB
    assert (plan.fits, plan_serving(without, request).fits) == (True, False)
    assert plan.largest_session_len == 131072
    assert any("forgets what is more than 4096 tokens back" in note for note in plan.notes)


@pytest.mark.parametrize("architecture", ["GptOssForCausalLM", "Gemma3ForConditionalGeneration", "ChatGLMModel"])
def test_a_window_of_some_layers_keeps_everything(tmp_path: Path, architecture: str) -> None:
    artifact = read_artifact(_mistral(tmp_path, architectures=[architecture]))

    assert window_tokens(artifact, "pytorch") is None


# What TurboMind pads when it splits a model.


@pytest.mark.parametrize(
    ("version", "form", "ranks", "columns"),
    [
        ("0.18.0", "awq", 1, 11008),
        ("0.18.0", "awq", 2, 11008),  # 86 groups of 128: 43 each
        ("0.18.0", "awq", 4, 11264),  # 22 each: 88
        ("0.9.2", "awq", 4, 11264),
        ("0.5.3", "awq", 4, 11008),
        ("0.18.0", "", 4, 11008),  # 344 times 32 columns
        ("0.18.0", "", 32, 11264),  # 11 x 32 each
        ("0.9.2", "", 32, 11008),
    ],
)
def test_feed_forward_layers_are_padded_to_whole_groups_on_every_gpu(
    tmp_path: Path, version: str, form: str, ranks: int, columns: int
) -> None:
    config = LLAMA | {"num_hidden_layers": 2, "intermediate_size": 11008, "num_key_value_heads": 32}
    if form:
        config["quantization_config"] = {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm"}
    artifact = read_artifact(model_of(tmp_path, config, layers(config, form)))

    padded = weights_bytes(artifact, version, ranks) * ranks
    plain = weights_bytes(dataclasses.replace(artifact, layout="workspace"), version, ranks) * ranks

    each = 0.5 + 4 / 128 if form else 2
    assert padded - plain == pytest.approx(2 * 3 * 4096 * (columns - 11008) * each, abs=ranks)


def test_experts_of_few_groups_grow_by_a_third_when_they_are_split_by_four(tmp_path: Path) -> None:
    """Qwen3-30B-A3B in AWQ: 768 columns are six groups of 128, two on each of four GPUs."""
    config = {
        **LLAMA,
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "num_hidden_layers": 1,
        "hidden_size": 2048,
        "head_dim": 128,
        "num_experts": 128,
        "moe_intermediate_size": 768,
        "quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm"},
    }
    tensors: list[Tensor] = [("model.embed_tokens.weight", "BF16", (128256, 2048))]
    for expert in range(128):
        stem = f"model.layers.0.mlp.experts.{expert}"
        for name, rows, columns in (("gate", 768, 2048), ("up", 768, 2048), ("down", 2048, 768)):
            tensors += matrix(f"{stem}.{name}_proj", rows, columns, "awq")
    artifact = read_artifact(model_of(tmp_path, config, tensors))

    assert [(part.inner, part.parameters) for part in artifact.tensors.feed_forward] == [(768, 128 * 768 * 2048)]
    packed = 128 * 3 * 768 * 2048 * (0.5 + 4 / 128)
    vocabulary = 2 * 128256 * 2048 * 2
    assert weights_bytes(artifact, "0.18.0", 4) == pytest.approx((packed * 8 / 6 + vocabulary) / 4, rel=1e-6)


# What stops whoever loads a model, and not whoever plans.


def test_a_plan_loads_nothing_and_is_made_of_a_model_whose_files_are_refused(tmp_path: Path) -> None:
    config = LLAMA | {"num_hidden_layers": 2, "hidden_size": 512, "intermediate_size": 1024, "vocab_size": 1000}
    model_of(tmp_path, config, [])
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(b"PK\x03\x04" + bytes(5_000_000))
    artifact = read_artifact(tmp_path)

    plan = plan_serving(artifact, PlanRequest())

    assert plan.lmdeploy == "0.18.0"
    assert [problem.option for problem in artifact.errors] == ["--allow-pickle"]
    with pytest.raises(ArtifactError, match=r"pytorch_model\.bin"):
        artifact.require_usable()


def test_a_plan_for_an_lmdeploy_that_asks_nobody_says_so_and_is_no_leave_to_start_it(tmp_path: Path) -> None:
    named = {"auto_map": {"AutoConfig": "configuration_dbrx.DbrxConfig"}, "architectures": ["DbrxForCausalLM"]}
    artifact = read_artifact(model_of(tmp_path, LLAMA | named, [("model.embed_tokens.weight", "BF16", (128256, 4096))]))

    plan = plan_serving(artifact, PlanRequest())

    assert plan.lmdeploy == "0.7.3"
    assert any("LMDeploy 0.7.3 runs the code that config.json names (auto_map): unasked" in note for note in plan.notes)
    with pytest.raises(TrustError, match="runs unasked"):
        require_trusted_plan(artifact, plan, is_trusted=False)
    require_trusted_plan(artifact, plan, is_trusted=True)
