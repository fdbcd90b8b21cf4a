"""What LMDeploy's versions can: support of a model with its reasons, and the borders of every named feature."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from deploytk import lmdeploy
from deploytk.lmdeploy import ModelFacts, QuantizationFacts

LLAMA = ModelFacts(architecture="LlamaForCausalLM", layers=32, hidden_size=4096, heads=32, kv_heads=8, head_dim=128)
AWQ = QuantizationFacts(method="awq", bits=4, group_size=128, version="gemm")
GPTQ = QuantizationFacts(method="gptq", bits=4, group_size=128, desc_act=False, symmetric=True)
COMPRESSED = QuantizationFacts(
    method="compressed-tensors", bits=4, group_size=32, value_type="int", format="pack-quantized",
    group_0_format="pack-quantized", symmetric=True,
)  # fmt: skip
FP8 = QuantizationFacts(method="fp8", block=(128, 128))


def _with(facts: ModelFacts = LLAMA, **changes: object) -> ModelFacts:
    return dataclasses.replace(facts, **changes)  # type: ignore[arg-type]


def _served(facts: ModelFacts) -> tuple[str | None, str | None, str | None]:
    found = lmdeploy.support(facts)
    assert found.pin == found.max
    return found.engine, found.min, found.max


NONE = (None, None, None)
MISTRAL = _with(architecture="MistralForCausalLM")
INTERNVL = _with(architecture="InternVLChatModel")


@pytest.mark.parametrize(
    ("facts", "served"),
    [
        (LLAMA, ("turbomind", "0.2.0", "0.18.0")),
        (_with(architecture="Qwen2VLForConditionalGeneration"), ("turbomind", "0.16.0", "0.18.0")),  # after a gap
        (_with(architecture="MllamaForConditionalGeneration"), ("pytorch", "0.6.2", "0.11.1")),
        (_with(architecture="Starcoder2ForCausalLM", sliding_window=4096), ("pytorch", "0.6.0", "0.14.0")),
        (_with(architecture="CohereForCausalLM"), NONE),
        # Conditions of TurboMind: the PyTorch engine is left.
        (_with(architecture="BaichuanForCausalLM"), ("turbomind", "0.2.0", "0.13.0")),
        (_with(architecture="BaichuanForCausalLM", heads=40, hidden_size=5120), ("pytorch", "0.6.0", "0.14.0")),
        (_with(heads=40, hidden_size=3200, head_dim=80), ("pytorch", "0.6.0", "0.18.0")),
        (_with(head_dim=256), ("turbomind", "0.14.0", "0.18.0")),  # kernels, and no gate any more
        (_with(architecture="ChatGLMModel", layers=28), NONE),
        (
            _with(architecture="ChatGLMModel", layers=28, auto_map_architecture="ChatGLMForConditionalGeneration"),
            ("pytorch", "0.6.0", "0.18.0"),
        ),
        (_with(architecture="ChatGLMModel", layers=40), ("turbomind", "0.5.0", "0.13.0")),
        (_with(architecture="ChatGLMModel", layers=40, has_vision=True), NONE),
        (_with(architecture="MistralForCausalLM", sliding_window=4096), ("pytorch", "0.6.0", "0.18.0")),
        (_with(architecture="MistralForCausalLM"), ("turbomind", "0.5.0", "0.13.0")),
        (_with(architecture="GptOssForCausalLM", sliding_window=128, head_dim=64), ("turbomind", "0.10.0", "0.18.0")),
        # Language models inside.
        (
            _with(architecture="InternVLChatModel", text_architecture="Phi3ForCausalLM"),
            ("pytorch", "0.6.0", "0.18.0"),
        ),
        (
            _with(INTERNVL, text_architecture="Qwen2ForCausalLM", head_dim=64, hidden_size=2048),
            ("turbomind", "0.6.3", "0.18.0"),
        ),
        (
            _with(architecture="InternVLChatModel", text_architecture="InternLM2VEForCausalLM"),
            ("pytorch", "0.6.3", "0.14.0"),
        ),
        (_with(architecture="MiniCPMV", model_version="2.0"), NONE),
        (_with(architecture="MiniCPMV", model_version="2.6"), ("turbomind", "0.5.0", "0.13.0")),
        (_with(architecture="MolmoForCausalLM", states_kv_heads=False), NONE),
    ],
)  # fmt: skip
def test_models_are_served_where_the_sources_say(facts: ModelFacts, served: tuple[str | None, ...]) -> None:
    assert _served(facts) == served


@pytest.mark.parametrize(
    ("quantization", "served"),
    [
        (AWQ, ("turbomind", "0.2.0", "0.18.0")),
        (dataclasses.replace(AWQ, version="gemv"), NONE),
        (dataclasses.replace(AWQ, version=None), NONE),
        (dataclasses.replace(AWQ, version=None, is_stated=False), ("turbomind", "0.2.0", "0.18.0")),
        (dataclasses.replace(AWQ, bits=8), NONE),
        (dataclasses.replace(AWQ, group_size=64), ("pytorch", "0.6.0", "0.18.0")),
        (dataclasses.replace(AWQ, group_size=-1), NONE),
        (GPTQ, ("turbomind", "0.6.0", "0.18.0")),
        (dataclasses.replace(GPTQ, bits=8), NONE),
        (dataclasses.replace(GPTQ, group_size=-1), NONE),
        (dataclasses.replace(GPTQ, desc_act=True), NONE),
        (dataclasses.replace(GPTQ, symmetric=False), NONE),
        (dataclasses.replace(GPTQ, zeros="v2"), NONE),
        (COMPRESSED, ("turbomind", "0.12.3", "0.18.0")),
        (dataclasses.replace(COMPRESSED, group_size=128), ("turbomind", "0.12.0", "0.18.0")),
        (dataclasses.replace(COMPRESSED, group_size=64), NONE),
        (dataclasses.replace(COMPRESSED, group_size=None, strategy="channel"), NONE),
        (dataclasses.replace(COMPRESSED, bits=8), NONE),
        (dataclasses.replace(COMPRESSED, value_type="float"), NONE),
        (dataclasses.replace(COMPRESSED, actorder="group"), NONE),
        (dataclasses.replace(COMPRESSED, actorder="static"), ("turbomind", "0.12.3", "0.18.0")),
        (dataclasses.replace(COMPRESSED, group_0_format="float-quantized"), NONE),
        (dataclasses.replace(COMPRESSED, actorder="group", experts_alone=True), ("pytorch", "0.17.0", "0.18.0")),
        (FP8, ("turbomind", "0.9.0", "0.18.0")),
        (dataclasses.replace(FP8, block=None, activation_scheme="static"), ("pytorch", "0.16.0", "0.18.0")),
        (dataclasses.replace(FP8, block=None, activation_scheme="dynamic"), NONE),
        (QuantizationFacts(method="smooth_quant"), ("pytorch", "0.6.0", "0.18.0")),
        (QuantizationFacts(method="bitsandbytes"), NONE),
    ],
)
def test_weights_are_served_where_the_sources_say(
    quantization: QuantizationFacts, served: tuple[str | None, ...]
) -> None:
    assert _served(_with(quantization=quantization)) == served


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (LLAMA, "TurboMind serves LlamaForCausalLM with unquantized weights from 0.2.0"),
        (_with(heads=40, hidden_size=3200, head_dim=80), "no kernels for heads of 80 values"),
        (
            _with(architecture="MistralForCausalLM", sliding_window=4096),
            "sliding window (4096 tokens here) (LMDeploy 0.13.0)",
        ),
        (
            _with(architecture="InternVLChatModel", text_architecture="Phi3ForCausalLM"),
            "Phi3ForCausalLM, the language model",
        ),
        (_with(quantization=dataclasses.replace(GPTQ, bits=8)), "its weights have 8 bits, 4 are asked for"),
        (_with(quantization=QuantizationFacts(method="hqq")), "it does not know hqq weights"),
        (_with(architecture="NewForCausalLM"), "it does not know NewForCausalLM"),
    ],
)
def test_the_reason_is_said(facts: ModelFacts, words: str) -> None:
    assert words in lmdeploy.support(facts).reason


def test_a_format_that_is_missing_in_the_group_must_be_added() -> None:
    found = lmdeploy.support(_with(quantization=dataclasses.replace(COMPRESSED, group_0_format=None)))

    assert found.pin == "0.18.0"
    assert 'add "format": "pack-quantized"' in found.needs[0]


def test_lmdeploys_own_first_format_ends_with_the_names_of_models() -> None:
    found = lmdeploy.support(_with(architecture="LMDeployForCausalLM", has_turbomind=True))

    assert (found.min, found.pin, found.engine) == ("0.1.0", "0.2.1", "turbomind")
    assert "remove it" in found.needs[0]


Feature = Callable[[str], object]


@pytest.mark.parametrize(
    ("feature", "before", "after", "values"),
    [
        (lmdeploy.splits_vocabulary, "0.5.3", "0.6.0", (False, True)),
        (lmdeploy.has_static_int8, "0.3.0", "0.4.0", (True, False)),
        (lmdeploy.wants_spare_block, "0.14.0", "0.15.0", (False, True)),
        (lmdeploy.allocates_pool_in_slabs, "0.14.0", "0.15.0", (False, True)),
        (lmdeploy.folds_latent_attention, "0.12.1", "0.12.2", (False, True)),
        (lmdeploy.reads_context_fmha, "0.0.14", "0.1.0", (True, False)),
        (lmdeploy.legacy_base, "0.9.2.post1", "0.10.0", ("nvidia/cuda:12.4.1-base-ubuntu22.04", None)),
        (lmdeploy.goes_with_gradio_6, "0.9.2.post1", "0.10.0", (False, True)),
        (lmdeploy.registers_windows, "0.9.2.post1", "0.10.0", (False, True)),
        (lmdeploy.has_wheel_for_python_3_9, "0.10.2", "0.11.0", (True, False)),
        (lmdeploy.smallest_capability_for_fp8, "0.10.0", "0.10.1", (9.0, 7.0)),
        (lmdeploy.smallest_capability_for_fp8, "0.15.0", "0.16.0", (7.0, 9.0)),
        (lmdeploy.smallest_capability_for_fp8, "0.16.0", "0.17.0", (9.0, 7.0)),
        (lmdeploy.smallest_capability_for_4_bits, "0.1.0", "0.2.0", (8.0, 7.5)),
        (lmdeploy.smallest_capability_for_4_bits, "0.5.3", "0.6.0", (7.5, 7.0)),
        (lmdeploy.flags_replace_ini, "0.1.0", "0.2.0", (False, True)),
        (lmdeploy.flags_replace_ini, "0.5.3", "0.6.0", (True, False)),
        (lmdeploy.pool_meaning, "0.0.14", "0.1.0", ("sequences", "of_total")),
        (lmdeploy.pool_meaning, "0.2.1", "0.2.2", ("of_total", "of_free")),
        (lmdeploy.default_pool, "0.2.1", "0.2.2", (0.5, 0.8)),
        (lmdeploy.block_tokens, "0.0.14", "0.1.0", (1, 128)),
        (lmdeploy.block_tokens, "0.2.6", "0.3.0", (128, 64)),
        (lambda version: lmdeploy.quant_policy(version, "int8"), "0.3.0", "0.4.0", (4, 8)),
        (lambda version: lmdeploy.quant_policy(version, "int4"), "0.3.0", "0.4.0", (None, 4)),
        (lambda version: lmdeploy.has_kernels(version, 9.0), "0.3.0", "0.4.0", (False, True)),
        (lambda version: lmdeploy.has_kernels(version, 12.0), "0.12.3", "0.13.0", (False, True)),
        (lambda version: lmdeploy.has_flag(version, "--model-name"), "0.5.3", "0.6.0", (False, True)),
        (lambda version: lmdeploy.has_flag(version, "--trust-remote-code"), "0.12.3", "0.13.0", (False, True)),
        (lambda version: lmdeploy.has_flag(version, "--enable-metrics"), "0.10.2", "0.11.0", (True, False)),
        (lambda version: lmdeploy.has_flag(version, "--server_name"), "0.1.0", "0.2.0", (True, False)),
        (lambda version: lmdeploy.has_flag(version, "--reasoning-parser"), "0.7.1", "0.7.2", (False, True)),
        (lmdeploy.reasoning_parsers, "0.7.1", "0.7.2", ((), ("deepseek-r1", "qwen-qwq"))),
        (lambda version: "intern-s1" in lmdeploy.reasoning_parsers(version), "0.9.1", "0.9.2", (False, True)),
        (lambda version: "default" in lmdeploy.reasoning_parsers(version), "0.12.3", "0.13.0", (False, True)),
        (lambda version: "deepseek-v4" in lmdeploy.reasoning_parsers(version), "0.14.0", "0.15.0", (False, True)),
    ],
)
def test_a_feature_changes_between_two_releases_that_follow_each_other(
    feature: Feature, before: str, after: str, values: tuple[object, object]
) -> None:
    assert lmdeploy.VERSIONS.index(after) == lmdeploy.VERSIONS.index(before) + 1
    assert (feature(before), feature(after)) == values


def test_the_newest_for_python_3_9_is_the_last_with_a_wheel() -> None:
    assert [v for v in lmdeploy.VERSIONS if lmdeploy.has_wheel_for_python_3_9(v)][-1] == lmdeploy.NEWEST_FOR_PYTHON_3_9


def test_a_larger_index_is_a_newer_release() -> None:
    assert lmdeploy.release_index("0.9.2.post1") < lmdeploy.release_index("0.10.0")
    assert lmdeploy.release_index("0.7.0") < lmdeploy.release_index("0.7.0.post1") < lmdeploy.release_index("0.7.1")
