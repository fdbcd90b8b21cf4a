"""Where config.json and the weights disagree."""

from __future__ import annotations

import re
from collections.abc import Iterator

from deploytk.artifact.configuration import Configuration
from deploytk.artifact.shape import Shape
from deploytk.artifact.tensor_sums import role_of
from deploytk.artifact.tensors import Tensors, shape_in_words
from deploytk.artifact.value import Problem

_HINT = "take config.json and the weights from one model"

# Every layer of a language model has one of these.
_NORM = re.compile(r"layers\.#\.(?:input_layernorm|attention_norm)\.weight$|\.h\.#\.ln_1\.weight$")

# Cross-attention models keep eight rows for images after those of the vocabulary.
_SURPLUS_ROWS = {"mllama": 8}


def shape_problems(shape: Shape, tensors: Tensors, configuration: Configuration) -> Iterator[Problem]:
    """Sizes of the embedding and the projections, and how many layers there are."""
    text = [group for group, _ in tensors if role_of(group) != "tower"]
    for name, expected in _expected(shape, configuration).items():
        for group in text:
            if group.pattern.endswith(name) and not group.is_beyond and group.shape not in expected:
                found, wanted = shape_in_words(group.shape), shape_in_words(expected[0])
                message = f"{group.pattern} has shape {found}, {wanted} expected from config.json"
                yield Problem("error", message, _HINT)
    counts = [(group, count) for group, count in tensors if role_of(group) != "tower" and _NORM.search(group.pattern)]
    layers = sum(count for group, count in counts if not group.is_beyond)
    beyond = sum(count for group, count in counts if group.is_beyond)
    # DeepSeek-V3 and GLM-4.5 keep layers for speculative decoding after the others.
    surplus = configuration.text.values.get("num_nextn_predict_layers")
    most = surplus if isinstance(surplus, int) else 0
    if counts and (layers != shape.layers or beyond > most):
        message = f"the weights have {layers + beyond} layers, {shape.layers} expected from config.json"
        yield Problem("error", message, _HINT)


def _expected(shape: Shape, configuration: Configuration) -> dict[str, tuple[tuple[int, ...], ...]]:
    """The end of a name -> the shapes that it may have."""
    hidden = shape.hidden_size
    rows = shape.vocab_size + _SURPLUS_ROWS.get(configuration.model_type, 0)
    vocabulary = ((shape.vocab_size, hidden), (rows, hidden))
    expected: dict[str, tuple[tuple[int, ...], ...]] = {"embed_tokens.weight": vocabulary}
    if shape.attention.latent or "per_layer_config" in configuration.text.values:
        return expected
    keys = shape.kv_heads * shape.head_dim
    stem = "layers.#.self_attn.k_proj"
    return expected | {
        f"{stem}.weight": ((keys, hidden),),
        f"{stem}.qweight": ((hidden, keys // 8), (hidden // 8, keys)),
    }
