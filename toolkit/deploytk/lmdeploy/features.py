"""What changed from one LMDeploy version on, each under a name. Nobody else compares versions."""

from __future__ import annotations

import re

from deploytk.lmdeploy.versions import release_index

FIRST_WITHOUT_WORKSPACES = "0.8.0"
"""The first version that no longer reads the weights of a workspace."""

NEWEST_FOR_PYTHON_3_9 = "0.10.2"
"""From 0.11.0 on there are wheels for Python 3.10 and later alone."""


def _is_from(version: str, first: str) -> bool:
    return release_index(version) >= release_index(first)


def asks_before_remote_code(version: str) -> bool:
    """It runs code that a model names with --trust-remote-code alone; before, always. Of any version, known or not."""
    numbers = re.findall(r"\d+", version)[:2]
    return [int(number) for number in numbers] >= [0, 13]


def splits_vocabulary(version: str) -> bool:
    """Each GPU has its part of embedding and head; before, every GPU had them whole."""
    return _is_from(version, "0.6.0")


def has_static_int8(version: str) -> bool:
    """An int8 KV cache takes its scales from files that `lmdeploy lite kv_qparams` wrote, one per layer."""
    return not _is_from(version, "0.4.0")


def wants_spare_block(version: str) -> bool:
    """A request is refused when its next token finds no block of the KV cache: v0.16.0 engine/engine.cc."""
    return _is_from(version, "0.15.0")


def allocates_pool_in_slabs(version: str) -> bool:
    """The KV pool is handed out in slabs, not in blocks: v0.16.0 src/turbomind/memory/object.cc."""
    return _is_from(version, "0.15.0")


def folds_latent_attention(version: str) -> bool:
    """TurboMind caches the latent vector of MLA instead of its heads: v0.12.2 turbomind/deploy/source_model/."""
    return _is_from(version, "0.12.2")


def packs_sparse_attention(version: str) -> bool:
    """DeepSeek-V3.2 keeps its latent vector in 8 bits (fp8_ds_mla); from 0.17.0 on in 16 unless that is asked for."""
    return not _is_from(version, "0.17.0")


def pads_feed_forward_for_kernels(version: str) -> bool:
    """Feed-forward layers that are split have 32 columns at least on each GPU: v0.14.0 turbomind/builders/ffn.py."""
    return _is_from(version, "0.14.0")


def pads_feed_forward(version: str) -> bool:
    """Feed-forward layers are split by whole groups of weights, and padded to that: `_pad_inter_size` of v0.6.0."""
    return _is_from(version, "0.6.0")


def reads_context_fmha(version: str) -> bool:
    """`use_context_fmha` in config.ini does something: TurboMind 1.0 alone."""
    return not _is_from(version, "0.1.0")


def legacy_base(version: str) -> str | None:
    """The image that an old version is installed on with pip, for its Python 3.10 and CUDA; None: LMDeploy's own.

    None of LMDeploy's images before 0.10.0 is used: those up to 0.5.2 have Python 3.8, where the app does not run.
    """
    return None if _is_from(version, "0.10.0") else "nvidia/cuda:12.4.1-base-ubuntu22.04"


def goes_with_gradio_6(version: str) -> bool:
    """It can share an environment with Gradio 6; earlier ones want other versions of what Gradio needs."""
    return _is_from(version, "0.10.0")


def has_wheel_for_python_3_9(version: str) -> bool:
    return not _is_from(version, "0.11.0")


def smallest_capability_for_fp8(version: str) -> float:
    """What TurboMind's kernels for fp8 weights need: those for GPUs before Hopper came in 0.10.1, and 0.16.0 broke them
    (LMDeploy #3960, #4871)."""
    return 9.0 if not _is_from(version, "0.10.1") or version == "0.16.0" else 7.0


def registers_windows(version: str) -> bool:
    """What its GPUs send each other lies in symmetric windows where NCCL has them: v0.10.0 src/turbomind/comm/nccl."""
    return _is_from(version, "0.10.0")
