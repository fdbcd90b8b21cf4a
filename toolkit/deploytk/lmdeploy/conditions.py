"""What LMDeploy asks of a model, by the names that support.json uses: `tools/read_lmdeploy` finds them in its code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from deploytk.lmdeploy.facts import ModelFacts


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing that must hold, and how its absence is said."""

    holds: Callable[[ModelFacts], bool]
    says: Callable[[ModelFacts], str]  # after "but": "its heads have 100 values, 64 or 128 are asked for"


def _hidden_per_head(facts: ModelFacts) -> int:
    return facts.hidden_size // facts.heads


def _is_llama_inside(facts: ModelFacts) -> bool:
    return facts.text_architecture in ("Qwen2ForCausalLM", "LlamaForCausalLM")


def _sizes(find: Callable[[ModelFacts], int], *allowed: int) -> Condition:
    wanted = " or ".join(map(str, allowed))
    return Condition(
        lambda facts: find(facts) in allowed,
        lambda facts: f"its heads have {find(facts)} values, {wanted} are asked for",
    )


def _inside(condition: Condition) -> Condition:
    """The same, asked of a Llama or Qwen2 inside another model; the language model inside must be named."""
    return Condition(
        lambda facts: facts.text_architecture is not None and (not _is_llama_inside(facts) or condition.holds(facts)),
        lambda facts: condition.says(facts) if facts.text_architecture else _NAMELESS,
    )


def _groups(*allowed: int) -> Condition:
    """AWQ and GPTQ that do not say have 128; compressed-tensors without groups have one scale per channel."""
    wanted = " or ".join(map(str, allowed))

    def size(facts: ModelFacts) -> int | None:
        default = None if facts.quantization.method == "compressed-tensors" else 128
        return facts.quantization.group_size or default

    return Condition(
        lambda facts: size(facts) in allowed,
        lambda facts: f"its groups have {size(facts)} weights, {wanted} are asked for",
    )


def _packing(facts: ModelFacts) -> str | None:
    """TurboMind reads the group's own format; where that is missing, the one above says the same (see `support`)."""
    return facts.quantization.group_0_format or facts.quantization.format


def _stated(holds: Callable[[ModelFacts], bool], says: str) -> Condition:
    return Condition(holds, lambda _: says)


_NAMELESS = "config.json does not name the architecture of the language model inside"

CONDITIONS = {
    # Of the model.
    "heads_not_40": _stated(lambda f: f.heads != 40, "it has 40 heads, as Baichuan-13B has, which has other positions"),
    "hidden_128": _sizes(_hidden_per_head, 128),
    "hidden_64_128": _sizes(_hidden_per_head, 64, 128),
    "head_64_128": _sizes(lambda f: f.head_dim, 64, 128),
    "inner_llama_hidden_64_128": _inside(_sizes(_hidden_per_head, 64, 128)),
    "inner_llama_head_64_128": _inside(_sizes(lambda f: f.head_dim, 64, 128)),
    "layers_40": Condition(lambda f: f.layers == 40, lambda f: f"it has {f.layers} layers, 40 are asked for"),
    "no_vision": _stated(lambda f: not f.has_vision, "it has a part that sees"),
    "states_kv_heads": _stated(lambda f: f.states_kv_heads, "its config.json has no num_key_value_heads"),
    "version_2.5_2.6": Condition(
        lambda f: f.model_version in ("2.5", "2.6"),
        lambda f: f"it is version {f.model_version}, 2.5 or 2.6 is asked for",
    ),
    # Of quantized weights.
    "is_stated": _stated(lambda f: f.quantization.is_stated, "config.json has no quantization_config"),
    "bits_4": Condition(
        lambda f: f.quantization.bits in (None, 4),
        lambda f: f"its weights have {f.quantization.bits} bits, 4 are asked for",
    ),
    "group_32": _groups(32),
    "group_128": _groups(128),
    "group_32_128": _groups(32, 128),
    "group_32_64_128": _groups(32, 64, 128),
    "stated_gemm": Condition(
        lambda f: not f.quantization.is_stated or f.quantization.version == "gemm",
        lambda f: f'quantization_config says version {f.quantization.version or "nothing"}, "gemm" is asked for',
    ),
    "no_desc_act": _stated(lambda f: not f.quantization.desc_act, "desc_act is true"),
    "symmetric": _stated(lambda f: f.quantization.symmetric is not False, "its weights are not symmetric"),
    "zeros_v1": _stated(
        lambda f: f.quantization.zeros != "v2",
        "its zero points are those of GPTQ v2, and would be read as v1: every weight off by one step",
    ),
    "group_0_packed": Condition(
        lambda f: _packing(f) == "pack-quantized",
        lambda f: f'its format is {_packing(f) or "not there"}, "pack-quantized" is asked for',
    ),
    "integers": Condition(
        lambda f: f.quantization.value_type in (None, "int"),
        lambda f: f"its weights are of type {f.quantization.value_type}, int is asked for",
    ),
    "no_actorder": _stated(
        lambda f: f.quantization.actorder != "group", "actorder is group, and weight_g_idx would be ignored"
    ),
    "block_128": _stated(
        lambda f: f.quantization.block == (128, 128), "it has no scale per block of 128 x 128 (weight_block_size)"
    ),
    "block_or_static": _stated(
        lambda f: (
            f.quantization.block == (128, 128)
            or (f.quantization.block is None and f.quantization.activation_scheme == "static")
        ),
        "it has neither a scale per block of 128 x 128 nor static scales per tensor",
    ),
    "experts_alone": _stated(lambda f: f.quantization.experts_alone, "other layers than experts are quantized"),
}
