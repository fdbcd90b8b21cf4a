"""Rotary position embeddings, as a configuration describes them."""

from __future__ import annotations

from typing import Any

from deploytk.artifact.text_formats import Reader
from deploytk.artifact.value import Rope


def read_rope(config: Reader, architecture: str, head_dim: int) -> Rope:
    stated: dict[str, Any] = {}
    for key in ("rope_scaling", "rope_parameters"):
        part = config.values.get(key)
        if isinstance(part, dict):
            # Models with sliding windows have one set of parameters for each kind of layer.
            full = part.get("full_attention")
            stated |= full if isinstance(full, dict) else part
    rope = Reader(config.path, {**config.values, **stated})
    theta = rope.real("rope_theta", rope.real("rotary_emb_base", 10000 * rope.real("rope_ratio", 1)))
    rotated = rope.real("partial_rotary_factor", 0.5 if architecture == "ChatGLMModel" else 1)
    dim = max(1, int(head_dim * min(rotated, 1)))
    kind = rope.name("rope_type") or rope.name("type")
    if not stated or kind in ("", "default"):
        return Rope(theta, dim, ())
    other = ("rope_theta", "rope_type", "type", "partial_rotary_factor")
    values = [(key, value) for key, value in stated.items() if isinstance(value, (int, float, str))]
    return Rope(theta, dim, (("rope_type", kind), *(item for item in values if item[0] not in other)))
