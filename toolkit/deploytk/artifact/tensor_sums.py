"""How many bytes of a model are what: matrices, scales, vocabulary, towers, and what no engine loads."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Literal

from deploytk.artifact.tensors import TensorGroup, Tensors, parameters_of


@dataclass(frozen=True, slots=True)
class FeedForward:
    """The matrices that lead back from so many inner columns: TurboMind pads these when it splits them."""

    inner: int  # columns
    parameters: int  # of all of them


@dataclass(frozen=True, slots=True)
class TensorSums:
    """Bytes of one copy of each part on a GPU; what is not quantized counts two bytes per number."""

    linear_bytes: int = 0  # matrices of the language model, quantized or not, without their scales
    scale_bytes: int = 0  # scales and zero points of quantized matrices, as in the files
    scales: int = 0  # how many scales: TurboMind stores each with its zero point in 4 bytes
    vector_bytes: int = 0  # norms, biases, sinks
    embedding_bytes: int = 0
    head_bytes: int = 0  # 0 where the embedding is the head
    tower_bytes: int = 0  # vision, audio and projectors
    unloaded_bytes: int = 0  # layers for speculative decoding, speech generators, buffers
    feed_forward: tuple[FeedForward, ...] = ()  # where the tensors tell, by their inner columns

    @property
    def loaded_bytes(self) -> int:
        """What is loaded once."""
        return (
            self.linear_bytes
            + self.scale_bytes
            + self.vector_bytes
            + self.embedding_bytes
            + self.head_bytes
            + self.tower_bytes
        )


Role = Literal["linear", "scale", "vector", "embedding", "head", "tower", "unloaded"]

_PART = r"(?:^|\.)(?:{})(?:\.|$)"
_UNLOADED = re.compile(
    _PART.format("talker|token2wav|code2wav|mtp|mtp_layers|inv_freq|masked_bias|g_idx|weight_shape|rotary_emb")
)
_TOWER = re.compile(
    _PART.format(
        "vision_model|vision_tower|visual|vision|vision_encoder|vision_embed_tokens|vit|vpm|resampler|mlp1|"
        "multi_modal_projector|mm_projector|vision_proj|vision_projection|aligner|connector|projector|perceiver|"
        "audio_tower|audio_model|audio_encoder|audio_projector|audio_projection_layer|apm|tts|whisper|"
        "img_processor|img_projection|image_newline|view_seperator|embed_vision|embed_audio|model_vision|"
        "time_series|sam_model|qformer|query_tokens|language_projection|vision_backbone"
    )
)
_EMBEDDING = re.compile(r"(?:^|\.)(?:embed_tokens|tok_embeddings|wte|word_embeddings|embed_in|embed)\.weight$")
_HEAD = re.compile(r"(?:^|\.)(?:lm_head|output|output_layer|embed_out|head)\.weight$")

_DOWN = re.compile(r"(?:^|\.)(?:down_proj|w2|dense_4h_to_h|ff_out|mlp\.c_proj)(?:\.|_blocks|$)")

_SCALES = (
    ".scales",
    ".weight_scale",
    "_weight_scale",
    ".weight_scale_inv",
    "_scale_inv",
    "_scales",
    ".scale",
    "_scale",
)
_ZEROS = (".qzeros", ".weight_zero_point", ".zeros")
_PACKED = ("I8", "U8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F4", "F6_E2M3", "F6_E3M2", "I32", "U32")


def role_of(group: TensorGroup) -> Role:
    """What an engine takes the tensors of a group for; their names and shapes tell."""
    name = group.pattern
    if _UNLOADED.search(name):
        return "unloaded"
    if _TOWER.search(name):
        return "tower"
    if group.is_beyond:
        return "unloaded"
    if name.endswith((*_SCALES, *_ZEROS)):
        return "scale"
    if "#" not in name and len(group.shape) == 2:
        if _EMBEDDING.search(name):
            return "embedding"
        if _HEAD.search(name):
            return "head"
    is_bias = name.endswith(("bias", "_b"))
    return "linear" if len(group.shape) > 1 and not is_bias else "vector"


def bytes_of(group: TensorGroup, role: Role) -> int:
    """Of one tensor of the group on a GPU: what is not packed is held in 16 bits, whatever the file has."""
    is_stored = role in ("scale", "unloaded") or group.dtype in _PACKED
    return group.bytes if is_stored else group.elements * 2


def sum_up(tensors: Tensors, hidden_size: int) -> TensorSums:
    """The bytes of each part of a model."""
    sums = {name: value for name, value in asdict(TensorSums()).items() if isinstance(value, int)}
    for group, count in tensors:
        role = role_of(group)
        sums[f"{role}_bytes"] += count * bytes_of(group, role)
        if role == "scale" and group.pattern.endswith(_SCALES):
            sums["scales"] += count * group.elements
    return TensorSums(**sums, feed_forward=_feed_forward(tensors, hidden_size))


def _feed_forward(tensors: Tensors, hidden_size: int) -> tuple[FeedForward, ...]:
    found: Counter[int] = Counter()
    for group, count in tensors:
        if _DOWN.search(group.pattern) and role_of(group) == "linear":
            experts = group.shape[0] if len(group.shape) > 2 else 1
            found[parameters_of(group) // experts // hidden_size] += count * parameters_of(group)
    return tuple(FeedForward(inner, parameters) for inner, parameters in sorted(found.items()) if inner)
