"""Stage 2: Artifact + wishes -> ServingPlan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from deploytk.artifact import KvPolicy

ServingEngine = Literal["turbomind", "pytorch", "cpu"]


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """What a user asked for; None means: choose."""

    gpu: str | None = None  # "A100-80G", "RTX 4090", or a size: "24G", "24GiB", "24576MiB"
    session_len: int | None = None  # tokens, prompt and answer together
    max_batch_size: int | None = None
    kv_policy: KvPolicy | None = None
    tensor_parallel: int | None = None
    serving_engine: ServingEngine | None = None
    model_name: str | None = None  # what /v1/models shows; the directory's name by default


@dataclass(frozen=True, slots=True)
class Vram:
    """Predicted VRAM of one GPU, in bytes."""

    weights_bytes: int
    kv_pool_bytes: int
    overhead_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Gpu:
    name: str
    total_bytes: int  # what the driver reports as total, one GPU
    compute_capability: str | None  # "8.0"; None when only a size is known


@dataclass(frozen=True, slots=True)
class ServingPlan:
    """How a model is served. App, image, card and smoke test read this and decide nothing themselves."""

    engine: ServingEngine
    lmdeploy: str | None  # the version to install; None for the CPU engine
    argv: tuple[str, ...]  # starts the engine's API server; the model path is argv[MODEL_AT]
    config_ini: tuple[tuple[str, str], ...]  # keys to set in config.ini (LMDeploy <= 0.1.0 has no flags for them)
    model_name: str
    session_len: int
    max_batch_size: int
    tensor_parallel: int
    kv_policy: KvPolicy
    quant_policy: int  # the number that means kv_policy in that version
    cache_max_entry_count: float  # in the meaning of that version
    kv_bytes_per_token: int  # one GPU
    kv_capacity_tokens: int
    vram: Vram
    gpu: Gpu | None
    fits: bool | None  # None when no GPU is given
    largest_session_len: int | None  # at max_batch_size, on that GPU
    largest_batch: int | None  # at session_len, on that GPU
    notes: tuple[str, ...]  # what a user should know, one sentence each

    def at(self, model: str, model_name: str | None = None) -> ServingPlan:
        """The same plan for the same model at another path."""
        raise NotImplementedError
