"""The one place that knows LMDeploy's versions: what each serves, which flags it takes, what changed when.

What each serves is read from LMDeploy's own sources (support.json, written by `tools/read_lmdeploy`); the rest is
written down with its source beside it. Nobody else compares versions.
"""

from deploytk.lmdeploy.advisories import Advisory, Need, advisories, advisories_in, advisories_of
from deploytk.lmdeploy.api import (
    REASONING_PARSERS,
    api_features,
    brings_tool_parser,
    forces_tool_calls,
    reasoning_parsers,
    tool_call_parser,
)
from deploytk.lmdeploy.chat_templates import chat_template_names
from deploytk.lmdeploy.compatibility import compatibility, models_page
from deploytk.lmdeploy.facts import NOT_QUANTIZED, ModelFacts, QuantizationFacts
from deploytk.lmdeploy.features import (
    FIRST_WITHOUT_WORKSPACES,
    NEWEST_FOR_PYTHON_3_9,
    allocates_pool_in_slabs,
    asks_before_remote_code,
    folds_latent_attention,
    goes_with_gradio_6,
    has_static_int8,
    has_wheel_for_python_3_9,
    legacy_base,
    packs_sparse_attention,
    pads_feed_forward,
    pads_feed_forward_for_kernels,
    reads_context_fmha,
    registers_windows,
    smallest_capability_for_fp8,
    splits_vocabulary,
    wants_spare_block,
)
from deploytk.lmdeploy.flags import (
    PoolMeaning,
    block_tokens,
    default_pool,
    flags_replace_ini,
    has_flag,
    has_kernels,
    pool_meaning,
    quant_policy,
    smallest_capability_for_4_bits,
)
from deploytk.lmdeploy.installed import installed_version
from deploytk.lmdeploy.overhead import is_overhead_measured, overhead_rows
from deploytk.lmdeploy.support import OWN_ARCHITECTURE, knows, support
from deploytk.lmdeploy.versions import NEWEST, VERSIONS, LmdeployEngine, VersionRange, release_index
from deploytk.lmdeploy.workspaces import (
    WORKSPACE_ERAS,
    RopeMeaning,
    WorkspaceEra,
    recognise_era,
    stored_kv_policy,
    versions_for_workspace,
)

__all__ = [
    "FIRST_WITHOUT_WORKSPACES",
    "NEWEST",
    "NEWEST_FOR_PYTHON_3_9",
    "NOT_QUANTIZED",
    "OWN_ARCHITECTURE",
    "REASONING_PARSERS",
    "VERSIONS",
    "WORKSPACE_ERAS",
    "Advisory",
    "LmdeployEngine",
    "ModelFacts",
    "Need",
    "PoolMeaning",
    "QuantizationFacts",
    "RopeMeaning",
    "VersionRange",
    "WorkspaceEra",
    "advisories",
    "advisories_in",
    "advisories_of",
    "allocates_pool_in_slabs",
    "api_features",
    "asks_before_remote_code",
    "block_tokens",
    "brings_tool_parser",
    "chat_template_names",
    "compatibility",
    "default_pool",
    "flags_replace_ini",
    "folds_latent_attention",
    "forces_tool_calls",
    "goes_with_gradio_6",
    "has_flag",
    "has_kernels",
    "has_static_int8",
    "has_wheel_for_python_3_9",
    "installed_version",
    "is_overhead_measured",
    "knows",
    "legacy_base",
    "models_page",
    "overhead_rows",
    "packs_sparse_attention",
    "pads_feed_forward",
    "pads_feed_forward_for_kernels",
    "pool_meaning",
    "quant_policy",
    "reads_context_fmha",
    "reasoning_parsers",
    "recognise_era",
    "registers_windows",
    "release_index",
    "smallest_capability_for_4_bits",
    "smallest_capability_for_fp8",
    "splits_vocabulary",
    "stored_kv_policy",
    "support",
    "tool_call_parser",
    "versions_for_workspace",
    "wants_spare_block",
]
