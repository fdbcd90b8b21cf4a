"""What a running server takes besides weights and KV pool, as a sum of named terms."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from deploytk import lmdeploy
from deploytk.artifact import Artifact
from deploytk.hardware.catalogue import MIB, Gpu

_PAGES_BYTES = 64 * MIB  # two of those that CUDA's memory pool grows by: the peak is never promised too low


@dataclass(frozen=True, slots=True)
class OverheadTerms:
    """Bytes on one GPU; lmdeploy/overhead.yaml says what each is and where it comes from."""

    context_bytes: int = 0
    ranks_bytes: int = 0
    unpacking_bytes: int = 0
    gaps_bytes: int = 0
    vocabulary_bytes: int = 0
    warm_up_bytes: int = 0
    activations_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        return sum(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True, slots=True)
class Overhead:
    """The overhead of one model in one LMDeploy version, for any number of tokens in one step."""

    before_pool: OverheadTerms  # what is there when the KV pool is sized
    warm_up_bytes: int
    token_bytes: float  # activations of one token of a step
    loading_bytes: int  # above the weights while they load, at most
    gpus: tuple[str, ...]  # where it was measured, by their names
    version: str  # that was measured
    source: str

    def terms(self, tokens: int) -> OverheadTerms:
        """Once the server answers that has had steps of `tokens` tokens."""
        known = {field.name: getattr(self.before_pool, field.name) for field in fields(OverheadTerms)}
        return OverheadTerms(
            **known | {"warm_up_bytes": self.warm_up_bytes, "activations_bytes": int(tokens * self.token_bytes)}
        )

    def is_measured_on(self, gpu: Gpu) -> bool:
        return any(gpu.name.startswith(name) for name in self.gpus)


def find_overhead(version: str, artifact: Artifact, ranks: int) -> Overhead:
    """What was measured for that LMDeploy version and number of bits, for a model of that shape on `ranks` GPUs."""
    row = _row(version, artifact)
    inner = _inner_columns(artifact) // ranks
    largest = 2 * artifact.hidden_size * inner  # numbers of gate and up of one layer, on one GPU
    vocabulary = 2 * artifact.vocab_size * artifact.hidden_size
    bits = min(row["bits"], 16)
    copies = row.get("loading", 0) - (1 if artifact.tied_embeddings and row.get("loading", 0) == 2 else 0)
    before_pool = OverheadTerms(
        context_bytes=row["context"] * MIB,
        ranks_bytes=row.get("ranks", 0) * MIB if ranks > 1 else 0,
        unpacking_bytes=int(row.get("unpacking", 0) * 2 * largest),
        gaps_bytes=int(row.get("gaps", 0) * artifact.layers * largest * bits / 8),
        vocabulary_bytes=int(row.get("vocabulary", 0) * vocabulary),
    )
    parted = (1 + 1 / ranks) / 2
    packed = artifact.tensors.linear_bytes / ranks if bits < 16 else 0
    return Overhead(
        before_pool=before_pool,
        warm_up_bytes=row["warm_up"] * MIB,
        token_bytes=2 * (row.get("inner", 0) * inner + row.get("hidden", 0) * artifact.hidden_size * parted),
        loading_bytes=before_pool.context_bytes
        + before_pool.ranks_bytes
        + int(vocabulary * (copies + row.get("loading_own", 0) / ranks) + row.get("packing", 0) * packed)
        + _PAGES_BYTES,
        gpus=tuple(row["measured"]["gpus"]),
        version=str(row["measured"]["lmdeploy"]),
        source=" ".join(row["source"].split()),
    )


def _row(version: str, artifact: Artifact) -> dict[str, Any]:
    rows = {row["bits"]: row for row in lmdeploy.overhead_rows(version)}
    return rows.get(artifact.weight_bits, rows[16])


def _inner_columns(artifact: Artifact) -> int:
    """Of a layer; of a mixture of experts, what its linear weights come to where all layers are alike."""
    per_layer = artifact.tensors.linear_bytes / max(1, artifact.layers) * 8 / artifact.weight_bits
    dense = 3 * artifact.hidden_size * artifact.intermediate_size
    return artifact.intermediate_size if per_layer < 4 * dense else int(per_layer / (4 * artifact.hidden_size))
