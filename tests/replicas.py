"""A replica by its values, whatever the bundle was, and deployments of it."""

from __future__ import annotations

import dataclasses
from typing import Any

from deploytk.scale.contract import GIB, Replica
from deploytk.scale.wishes import Replicas, Wishes

DIGEST = f"sha256:{'1e3' * 21}4"
IMAGE = f"ghcr.io/me/chat@{DIGEST}"

REPLICA = Replica(
    name="internlm-chat-7b-awq",
    title="InternLM Chat 7B: 'AWQ' # \"4 bit\"",
    bundle=DIGEST,
    image=IMAGE,
    weights="layers",
    port=7860,
    engine="turbomind",
    tensor_parallel=2,
    gpus=2,
    gpu="A100-80G",
    vram_bytes=40 * GIB,
    gpu_bytes=80 * GIB,
    cpus=6,
    memory_bytes=14 * GIB,
    shm_bytes=4 * GIB,
    weights_bytes=5 * GIB,
    model_name="internlm-chat-7b-awq",
    max_running=8,
    max_waiting=64,
    start_s=240,
    start_from="the size of the weights and a slow disk",
    request_s=600,
    drain_s=30,
)

MANY = Wishes(replicas=Replicas(2, 2), digest=DIGEST)


def replica(**changes: Any) -> Replica:
    return dataclasses.replace(REPLICA, **changes)


def wishes(**changes: Any) -> Wishes:
    return dataclasses.replace(MANY, **changes)
