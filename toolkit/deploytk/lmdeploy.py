"""What each LMDeploy version can serve and which flags its API server takes: one table.

Sources: LMDeploy's own tags (`turbomind/supported_models.py`, `pytorch/models/module_map.py`, `cli/serve.py`,
`turbomind/deploy/`), read at every border named here. 0.17.0 and 0.18.0 are wheels without a tag: 0.18.0 was run.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import Literal

LmdeployEngine = Literal["turbomind", "pytorch"]

VERSIONS = tuple(
    """
    0.0.10 0.0.11 0.0.12 0.0.13 0.0.14 0.1.0 0.2.0 0.2.1 0.2.2 0.2.3 0.2.4 0.2.5 0.2.6 0.3.0 0.4.0 0.4.1 0.4.2
    0.5.0 0.5.1 0.5.2 0.5.2.post1 0.5.3 0.6.0 0.6.1 0.6.2 0.6.2.post1 0.6.3 0.6.4 0.6.5
    0.7.0 0.7.0.post1 0.7.0.post2 0.7.0.post3 0.7.1 0.7.2 0.7.2.post1 0.7.3 0.8.0 0.9.0 0.9.1 0.9.2 0.9.2.post1
    0.10.0 0.10.1 0.10.2 0.11.0 0.11.1 0.12.0 0.12.1 0.12.2 0.12.3 0.13.0 0.14.0 0.15.0 0.16.0 0.17.0 0.18.0
    """.split()
)
NEWEST = VERSIONS[-1]
AFTER_WORKSPACES = "0.8.0"
"""The first version that no longer reads the weights of a workspace."""


def age(version: str) -> int:
    """The place of a version in the order of releases; compare these, never the strings."""
    return VERSIONS.index(version)


@dataclass(frozen=True, slots=True)
class VersionRange:
    """The LMDeploy versions that can serve a model; all None when none can."""

    min: str | None
    max: str | None  # the newest known one when there is no upper border
    pin: str | None  # the one to install
    engine: LmdeployEngine | None  # TurboMind where it can, else the PyTorch engine
    reason: str  # why the borders are where they are, one sentence


@dataclass(frozen=True, slots=True)
class WorkspaceEra:
    """The LMDeploy versions whose `convert` wrote the same kind of workspace, recognised by its configuration."""

    made_by: tuple[str, str]  # oldest and newest
    config_format: Literal["ini", "yaml"]
    has: frozenset[str]  # keys that are there
    lacks: frozenset[str]  # keys that came later or had gone
    tokenizer_at_root: bool | None  # None: not a mark of this era
    served_until: str | None  # the newest version that reads it; None when none does

    @property
    def label(self) -> str:
        oldest, newest = self.made_by
        return f"lmdeploy {oldest}" if oldest == newest else f"lmdeploy {oldest}-{newest}"


def _era(
    oldest: str,
    newest: str,
    config_format: Literal["ini", "yaml"],
    served_until: str | None,
    *,
    has: str = "",
    lacks: str = "",
    tokenizer_at_root: bool | None = None,
) -> WorkspaceEra:
    marks = frozenset(has.split()), frozenset(lacks.split())
    return WorkspaceEra((oldest, newest), config_format, *marks, tokenizer_at_root, served_until)


# `convert` writes every field of its configuration class, so the keys tell the version.
# Source: turbomind/deploy/target_model/base.py (ini) and turbomind/deploy/config.py (yaml) at every tag.
WORKSPACE_ERAS = (
    _era("0.0.10", "0.0.14", "ini", "0.0.14", has="cache_max_entry_count", lacks="cache_block_seq_len"),
    _era("0.1.0", "0.1.0", "ini", "0.4.2", has="cache_block_seq_len", lacks="num_tokens_per_iter"),
    _era("0.2.0", "0.2.6", "ini", "0.4.2", has="num_tokens_per_iter", lacks="use_dynamic_ntk"),
    _era("0.3.0", "0.3.0", "ini", "0.4.2", has="num_tokens_per_iter use_dynamic_ntk", lacks="lora_policy"),
    _era("0.4.0", "0.4.1", "ini", "0.4.2", has="lora_policy", lacks="enable_prefix_caching"),
    _era("0.4.2", "0.4.2", "ini", "0.4.2", has="enable_prefix_caching", lacks="model_arch"),
    _era("0.5.0", "0.5.1", "ini", "0.5.3", has="model_arch", lacks="low_freq_factor"),
    _era("0.5.2", "0.5.2.post1", "ini", "0.5.3", has="model_arch low_freq_factor", lacks="max_prefill_token_num"),
    _era("0.5.3", "0.5.3", "ini", "0.5.3", has="model_arch low_freq_factor max_prefill_token_num"),
    _era("0.6.0", "0.6.1", "yaml", "0.6.1", has="tp", lacks="expert_num"),
    _era("0.6.2", "0.6.2.post1", "yaml", "0.6.2.post1", has="tp expert_num", lacks="embedding_size"),
    _era("0.6.3", "0.6.3", "yaml", "0.6.3", has="tp embedding_size", lacks="tune_layer_num"),
    _era("0.6.4", "0.7.0.post1", "yaml", "0.7.3", has="tp tune_layer_num start_id", tokenizer_at_root=False),
    _era("0.7.0.post2", "0.7.0.post3", "yaml", "0.7.3", has="tp tune_layer_num start_id", tokenizer_at_root=True),
    _era("0.7.1", "0.7.2.post1", "yaml", "0.7.3", has="tp tune_layer_num", lacks="start_id qk_norm"),
    _era("0.7.3", "0.7.3", "yaml", "0.7.3", has="tp qk_norm"),
    _era("0.8.0", "0.8.0", "yaml", None, has="attn_tp_size", lacks="tokenizer_size"),
    _era("0.9.0", "0.9.1", "yaml", None, has="attn_tp_size tokenizer_size", lacks="mrope_section"),
    _era("0.9.2", "0.9.2.post1", "yaml", None, has="attn_tp_size tokenizer_size mrope_section"),
)


def recognise_era(config_format: str, keys: Set[str], *, tokenizer_at_root: bool) -> WorkspaceEra | None:
    """The era whose marks `keys` (all keys of the configuration, sections flattened) carry, or None."""
    for era in WORKSPACE_ERAS:
        is_placed = era.tokenizer_at_root in (None, tokenizer_at_root)
        if era.config_format == config_format and era.has <= keys and not era.lacks & keys and is_placed:
            return era
    return None


@dataclass(frozen=True, slots=True)
class _Support:
    """First and last version per engine; None where the engine never had it."""

    turbomind: tuple[str, str] | None
    pytorch: tuple[str, str] | None


def _support(turbomind: str, pytorch: str = "0.6.0-") -> _Support:
    def borders(text: str) -> tuple[str, str] | None:
        first, _, last = text.partition("-")
        return (first, last or NEWEST) if first else None

    return _Support(borders(turbomind), borders(pytorch))


ARCHITECTURES = {
    "BaiChuanForCausalLM": _support("0.0.10-0.13.0"),
    "BaichuanForCausalLM": _support("0.0.10-0.13.0"),
    "ChatGLMModel": _support("0.5.0-0.13.0"),
    "DeepseekForCausalLM": _support(""),
    "DeepseekV2ForCausalLM": _support("0.6.4-0.13.0"),
    "DeepseekV3ForCausalLM": _support("", "0.7.0-"),
    "GemmaForCausalLM": _support(""),
    "Gemma2ForCausalLM": _support(""),
    "Glm4ForCausalLM": _support("", "0.10.0-"),
    "GptOssForCausalLM": _support("0.10.0-", "0.10.0-"),
    "InternLMForCausalLM": _support("0.0.10-0.13.0"),
    "InternLM2ForCausalLM": _support("0.2.0-"),
    "InternLM3ForCausalLM": _support("0.7.0-", "0.7.0-"),
    "InternVLChatModel": _support("0.4.0-"),
    "InternVLForConditionalGeneration": _support("0.9.0-"),
    "LlamaForCausalLM": _support("0.0.10-"),
    "LlavaLlamaForCausalLM": _support("0.4.0-0.13.0"),
    "MistralForCausalLM": _support("0.5.0-0.13.0"),
    "MixtralForCausalLM": _support("0.6.2-"),
    "Phi3ForCausalLM": _support(""),
    "QWenLMHeadModel": _support("0.0.10-0.13.0"),
    "Qwen2ForCausalLM": _support("0.4.0-"),
    "Qwen2MoeForCausalLM": _support("0.6.4-"),
    "Qwen2VLForConditionalGeneration": _support("0.16.0-"),
    "Qwen2_5_VLForConditionalGeneration": _support("0.16.0-", "0.7.2-"),
    "Qwen3ForCausalLM": _support("0.7.3-", "0.7.3-"),
    "Qwen3MoeForCausalLM": _support("0.7.3-", "0.7.3-"),
    "Qwen3NextForCausalLM": _support("", "0.11.0-"),
    "Qwen3_5ForConditionalGeneration": _support("0.12.3-", "0.12.3-"),
    "Qwen3_5MoeForConditionalGeneration": _support("0.12.3-", "0.12.3-"),
}

# Of HF directories. FP8: 0.16.0 broke GPUs before Hopper (lmdeploy #4871), so it starts again at 0.17.0.
WEIGHT_FORMATS = {
    "none": _support("0.2.0-"),
    "awq": _support("0.2.0-"),
    "gptq": _support("0.6.0-", ""),
    "fp8": _support("0.17.0-", "0.17.0-"),
    "mxfp4": _support("0.10.0-", ""),
    "compressed-tensors": _support("0.12.0-", "0.12.0-"),
    "smooth_quant": _support(""),
}


def versions_for_workspace(era: WorkspaceEra) -> VersionRange:
    """What can serve a workspace of `era`. Never 0.8.0-0.9.2: they load it without reading its weights."""
    if era.served_until is None:
        reason = (
            "0.8.0-0.9.2 write and load workspaces without ever reading the weights, and answer garbage without an "
            "error; 0.10.0 and later refuse them"
        )
        return VersionRange(None, None, None, None, reason)
    oldest, newest = era.made_by
    reason = (
        "the last LMDeploy that reads a workspace is 0.7.3 (0.8.0-0.9.2 load it without its weights and answer "
        f"garbage, later ones refuse it), and one of {oldest} or later fits this configuration until {era.served_until}"
    )
    return VersionRange(oldest, era.served_until, newest, "turbomind", reason)


def versions_for_huggingface(architecture: str, weight_format: str) -> VersionRange:
    """What can serve a Hugging Face directory: where the ranges of its architecture and its weight format meet."""
    model, weights = ARCHITECTURES.get(architecture), WEIGHT_FORMATS[weight_format]
    if model is None:
        return VersionRange(None, None, None, None, f"{architecture} is not in the table of supported architectures")
    engines: tuple[LmdeployEngine, ...] = ("turbomind", "pytorch")
    for engine in engines:
        by_model, by_weights = getattr(model, engine), getattr(weights, engine)
        if not by_model or not by_weights:
            continue
        first = max(by_model[0], by_weights[0], key=age)
        last = min(by_model[1], by_weights[1], key=age)
        if age(first) <= age(last):
            weights_name = "unquantized weights" if weight_format == "none" else weight_format
            engine_name = {"turbomind": "TurboMind", "pytorch": "the PyTorch engine"}[engine]
            reason = f"{engine_name} serves {architecture} {_span(by_model)} and {weights_name} {_span(by_weights)}"
            return VersionRange(first, last, last, engine, reason)
    reason = f"no engine of LMDeploy serves {architecture} with {weight_format} weights"
    return VersionRange(None, None, None, None, reason)


def _span(borders: tuple[str, str]) -> str:
    first, last = borders
    return f"from {first}" if last == NEWEST else f"from {first} to {last}"


@dataclass(frozen=True, slots=True)
class _Flag:
    first: str
    last: str


# Of `lmdeploy serve api_server`: only what deploytk passes. Up to 0.1.0 the command line is python-fire
# and takes nothing about the engine but `--tp`: the rest is read from config.ini.
_FLAGS = {
    "--server-name": _Flag("0.2.0", NEWEST),
    "--server-port": _Flag("0.2.0", NEWEST),
    "--server_name": _Flag("0.0.10", "0.1.0"),
    "--server_port": _Flag("0.0.10", "0.1.0"),
    "--tp": _Flag("0.0.10", NEWEST),
    "--backend": _Flag("0.2.0", NEWEST),
    "--model-name": _Flag("0.6.0", NEWEST),  # before, it chose the chat template
    "--model-format": _Flag("0.2.0", NEWEST),
    "--session-len": _Flag("0.2.0", NEWEST),
    "--max-batch-size": _Flag("0.2.0", NEWEST),
    "--cache-max-entry-count": _Flag("0.2.0", NEWEST),
    "--quant-policy": _Flag("0.2.0", NEWEST),
    "--max-prefill-token-num": _Flag("0.6.0", NEWEST),
    "--trust-remote-code": _Flag("0.13.0", NEWEST),
}


def has_flag(version: str, flag: str) -> bool:
    """Whether the API server of `version` takes `flag`."""
    known = _FLAGS[flag]
    return age(known.first) <= age(version) <= age(known.last)


def quant_policy(version: str, kv_policy: Literal["none", "int8", "int4"]) -> int | None:
    """The number that means `kv_policy` in `version`, None where that version has no such policy.

    4 was int8 up to 0.3.0 and is int4 from 0.4.0: llama_utils.h, kCacheKVInt8 and kCacheKVInt4.
    """
    if kv_policy == "none":
        return 0
    if age(version) <= age("0.3.0"):
        return 4 if kv_policy == "int8" else None
    return {"int8": 8, "int4": 4}[kv_policy]


def stored_kv_policy(era: WorkspaceEra, number: int) -> Literal["none", "int8", "int4"] | None:
    """What the `quant_policy` in a config.ini of `era` means, None when nothing."""
    policies: tuple[Literal["none", "int8", "int4"], ...] = ("none", "int8", "int4")
    return next((policy for policy in policies if quant_policy(era.made_by[1], policy) == number), None)


PoolMeaning = Literal["sequences", "of_total", "of_free"]


def pool_meaning(version: str) -> PoolMeaning:
    """What `cache_max_entry_count` counts: whole sequences, or a fraction of the GPU's total or free memory."""
    if age(version) <= age("0.0.14"):
        return "sequences"
    return "of_total" if age(version) <= age("0.2.1") else "of_free"


def default_pool(version: str) -> float:
    """The default of `cache_max_entry_count`."""
    return {"sequences": 48.0, "of_total": 0.5, "of_free": 0.8}[pool_meaning(version)]


def block_tokens(version: str) -> int:
    """Tokens per block of the KV cache; 1 where there are no blocks (0.0.x)."""
    if pool_meaning(version) == "sequences":
        return 1
    return 128 if age(version) < age("0.3.0") else 64
