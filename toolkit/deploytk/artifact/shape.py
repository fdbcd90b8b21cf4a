"""The sizes of a language model, from its configuration."""

from __future__ import annotations

from dataclasses import dataclass

from deploytk.artifact.attention import Attention, read_attention
from deploytk.artifact.configuration import Configuration
from deploytk.artifact.text_formats import Reader

# Where LMDeploy looks for the longest session: `_get_and_verify_max_len`, lmdeploy/utils.py.
_SESSION_KEYS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "model_max_length",
    "max_sequence_length",
    "max_seq_length",
    "seq_len",
)

# These expand the latent vector before they cache it: pytorch/configurations/minicpm3.py, LMDeploy 0.18.0.
_EXPANDED = ("MiniCPM3ForCausalLM",)


@dataclass(frozen=True, slots=True)
class Shape:
    """The language model's sizes."""

    layers: int
    hidden_size: int
    intermediate_size: int
    heads: int
    kv_heads: int  # that are cached: 1 for latent attention
    head_dim: int  # of a key: rank and rotated part together for latent attention
    vocab_size: int
    session_len: int
    attention: Attention


def read_shape(configuration: Configuration) -> Shape:
    """The shape of the language model; ArtifactError for a size that is missing or no size."""
    config = configuration.text
    layers, hidden = config.whole("num_hidden_layers", largest=10_000), config.whole("hidden_size")
    heads = config.whole("num_attention_heads")
    attention = read_attention(config, layers)
    kv_heads, head_dim = config.whole("num_key_value_heads", heads), config.whole("head_dim", max(1, hidden // heads))
    if attention.latent and configuration.architecture in _EXPANDED:
        head_dim = max(1, attention.latent.nope_dim + attention.latent.rope_dim)
    elif attention.latent:
        kv_heads, head_dim = 1, attention.latent.rank + attention.latent.rope_dim
    sessions = [config.whole(key) for key in _SESSION_KEYS if config.has(key)]
    return Shape(
        layers=layers,
        hidden_size=hidden,
        intermediate_size=_intermediate_size(configuration),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocab_size=config.whole("vocab_size"),
        session_len=min(sessions, default=2048),
        attention=attention,
    )


def _intermediate_size(configuration: Configuration) -> int:
    config = configuration.text
    for key in ("intermediate_size", "moe_intermediate_size"):
        if config.has(key):
            each = config.values[key]
            if isinstance(each, list) and each:  # one for every layer, as gemma-3n has
                return max(Reader(config.path, {key: size}).whole(key) for size in each)
            size = config.whole(key)
            return size // 2 if configuration.architecture == "QWenLMHeadModel" else size  # both its halves together
    return 4 * config.whole("hidden_size")  # GPT-2 and Falcon
