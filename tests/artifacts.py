"""Artifacts of well-known models, as values: what `read_artifact` would say, without 14 GB of files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from deploytk import lmdeploy
from deploytk.artifact import Artifact, Attention, ModelFile, Rope, WeightFormat
from deploytk.artifact.dense import dense_sums
from deploytk.artifact.shape import Shape

SHAPE = Shape(32, 4096, 11008, 32, 32, 128, 103168, 2048, Attention(32))


def internlm_7b(*, is_w4: bool = False, architecture: str = "InternLMForCausalLM", has_bias: bool = True) -> Artifact:
    """InternLM-Chat-7B as a Hugging Face directory: 7 321 948 160 parameters, bias on all four projections."""
    weight_format: WeightFormat = "awq" if is_w4 else "none"
    awq = lmdeploy.QuantizationFacts(method="awq", bits=4, group_size=128, version="gemm")
    facts = lmdeploy.ModelFacts(
        architecture=architecture,
        layers=32,
        hidden_size=4096,
        heads=32,
        kv_heads=32,
        head_dim=128,
        quantization=awq if is_w4 else lmdeploy.NOT_QUANTIZED,
    )
    return Artifact(
        root=Path("internlm-chat-7b"),
        layout="huggingface",
        config_format="json",
        made_by="transformers 4.33.2",
        architecture=architecture,
        weight_format=weight_format,
        weight_dtype="float16",
        weight_bits=4 if is_w4 else 16,
        group_size=128 if is_w4 else None,
        weights_bytes=0,
        tensors=dense_sums(SHAPE, group_size=128 if is_w4 else None, has_bias=has_bias, has_output_bias=has_bias),
        parameters=7_321_948_160,
        layers=32,
        hidden_size=4096,
        intermediate_size=11008,
        heads=32,
        kv_heads=32,
        head_dim=128,
        attention=SHAPE.attention,
        vocab_size=103168,
        tied_embeddings=False,
        attention_bias=has_bias,
        norm_eps=1e-6,
        rope=Rope(10000.0, 128, ()),
        session_len=2048,
        kv_policy="none",
        tensor_parallel=1,
        chat_template="hf",
        lmdeploy=lmdeploy.support(facts),
        facts=facts,
        config={},
        quantized_by=None,
        remote_code=(),
        files=(),
        problems=(),
    )


def internlm_workspace(*, is_w4: bool, version: str = "0.1.0") -> Artifact:
    """The same as a workspace of `version`, with the scale files that static int8 needs."""
    era = next(era for era in lmdeploy.WORKSPACE_ERAS if version in era.made_by)
    scales = tuple(ModelFile(f"triton_models/weights/layers.{i}.past_kv_scale.0.weight", 16, True) for i in range(32))
    return dataclasses.replace(
        internlm_7b(is_w4=is_w4),
        layout="workspace",
        config_format=era.config_format,
        made_by=era.label,
        chat_template="internlm-chat-7b",
        lmdeploy=lmdeploy.versions_for_workspace(era),
        facts=None,
        files=scales,
    )
