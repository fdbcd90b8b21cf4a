"""What LMDeploy looks at in a Hugging Face directory before it says whether it serves it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizationFacts:
    """`quantization_config` under the field's own names; None where it does not say, or where it does not apply."""

    method: str  # "none", or quant_method in small letters: "awq", "gptq", "fp8", "compressed-tensors", "bitsandbytes"
    is_stated: bool = True  # False: the tensors tell, config.json does not
    bits: int | None = None
    group_size: int | None = None
    version: str | None = None  # awq: "gemm", "gemv", "marlin" ...
    desc_act: bool | None = None  # gptq
    symmetric: bool | None = None  # gptq `sym`, compressed-tensors `symmetric`
    zeros: Literal["v1", "v2"] | None = None  # gptq: what the stored zero points mean; v1 are one too small
    format: str | None = None  # compressed-tensors: at its top
    group_0_format: str | None = None  # compressed-tensors: config_groups.group_0.format
    value_type: str | None = None  # compressed-tensors: weights.type, "int" or "float"
    strategy: str | None = None  # compressed-tensors: weights.strategy, "group", "channel", "tensor", "block"
    actorder: str | None = None  # compressed-tensors: weights.actorder, "group", "static"
    quantizes_activations: bool = False  # compressed-tensors: input_activations are there
    experts_alone: bool = False  # no other layers than those of experts are quantized
    activation_scheme: str | None = None  # fp8: "dynamic", "static"
    block: tuple[int, ...] | None = None  # fp8: weight_block_size; None for one scale per tensor or channel
    quant_dtype: str | None = None  # smooth_quant: "int8", "float8_e4m3fn"


NOT_QUANTIZED = QuantizationFacts(method="none")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What `support` decides by; every size is the language model's."""

    architecture: str  # architectures[0] of config.json, or what auto_map names where there is none
    auto_map_architecture: str | None = None  # auto_map.AutoModelForCausalLM: the PyTorch engine looks there first
    text_architecture: str | None = None  # of the language model inside one that also sees or hears
    layers: int
    hidden_size: int
    heads: int
    kv_heads: int
    head_dim: int  # of queries in attention
    has_latent_attention: bool = False  # MLA: one compressed key and value per token (kv_lora_rank)
    states_head_dim: bool = False  # config.json has head_dim; else it is hidden_size / heads
    states_kv_heads: bool = True  # config.json has num_key_value_heads
    sliding_window: int | None = None  # tokens; None where no layer uses one
    has_vision: bool = False  # vision_config is there
    model_version: str | None = None  # `version` of config.json: MiniCPM-V 2.6 has "2.6"
    has_turbomind: bool = False  # the `turbomind` key that LMDeploy 0.1.0-0.2.1 wrote into its own repositories
    quantization: QuantizationFacts = NOT_QUANTIZED
