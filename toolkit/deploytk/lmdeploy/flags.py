"""What the API server of each LMDeploy version takes, and what its values mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from deploytk.lmdeploy.versions import NEWEST, release_index


@dataclass(frozen=True, slots=True)
class _Flag:
    first: str
    last: str


# Of `lmdeploy serve api_server`: what deploytk or its users pass. Up to 0.1.0 the command line is python-fire
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
    "--rope-scaling-factor": _Flag("0.2.0", NEWEST),
    "--quant-policy": _Flag("0.2.0", NEWEST),
    "--max-prefill-token-num": _Flag("0.6.0", NEWEST),
    "--trust-remote-code": _Flag("0.13.0", NEWEST),
    "--chat-template": _Flag("0.2.6", NEWEST),
    "--log-level": _Flag("0.2.0", NEWEST),
    "--dtype": _Flag("0.6.1", NEWEST),
    "--enable-metrics": _Flag("0.9.2", "0.10.2"),
    "--disable-metrics": _Flag("0.11.0", NEWEST),
    "--generation-config": _Flag("0.15.0", NEWEST),
    "--tool-call-parser": _Flag("0.7.2", NEWEST),
    "--reasoning-parser": _Flag("0.7.2", NEWEST),
}


def has_flag(version: str, flag: str) -> bool:
    """Whether the API server of `version` takes `flag`."""
    known = _FLAGS[flag]
    return release_index(known.first) <= release_index(version) <= release_index(known.last)


def flags_replace_ini(version: str) -> bool:
    """Whether the API server of `version` puts its flags, also those left out, in the place of what config.ini says.

    0.6.0 and later leave what is not given as the workspace has it, and have no config.ini.
    Source: `_update_tm_config` of v0.2.0 and v0.4.2, `update_from_engine_config` of v0.5.3 and v0.6.1.
    """
    return release_index("0.2.0") <= release_index(version) < release_index("0.6.0")


def quant_policy(version: str, kv_policy: Literal["none", "int8", "int4"]) -> int | None:
    """The number that means `kv_policy` in `version`, None where that version has no such policy.

    4 was int8 up to 0.3.0 and is int4 from 0.4.0: llama_utils.h, kCacheKVInt8 and kCacheKVInt4.
    """
    if kv_policy == "none":
        return 0
    if release_index(version) <= release_index("0.3.0"):
        return 4 if kv_policy == "int8" else None
    return {"int8": 8, "int4": 4}[kv_policy]


PoolMeaning = Literal["sequences", "of_total", "of_free"]


def pool_meaning(version: str) -> PoolMeaning:
    """What `cache_max_entry_count` counts: whole sequences, or a fraction of the GPU's total or free memory."""
    if release_index(version) <= release_index("0.0.14"):
        return "sequences"
    return "of_total" if release_index(version) <= release_index("0.2.1") else "of_free"


def default_pool(version: str) -> float:
    """The default of `cache_max_entry_count`."""
    return {"sequences": 48.0, "of_total": 0.5, "of_free": 0.8}[pool_meaning(version)]


def block_tokens(version: str) -> int:
    """Tokens per block of the KV cache; 1 where there are no blocks (0.0.x)."""
    if pool_meaning(version) == "sequences":
        return 1
    return 128 if release_index(version) < release_index("0.3.0") else 64


# Compute capabilities whose kernels are in the wheels: CMAKE_CUDA_ARCHITECTURES of each tag. A kernel runs on later
# minors of its major. Up to 0.3.0 wheels also hold PTX, which newer GPUs compile at the first start.
_KERNELS = (("0.0.10", (7, 8)), ("0.4.0", (7, 8, 9)), ("0.13.0", (7, 8, 9, 10, 12)))


def has_kernels(version: str, capability: float) -> bool:
    """Whether the wheels of `version` hold kernels for a GPU of that compute capability."""
    majors = next(majors for first, majors in reversed(_KERNELS) if release_index(first) <= release_index(version))
    return int(capability) in majors


def smallest_capability_for_4_bits(version: str) -> float:
    """What 4-bit weights need. Source: docs/en/quantization/w4a16.md of each tag."""
    if release_index(version) >= release_index("0.6.0"):
        return 7.0
    return 7.5 if release_index(version) >= release_index("0.2.0") else 8.0
