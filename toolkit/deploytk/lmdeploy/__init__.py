"""What each LMDeploy version can serve and which flags its API server takes: one table.

Sources: LMDeploy's own tags (`turbomind/supported_models.py`, `pytorch/models/module_map.py`, `cli/serve.py`,
`turbomind/deploy/`), read at every border named here. 0.17.0 and 0.18.0 are wheels without a tag: 0.18.0 was run.
"""

from deploytk.lmdeploy.architectures import ARCHITECTURES, WEIGHT_FORMATS, compatibility, versions_for_huggingface
from deploytk.lmdeploy.facts import NOT_QUANTIZED, ModelFacts, QuantizationFacts
from deploytk.lmdeploy.flags import (
    PoolMeaning,
    block_tokens,
    default_pool,
    has_flag,
    has_kernels,
    pool_meaning,
    quant_policy,
    smallest_capability_for_4_bits,
)
from deploytk.lmdeploy.overhead import overhead_rows
from deploytk.lmdeploy.support import support
from deploytk.lmdeploy.versions import AFTER_WORKSPACES, NEWEST, VERSIONS, LmdeployEngine, VersionRange, age
from deploytk.lmdeploy.workspaces import (
    WORKSPACE_ERAS,
    WorkspaceEra,
    recognise_era,
    stored_kv_policy,
    versions_for_workspace,
)

__all__ = [
    "AFTER_WORKSPACES",
    "ARCHITECTURES",
    "NEWEST",
    "NOT_QUANTIZED",
    "VERSIONS",
    "WEIGHT_FORMATS",
    "WORKSPACE_ERAS",
    "LmdeployEngine",
    "ModelFacts",
    "PoolMeaning",
    "QuantizationFacts",
    "VersionRange",
    "WorkspaceEra",
    "age",
    "block_tokens",
    "compatibility",
    "default_pool",
    "has_flag",
    "has_kernels",
    "overhead_rows",
    "pool_meaning",
    "quant_policy",
    "recognise_era",
    "smallest_capability_for_4_bits",
    "stored_kv_policy",
    "support",
    "versions_for_huggingface",
    "versions_for_workspace",
]
