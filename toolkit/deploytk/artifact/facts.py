"""config.json -> what LMDeploy decides by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from deploytk.artifact.configuration import Configuration, text_parts
from deploytk.artifact.gptq_zeros import stored_zeros
from deploytk.artifact.quantization import Quantization
from deploytk.artifact.shape import Shape
from deploytk.artifact.shards import Shards
from deploytk.artifact.text_formats import Reader, read_json
from deploytk.lmdeploy import NOT_QUANTIZED, ModelFacts, QuantizationFacts

_LONGEST_WORD = 100
_OWN_FILE_OF_GPTQ = "quantize_config.json"


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


def with_tensors(facts: ModelFacts, root: Path, shards: Shards) -> ModelFacts:
    """The same, with what the files of the weights tell."""
    method = facts.quantization.method
    if method == "gptq":
        return replace(facts, quantization=_with_zeros(_with_act_order(facts.quantization, root), root, shards))
    if method == "compressed-tensors":
        packed = [group.pattern for group in shards.tensors.ending(".weight_packed")]
        alone = bool(packed) and all(".experts." in pattern for pattern in packed)
        return replace(facts, quantization=replace(facts.quantization, experts_alone=alone))
    return facts


def _with_zeros(stated: QuantizationFacts, root: Path, shards: Shards) -> QuantizationFacts:
    """Some quantizers store zero points of v2 and call them "gptq"."""
    zeros = stored_zeros(root / path for path in shards.files if path.endswith(".safetensors"))
    return replace(stated, zeros=zeros or stated.zeros)


def _with_act_order(found: QuantizationFacts, root: Path) -> QuantizationFacts:
    """What AutoGPTQ wrote into a file of its own, before there was a quantization_config in config.json."""
    path = root / _OWN_FILE_OF_GPTQ
    if found.is_stated or not path.is_file():
        return found
    stated = quantization_facts(Reader(path, {**read_json(path), "quant_method": "gptq"}))
    return replace(stated, is_stated=False, group_size=found.group_size)


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
        version=_word(str(config.values["version"])) if config.has("version") else None,  # compared as it is written
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
