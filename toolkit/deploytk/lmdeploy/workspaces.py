"""Which LMDeploy wrote a workspace, and which can still serve it."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import Literal

from deploytk.lmdeploy.flags import quant_policy
from deploytk.lmdeploy.versions import VersionRange, release_index

RopeMeaning = Literal["dynamic by powers of two", "dynamic by factor", "dynamic by flag", "by type"]
"""What switches the scaling of positions on: `use_dynamic_ntk` alone; `rope_scaling_factor` alone; the flag, and
without it the factor is linear; the flag, and without it `rope_scaling_type` says what it is."""

_LAST_WITH_SCALING = {("dynamic by factor", "dynamic"): "0.2.6", ("dynamic by flag", "linear"): "0.5.1"}
"""By era and what it scales by: later versions read the same keys and scale otherwise, or not at all."""


@dataclass(frozen=True, slots=True)
class WorkspaceEra:
    """The LMDeploy versions whose `convert` wrote the same kind of workspace, recognised by its configuration."""

    made_by: tuple[str, str]  # oldest and newest
    config_format: Literal["ini", "yaml"]
    has: frozenset[str]  # keys that are there
    lacks: frozenset[str]  # keys that came later or had gone
    tokenizer_at_root: bool | None  # None: not a mark of this era
    served_until: str | None  # the newest version that reads it; None when none does
    rope: RopeMeaning

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
    return WorkspaceEra((oldest, newest), config_format, *marks, tokenizer_at_root, served_until, _rope_meaning(oldest))


def _rope_meaning(version: str) -> RopeMeaning:
    borders: tuple[tuple[str, RopeMeaning], ...] = (
        ("0.1.0", "dynamic by powers of two"),
        ("0.3.0", "dynamic by factor"),
        ("0.5.2", "dynamic by flag"),
    )
    return next((meaning for border, meaning in borders if release_index(version) < release_index(border)), "by type")


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


def versions_for_workspace(era: WorkspaceEra, rope_type: str = "") -> VersionRange:
    """What can serve a workspace of `era` whose positions are scaled as `rope_type` says ("" when they are not).

    Never 0.8.0-0.9.2: they load it without reading its weights.
    """
    if era.served_until is None:
        reason = (
            "0.8.0-0.9.2 write and load workspaces without ever reading the weights, and answer garbage without an "
            "error; 0.10.0 and later refuse them"
        )
        return VersionRange(None, None, None, None, reason)
    oldest, newest = era.made_by
    served_until = min(
        era.served_until, _LAST_WITH_SCALING.get((era.rope, rope_type), era.served_until), key=release_index
    )
    fitting = f"{oldest} alone fits" if oldest == served_until else f"those from {oldest} to {served_until} fit"
    reason = (
        "the last LMDeploy that reads a workspace is 0.7.3 (0.8.0-0.9.2 load it without its weights and answer "
        f"garbage, later ones refuse it); {fitting} this configuration"
    )
    return VersionRange(oldest, served_until, newest, "turbomind", reason)


def stored_kv_policy(era: WorkspaceEra, number: int) -> Literal["none", "int8", "int4"] | None:
    """What the `quant_policy` in a config.ini of `era` means, None when nothing."""
    policies: tuple[Literal["none", "int8", "int4"], ...] = ("none", "int8", "int4")
    return next((policy for policy in policies if quant_policy(era.made_by[1], policy) == number), None)
