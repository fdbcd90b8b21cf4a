"""The tensors of a Hugging Face directory of safetensors: as they are, or dequantized."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, cast

import numpy as np

from deploytk.artifact import Artifact
from deploytk.artifact.safetensors_header import TensorEntry, read_header
from deploytk.artifact.tensors import shape_in_words
from deploytk.base.errors import WeightsError
from deploytk.weights import internlm2, packed
from deploytk.weights.linears import GROUP, dequantize
from deploytk.weights.names import LLAMA
from deploytk.weights.value import STORED_AS, Array, Dtype, ModelWeights, Source, Tensor


def open_huggingface(artifact: Artifact, names: Literal["own", "llama"]) -> ModelWeights:
    """The weights of the directory behind `artifact`; refuses pickles, and what TurboMind would misread."""
    _refuse_unreadable(artifact)
    stored = tuple(_stored(artifact))
    is_packed = artifact.weight_format in ("gptq", "compressed-tensors")
    dense = tuple(packed.dense(cast(packed.Packing, artifact.weight_format), stored)) if is_packed else stored
    if artifact.weight_format == "awq":
        dense = tuple(_dense(stored))
    config = {key: value for key, value in artifact.config.items() if key != "quantization_config"}
    if names == "llama" and artifact.architecture in ("InternLMForCausalLM", "InternLM2ForCausalLM"):
        if artifact.architecture == "InternLM2ForCausalLM":
            heads = artifact.heads, artifact.kv_heads
            stored, dense = tuple(internlm2.to_llama(stored, *heads)), tuple(internlm2.to_llama(dense, *heads))
        for key in ("auto_map", "bias"):
            config.pop(key, None)
        config |= {
            "architectures": [LLAMA.architecture],
            "model_type": LLAMA.model_type,
            "attention_bias": artifact.attention_bias,
        }
    return ModelWeights(config, artifact.weight_format == "awq", stored, dense)


def _refuse_unreadable(artifact: Artifact) -> None:
    if artifact.weight_format not in ("none", "awq", "gptq", "compressed-tensors"):
        raise WeightsError(
            f"{artifact.root}: weights in {artifact.weight_format} cannot be read without LMDeploy",
            hint="fp16, bf16, fp32, AWQ, GPTQ and packed compressed-tensors can; serve this one on a GPU",
        )
    packed.refuse_misread(artifact)
    if artifact.weight_format == "awq" and artifact.group_size != GROUP:
        raise WeightsError(
            f"{artifact.root}: group size {artifact.group_size}, {GROUP} expected",
            hint="quantize the model again with LMDeploy, which has groups of 128",
        )
    pickles = [file.path for file in artifact.files if file.is_weight and not file.path.endswith(".safetensors")]
    if pickles:
        raise WeightsError(
            f"{artifact.root / pickles[0]} is a pickle, which deploytk never opens",
            hint="save the model as safetensors, or serve it on a GPU",
        )


def _stored(artifact: Artifact) -> Iterator[Tensor]:
    for file in artifact.files:
        if file.is_weight:
            path = artifact.root / file.path
            for name, entry in read_header(path).items():
                yield _mapped(path, name, entry)


def _mapped(path: Path, name: str, entry: TensorEntry) -> Tensor:
    if entry.dtype == "I64" and name.endswith(".weight_shape"):
        return Tensor(name, "I32", entry.shape, _nothing)  # says again what the shapes of the others say
    if entry.dtype not in STORED_AS:
        raise WeightsError(
            f"{path} holds {name} as {entry.dtype}, which deploytk does not read", hint="save the model as float16"
        )
    dtype: Dtype = entry.dtype

    def fill(out: Array, first: int) -> None:
        if out.size:
            begin = entry.begin + first * (out.nbytes // len(out) if first else 0)
            out[...] = np.memmap(path, STORED_AS[dtype], "r", offset=begin, shape=out.shape)

    return Tensor(name, dtype, entry.shape, fill, Source(path, entry.begin), step=1 if entry.shape else 0)


def _nothing(_out: Array, _first: int) -> None:
    raise AssertionError("never read")


def _dense(stored: tuple[Tensor, ...]) -> Iterator[Tensor]:
    by_name = {tensor.name: tensor for tensor in stored}
    for tensor in stored:
        module, _, kind = tensor.name.rpartition(".")
        if kind == "qweight":
            yield _dequantized(module, tensor, by_name)
        elif f"{module}.qweight" not in by_name or kind not in ("qzeros", "scales"):
            yield tensor


def _dequantized(module: str, qweight: Tensor, by_name: dict[str, Tensor]) -> Tensor:
    rows, words = qweight.shape
    parts = [by_name.get(f"{module}.{kind}") for kind in ("qzeros", "scales")]
    shapes = ((rows // GROUP, words), (rows // GROUP, words * 8))
    for kind, part, shape in zip(("qzeros", "scales"), parts, shapes, strict=True):
        if part is None or part.shape != shape:
            found = "missing" if part is None else f"of shape {shape_in_words(part.shape)}"
            raise WeightsError(
                f"{module}.{kind} is {found}, {shape_in_words(shape)} expected", hint="take the model's files whole"
            )
    qzeros, scales = cast(list[Tensor], parts)

    def fill(out: Array, _first: int) -> None:
        dequantize(qweight.read(), qzeros.read(), scales.read(), out)

    return Tensor(f"{module}.weight", "F16", (words * 8, rows), fill)
