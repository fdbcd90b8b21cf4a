"""config.json -> what LMDeploy decides by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from deploytk.artifact.configuration import Configuration, text_parts
from deploytk.artifact.gptq_zeros import stored_zeros
from deploytk.artifact.quantization import Quantization
from deploytk.artifact.shape import Shape
from deploytk.artifact.text_formats import Reader
from deploytk.lmdeploy import NOT_QUANTIZED, ModelFacts, QuantizationFacts

_LONGEST_WORD = 100


def stated_quantization(config: dict[str, Any]) -> object:
    """`quantization_config` at the top of a configuration or in its language model; None when there is none."""
    stated = (part.get("quantization_config") for part in text_parts(config))
    return next((found for found in stated if found), None)


def model_facts(configuration: Configuration, shape: Shape, quantization: Quantization) -> ModelFacts:
    """What LMDeploy decides by; `quantization` is what the tensors tell where the configuration does not say."""
    top, config = configuration.top, configuration.text
    of_weights = stated_quantization(top)
    return ModelFacts(
        architecture=configuration.architecture,
        auto_map_architecture=auto_map_architecture(top),
        text_architecture=configuration.text_architecture,
        layers=shape.layers,
        hidden_size=shape.hidden_size,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        has_latent_attention=shape.attention.latent is not None,
        states_head_dim=configuration.states("head_dim"),
        states_kv_heads=configuration.states("num_key_value_heads"),
        sliding_window=sliding_window(config),
        has_vision=isinstance(top.get("vision_config"), dict),
        model_version=_word(str(top["version"])) if isinstance(top.get("version"), (str, int, float)) else None,
        has_turbomind="turbomind" in top,
        quantization=quantization_facts(Reader(config.path, of_weights))
        if isinstance(of_weights, dict)
        else tensors_quantization(quantization.weight_format, quantization.bits, quantization.group_size),
    )


def with_stored_zeros(facts: ModelFacts, weights: Sequence[Path]) -> ModelFacts:
    """The same, with what the zero points of GPTQ in the files tell: some quantizers store v2 and call it "gptq"."""
    if facts.quantization.method != "gptq":
        return facts
    zeros = stored_zeros(path for path in weights if path.suffix == ".safetensors")
    quantization = replace(facts.quantization, zeros=zeros or facts.quantization.zeros)
    return replace(facts, quantization=quantization)


def auto_map_architecture(config: dict[str, Any]) -> str | None:
    """The class that `auto_map` names for a language model."""
    places = config.get("auto_map")
    name = places.get("AutoModelForCausalLM") if isinstance(places, dict) else None
    return _word(name.rpartition(".")[2]) if isinstance(name, str) else None


def sliding_window(config: Reader) -> int | None:
    """Tokens that a layer looks back; None where no layer is limited so, or by more than the model was made for."""
    if config.values.get("use_sliding_window") is False or not config.has("sliding_window"):
        return None
    tokens = config.whole("sliding_window")
    longest = config.values.get("max_position_embeddings")
    return None if isinstance(longest, int) and tokens >= longest else tokens


def quantization_facts(config: Reader) -> QuantizationFacts:
    """What a `quantization_config` says; nothing is judged here."""
    weights, activations, group_format = _group_0(config)
    block = config.values.get("weight_block_size")
    return QuantizationFacts(
        method=config.name("quant_method").lower() or "unnamed",
        bits=_whole(weights, "num_bits") if weights else _whole(config.values, "bits"),
        group_size=_whole(weights or config.values, "group_size"),
        version=_lower(config.values, "version"),
        desc_act=_flag(config.values, "desc_act"),
        symmetric=_flag(weights, "symmetric") if weights else _flag(config.values, "sym"),
        zeros="v2" if _lower(config.values, "checkpoint_format") == "gptq_v2" else None,
        format=_lower(config.values, "format"),
        group_0_format=group_format,
        value_type=_lower(weights, "type"),
        strategy=_lower(weights, "strategy"),
        actorder=_lower(weights, "actorder"),
        quantizes_activations=bool(activations),
        activation_scheme=_lower(config.values, "activation_scheme"),
        block=tuple(block) if isinstance(block, list) and all(type(size) is int for size in block) else None,
        quant_dtype=_lower(config.values, "quant_dtype"),
    )


def tensors_quantization(weight_format: str, bits: int, group_size: int | None) -> QuantizationFacts:
    """The same where the tensors alone tell."""
    if weight_format == "none":
        return NOT_QUANTIZED
    return QuantizationFacts(method=weight_format, is_stated=False, bits=bits, group_size=group_size)


def _group_0(config: Reader) -> tuple[dict[str, Any], object, str | None]:
    """Weights, activations and format of the one group of compressed-tensors that TurboMind reads."""
    groups = config.values.get("config_groups")
    group = groups.get("group_0", next(iter(groups.values()), None)) if isinstance(groups, dict) else None
    if not isinstance(group, dict):
        return {}, None, None
    weights = group.get("weights")
    return weights if isinstance(weights, dict) else {}, group.get("input_activations"), _lower(group, "format")


def _lower(values: dict[str, Any], key: str) -> str | None:
    value = values.get(key)
    return _word(value.lower()) if isinstance(value, str) else None


def _word(text: str) -> str:
    """`text` as it can be written anywhere: short, and half a character or a control character as its escape."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text[:_LONGEST_WORD])


def _whole(values: dict[str, Any], key: str) -> int | None:
    value = values.get(key)
    return value if type(value) is int else None


def _flag(values: dict[str, Any], key: str) -> bool | None:
    value = values.get(key)
    return value if isinstance(value, bool) else None
