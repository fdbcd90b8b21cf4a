"""How a workspace turns positions into angles: the same keys meant different things to different LMDeploys.

Source: src/turbomind/models/llama/{LlamaBatch,unified_attention_layer}.cc and kernels/ at v0.0.14, v0.1.0, v0.2.6,
v0.3.0, v0.4.2, v0.5.3, v0.6.3, v0.7.3; turbomind/deploy/config.py, `RopeParam`, of v0.8.0 to v0.9.2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from deploytk import lmdeploy
from deploytk.artifact.text_formats import Reader
from deploytk.artifact.value import Artifact, Problem, Rope
from deploytk.base.digits import whole_number

_LLAMA3 = ("low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
_YARN = ("beta_fast", "beta_slow")


def read_rope(config: Reader, attention: Reader, era: lmdeploy.WorkspaceEra) -> Rope:
    """The rotary embedding as the LMDeploy versions of `era` compute it, in the words of transformers."""
    head_dim = config.whole("size_per_head", 128)
    parameters = attention.values.get("rope_param")
    if isinstance(parameters, dict):  # 0.8.0 and later
        nested = Reader(attention.path, parameters)
        theta, dim = nested.real("base", 10000), nested.whole("dim", head_dim)
        return Rope(theta, dim, tuple(_nested(nested, attention).items()))
    theta, dim = attention.real("rope_theta", 10000), attention.whole("rotary_embedding", head_dim)
    return Rope(theta, dim, tuple(_flat(attention, era).items()))


def _nested(rope: Reader, attention: Reader) -> dict[str, str | float]:
    kind = rope.name("type", "default")
    if kind in ("", "default"):
        return {}
    scaling: dict[str, str | float] = {"rope_type": kind}
    keys = {"llama3": _LLAMA3, "yarn": (*_YARN, "attention_factor")}.get(kind, ())
    scaling |= {key: rope.real(key, 0) for key in ("factor", *keys) if rope.has(key)}
    before = rope.whole("max_position_embeddings", 0, smallest=0) if rope.has("max_position_embeddings") else 0
    if kind == "yarn" and before != attention.whole("max_position_embeddings", 0, smallest=0):
        scaling["original_max_position_embeddings"] = float(before)
    return scaling


def _flat(attention: Reader, era: lmdeploy.WorkspaceEra) -> dict[str, str | float]:
    factor = attention.real("rope_scaling_factor", 0)
    is_dynamic = attention.flag("use_dynamic_ntk")
    meaning = era.rope
    if meaning == "dynamic by powers of two":
        # Their base at 2, 4, ... times the positions is that of a factor of 2; in between it stays what it is next.
        return {"rope_type": "dynamic", "factor": 2.0} if is_dynamic else {}
    if meaning == "dynamic by factor":
        is_dynamic = True
    if is_dynamic:
        return {"rope_type": "dynamic", "factor": factor} if factor >= 1 else {}
    kind = attention.name("rope_scaling_type") if meaning == "by type" else "linear"
    if not factor or kind in ("", "default", "dynamic"):  # dynamic is what the flag above switches on
        return {}
    keys = {"llama3": _LLAMA3, "yarn": _YARN}.get(kind, ())
    scaling: dict[str, str | float] = {"rope_type": kind, "factor": factor}
    scaling |= {key: attention.real(key, 1) for key in keys}
    stated = attention.values.get("attention_factor")
    if kind == "yarn" and isinstance(stated, (int, float)) and stated > 0:  # -1: worked out from the factor
        scaling["attention_factor"] = float(stated)
    return scaling


def uses_logn(config: Mapping[str, object]) -> bool:
    """Whether queries beyond the positions that the model was made for are scaled by a logarithm."""
    return str(config.get("use_logn_attn", "0")).lower() in ("1", "true")


def positions(config: Mapping[str, object]) -> int:
    """The positions that a workspace's model was made for, 0 where its configuration does not say."""
    return whole_number(str(config.get("max_position_embeddings"))) or 0


def logn_beyond(artifact: Artifact) -> int | None:
    """The tokens up to which `use_logn_attn` changes nothing, None where it is off or no session is that long."""
    limit = positions(artifact.config)
    is_felt = artifact.layout == "workspace" and uses_logn(artifact.config) and artifact.session_len > limit
    return limit if is_felt else None


def rope_problems(config: Mapping[str, object], rope: Rope, era: lmdeploy.WorkspaceEra) -> Iterator[Problem]:
    """What long conversations with this workspace run into."""
    kind = dict(rope.scaling).get("rope_type")
    if (kind == "dynamic" or uses_logn(config)) and not positions(config):
        yield Problem(
            "warning",
            "max_position_embeddings is 0: every text is longer than that, so scaling by it answers garbage",
            "set it to the positions of the original model, 2048 or 4096 for most",
        )
    if era.rope == "dynamic by powers of two" and kind == "dynamic":
        yield Problem(
            "info",
            "LMDeploy 0.0.x scales by powers of two beyond max_position_embeddings: written as dynamic with factor 2",
            "both agree at 2, 4, ... times as many tokens; in between answers may differ",
        )
