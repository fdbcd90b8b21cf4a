"""AutoRound, with windows of ours: when it cannot use a data set that it is given, it fetches one from a hub."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

_BATCH = 8  # AutoRound's own default


def quantize(job: dict[str, Any], windows: Sequence[Sequence[int]]) -> None:
    """Write the quantized model below job["output"], in the format of AutoAWQ, which TurboMind loads."""
    from auto_round import AutoRound

    tuner = AutoRound(
        job["model"],
        scheme="W4A16",
        sym=False,
        iters=job["iters"],
        seqlen=job["seqlen"],
        nsamples=len(windows),
        batch_size=min(_BATCH, len(windows)),
        dataset=[torch.tensor([window]) for window in windows],
        device_map=job["device"],
        model_dtype="float16",
        trust_remote_code=job["trust_remote_code"],
        disable_model_free=True,
        enable_torch_compile=False,  # wants a compiler for C
        low_gpu_mem_usage=True,
    )
    tuner.quantize_and_save(job["output"], format="auto_awq")
