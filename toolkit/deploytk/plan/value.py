"""The ServingPlan: how a model is served."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from deploytk.artifact import KvPolicy
from deploytk.hardware.catalogue import Gpu
from deploytk.plan.memory import Vram

ServingEngine = Literal["turbomind", "pytorch", "cpu"]

MODEL_AT = 3
"""Where the model's path is in `ServingPlan.argv`."""

PORT = 23333
"""LMDeploy's own default."""


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """What a user asked for; None means: choose."""

    gpu: str | None = None  # "A100-80G", "RTX 4090", or a size: "24G", "24GiB", "24576MiB"
    session_len: int | None = None  # tokens, prompt and answer together
    max_batch_size: int | None = None
    kv_policy: KvPolicy | None = None
    tensor_parallel: int | None = None
    serving_engine: ServingEngine | None = None
    cache_max_entry_count: float | None = None  # the share itself instead of the sessions that must fit
    model_name: str | None = None  # what /v1/models shows; the directory's name by default
    trust_remote_code: bool = False


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

    def at(self, model: str) -> ServingPlan:
        """The same plan for the same model at another path."""
        argv = (*self.argv[:MODEL_AT], model, *self.argv[MODEL_AT + 1 :])
        return dataclasses.replace(self, argv=argv)
