"""What a running server takes besides weights and KV pool, as a sum of named terms."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from deploytk import lmdeploy
from deploytk.artifact import Artifact
from deploytk.hardware.catalogue import MIB, Gpu

CERTAIN_PCT = 2.0
"""How far a prediction may be off where the same was measured before."""

_MOST_TOKENS = 8192 + 64  # of one step: the longest prompt and the largest batch that were measured
_PAGES_BYTES = 64 * MIB  # two of those that CUDA's memory pool grows by: the peak is never promised too low


@dataclass(frozen=True, slots=True)
class OverheadTerms:
    """Bytes on one GPU; lmdeploy/overhead.yaml says what each is and where it comes from."""

    context_bytes: int = 0
    ranks_bytes: int = 0
    unpacking_bytes: int = 0
    gaps_bytes: int = 0
    vocabulary_bytes: int = 0
    exchange_bytes: int = 0
    warm_up_bytes: int = 0
    activations_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        return sum(getattr(self, field.name) for field in fields(self))

    @property
    def before_pool_bytes(self) -> int:
        """Of those that are there when the KV pool is sized."""
        return self.total_bytes - self.exchange_bytes - self.warm_up_bytes - self.activations_bytes

    def scaled(self, factor: float) -> OverheadTerms:
        return OverheadTerms(**{field.name: int(getattr(self, field.name) * factor) for field in fields(self)})


@dataclass(frozen=True, slots=True)
class Ground:
    """The servers that an overhead was measured on."""

    lmdeploy: str
    gpus: tuple[str, ...]
    parameters: tuple[float, float]  # of the models, from and to
    ranks: int  # at most
    within_pct: float  # how far the worst of them is off


@dataclass(frozen=True, slots=True)
class Overhead:
    """The overhead of one model in one LMDeploy version, for any number of tokens in one step."""

    before_pool: OverheadTerms  # what is there when the KV pool is sized
    exchange_bytes: int
    warm_up_bytes: int
    token_bytes: float  # activations of one token of a step
    loading_bytes: int  # above the weights while they load, at most
    ground: Ground
    source: str
    is_own: bool = False  # of the user's own smoke tests

    def terms(self, tokens: int) -> OverheadTerms:
        """Once the server answers that has had steps of `tokens` tokens."""
        known = {field.name: getattr(self.before_pool, field.name) for field in fields(OverheadTerms)}
        known |= {"exchange_bytes": self.exchange_bytes, "warm_up_bytes": self.warm_up_bytes}
        return OverheadTerms(**known | {"activations_bytes": int(tokens * self.token_bytes)})

    def is_measured_on(self, gpu: Gpu) -> bool:
        return self.is_own or any(gpu.name.startswith(name) for name in self.ground.gpus)

    def scaled_to(self, before_pool_bytes: int, beside_weights_bytes: int, step_tokens: int, source: str) -> Overhead:
        """The same terms, made as large as they were measured: before the pool, and all with steps of that size."""
        after = self.terms(step_tokens).total_bytes - self.before_pool.total_bytes
        later = max(0, beside_weights_bytes - before_pool_bytes) / max(1, after)
        before = self.before_pool.scaled(before_pool_bytes / max(1, self.before_pool.total_bytes))
        return replace(
            self,
            before_pool=before,
            exchange_bytes=int(self.exchange_bytes * later),
            warm_up_bytes=int(self.warm_up_bytes * later),
            token_bytes=self.token_bytes * later,
            loading_bytes=self.loading_bytes + max(0, before.total_bytes - self.before_pool.total_bytes),
            source=source,
            is_own=True,
        )


def find_overhead(version: str, artifact: Artifact, ranks: int) -> Overhead:
    """What was measured for that LMDeploy version and number of bits, for a model of that shape on `ranks` GPUs."""
    row = _row(version, artifact)
    inner = _inner_columns(artifact) // ranks
    largest = 2 * artifact.hidden_size * inner  # numbers of gate and up of one layer, on one GPU
    vocabulary = 2 * artifact.vocab_size * artifact.hidden_size
    bits = min(row["bits"], 16)
    is_shared = artifact.tied_embeddings and row.get("loading", 0) == 2 and ranks == 1  # what is parted is copied
    copies = row.get("loading", 0) - (1 if is_shared else 0)
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
        exchange_bytes=row.get("exchange", 0) * MIB if ranks > 1 else 0,
        warm_up_bytes=row["warm_up"] * MIB,
        token_bytes=2 * (row.get("inner", 0) * inner + row.get("hidden", 0) * artifact.hidden_size * parted),
        loading_bytes=before_pool.context_bytes
        + before_pool.ranks_bytes
        + int(vocabulary * (copies + row.get("loading_own", 0) / ranks) + row.get("packing", 0) * packed)
        + _PAGES_BYTES,
        ground=_ground(row["measured"]),
        source=" ".join(row["source"].split()),
    )


def extrapolated(overhead: Overhead, artifact: Artifact, version: str, ranks: int, step_tokens: int) -> str:
    """Why the overhead of that model is no measured one on any GPU, "" where it is."""
    ground = overhead.ground
    if version != ground.lmdeploy:
        return f"LMDeploy {ground.lmdeploy} was measured, not {version}"
    if ground.within_pct > CERTAIN_PCT:
        return f"what is known of LMDeploy {version} is good to {ground.within_pct:g} %"
    low, high = ground.parameters
    if not _is_plain(artifact) or not low <= artifact.parameters <= high:
        return f"models of {low / 1e9:g}B to {high / 1e9:g}B parameters were measured, dense and with plain attention"
    if ranks > ground.ranks:
        return f"at most {ground.ranks} GPUs were measured"
    return f"steps of {step_tokens} tokens were not measured" if step_tokens > _MOST_TOKENS else ""


def _is_plain(artifact: Artifact) -> bool:
    """Whether all layers are alike, with keys and values of their own, and nothing is beside them."""
    attention, tensors = artifact.attention, artifact.tensors
    is_dense = not artifact.has_experts and _inner_columns(artifact) == artifact.intermediate_size
    has_own = attention.latent is None and attention.kv_layers == artifact.layers
    return is_dense and has_own and not (tensors.tower_bytes or tensors.unloaded_bytes)


def _ground(row: dict[str, Any]) -> Ground:
    low, high = row["billions"]
    return Ground(str(row["lmdeploy"]), tuple(row["gpus"]), (low * 1e9, high * 1e9), row["ranks"], row["within"])


def _row(version: str, artifact: Artifact) -> dict[str, Any]:
    rows = {row["bits"]: row for row in lmdeploy.overhead_rows(version)}
    return rows.get(artifact.weight_bits, rows[16])


def _inner_columns(artifact: Artifact) -> int:
    """Of a layer; of a mixture of experts, what its linear weights come to where all layers are alike."""
    per_layer = artifact.tensors.linear_bytes / max(1, artifact.layers) * 8 / artifact.weight_bits
    dense = 3 * artifact.hidden_size * artifact.intermediate_size
    return artifact.intermediate_size if per_layer < 4 * dense else int(per_layer / (4 * artifact.hidden_size))
