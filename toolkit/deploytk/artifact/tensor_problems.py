"""Tensors that no LMDeploy loads as they are, whatever config.json says."""

from __future__ import annotations

from collections.abc import Iterator

from deploytk.artifact.quantization import Quantization
from deploytk.artifact.tensor_sums import role_of
from deploytk.artifact.tensors import Tensors
from deploytk.artifact.value import Problem

_PLAIN = ("F16", "BF16", "F32", "F64")

# What each format calls its packed weights, or which type they have.
_PACKED_NAMES = {"awq": ".qweight", "gptq": ".qweight", "mxfp4": "_blocks"}

# Models inside others have other names, and so have those whose code is not in transformers.
_PREFIXED = ("Llama", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "Qwen2Moe", "Qwen3Moe", "Mistral", "Mixtral", "Gemma")


def tensor_problems(tensors: Tensors, architecture: str, quantization: Quantization) -> Iterator[Problem]:
    """Weights that are packed although nobody says how, or not although somebody does, or of a model for embeddings."""
    linear = [group for group, _ in tensors if role_of(group) == "linear"]
    packed = next((group for group in linear if group.dtype not in _PLAIN), None)
    if quantization.weight_format == "none" and packed:
        message = f"{packed.pattern} is of type {packed.dtype}, and config.json does not say how it is quantized"
        hint = "LMDeploy would take it for plain numbers: take the model in a format that it reads"
        yield Problem("error", message, hint)
    expected = _PACKED_NAMES.get(quantization.weight_format)
    if linear and expected and not any(expected in group.pattern for group in linear):
        message = f"config.json says {quantization.weight_format}, and no tensor is packed so (*{expected})"
        yield Problem("warning", message, "take config.json and the weights from one model")
    if architecture.startswith(_PREFIXED) and any(group.pattern.startswith("layers.#.") for group in linear):
        message = 'the names of the tensors lack "model.": it is a model for embeddings, which LMDeploy does not load'
        yield Problem("error", message, "serve the model that generates text")
