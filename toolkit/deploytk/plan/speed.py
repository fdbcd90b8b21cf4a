"""How fast a GPU can decode at most: every token reads all weights, and the keys and values before it."""

from __future__ import annotations

from dataclasses import dataclass

from deploytk import lmdeploy
from deploytk.artifact import Artifact
from deploytk.plan.memory import Memory

_GB = 10**9


@dataclass(frozen=True, slots=True)
class DecodeBound:
    """A bound, not a prediction: what the memory's published bandwidth allows one stream, with nothing else to do."""

    tokens_per_s: float  # at the start of a conversation
    full_session_tokens_per_s: float  # at its end, where the whole session's keys and values are read as well
    read_bytes: int  # for one token, on one GPU: weights, and the state of linear attention
    kv_bytes_per_token: int
    bandwidth_gb_s: int  # of one GPU

    def at(self, tokens: float) -> float:
        """Tokens per second after so many tokens of a conversation."""
        return self.bandwidth_gb_s * _GB / (self.read_bytes + self.kv_bytes_per_token * tokens)


def decode_bound(
    artifact: Artifact, memory: Memory, engine: lmdeploy.LmdeployEngine, ranks: int, session_len: int
) -> DecodeBound | None:
    """The bound of one stream; None without a known bandwidth, and where a token reads only some of what there is.

    That is so with experts and with sliding windows. What GPUs tell each other is left out.
    """
    bandwidth = memory.gpu.bandwidth_gb_s if memory.gpu else None
    if bandwidth is None or artifact.has_experts or _has_window(artifact):
        return None
    not_read = _not_read_bytes(artifact, memory.version, engine, ranks)
    read = max(1, memory.weights_bytes - not_read + memory.sequence_bytes)
    kv = memory.token_bytes
    whole = bandwidth * _GB
    return DecodeBound(whole / read, whole / (read + kv * session_len), read, kv, bandwidth)


def _not_read_bytes(artifact: Artifact, version: str, engine: lmdeploy.LmdeployEngine, ranks: int) -> int:
    """Towers, and of the embedding all but one row; a tied one that is stored once is read as the head."""
    sums = artifact.tensors
    embedding = sums.embedding_bytes
    if engine == "pytorch" and artifact.tied_embeddings:
        embedding = 0
    if engine == "turbomind" and lmdeploy.splits_vocabulary(version):
        embedding //= ranks
    return sums.tower_bytes + embedding


def _has_window(artifact: Artifact) -> bool:
    return artifact.facts is not None and artifact.facts.sliding_window is not None
