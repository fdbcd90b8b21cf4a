"""What smoke tests found that servers take beside their KV pool, kept for the plans of the same servers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from deploytk.artifact import Artifact


@dataclass(frozen=True, slots=True)
class MeasuredOverhead:
    """One server on one GPU."""

    gpu: str  # as a plan names it
    lmdeploy: str  # that ran
    engine: str
    shape: str  # of the model, in words: equal for models that take the same
    ranks: int
    step_tokens: int  # of its largest step
    before_pool_bytes: int  # weights and all else that was there when the pool was sized
    beside_pool_bytes: int  # the same, once it had answered
    measured_on: str  # a day

    @property
    def key(self) -> tuple[object, ...]:
        """What a new measurement takes the place of."""
        return self.gpu, self.lmdeploy, self.engine, self.shape, self.ranks, self.step_tokens


def shape_of(artifact: Artifact) -> str:
    """Everything about a model that its server's overhead depends on, as text for people and for comparison."""
    weights = f"{artifact.weight_format} {artifact.weight_bits} bit" if artifact.is_quantized else artifact.weight_dtype
    group = f" in groups of {artifact.group_size}" if artifact.is_quantized else ""
    size = f"{artifact.layers} layers of {artifact.hidden_size}/{artifact.intermediate_size}"
    heads = f"{artifact.heads}/{artifact.kv_heads} heads of {artifact.head_dim}"
    tied = ", tied" if artifact.tied_embeddings else ""
    return f"{artifact.architecture}: {size}, {heads}, vocabulary {artifact.vocab_size}{tied}, {weights}{group}"


def nearest(found: Iterable[MeasuredOverhead], like: tuple[object, ...], step_tokens: int) -> MeasuredOverhead | None:
    """Of those whose key begins like that, the one with steps of about that size; None where there is none."""
    alike = [one for one in found if one.key[:-1] == like]
    return min(alike, key=lambda one: abs(one.step_tokens - step_tokens), default=None)
