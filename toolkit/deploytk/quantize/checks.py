"""What can be known before hours of work: whether the wish can come true, and what would."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploytk import lmdeploy
from deploytk.artifact import Artifact
from deploytk.artifact.safetensors_header import read_header
from deploytk.base.errors import QuantizeError, TrustError, UsageError
from deploytk.quantize.tools import Tool
from deploytk.quantize.value import QuantizeOptions

GROUP = 128
"""Inputs that share a scale; TurboMind has kernels for this size alone."""

_PACKED = 8  # outputs in a word
_LAYER = re.compile(r"\.(layers|h|blocks)\.\d+\.")
_KEPT = re.compile(r"(\.gate\.weight$|visual|vision|linear_attn|shared_expert_gate|mtp)")
_LLAMA_INSIDE = ("InternLMForCausalLM", "InternLM2ForCausalLM")


@dataclass(frozen=True, slots=True)
class Matrix:
    """A linear layer that gets 4 bits."""

    name: str
    outputs: int
    inputs: int


def served_architecture(artifact: Artifact) -> str:
    """What the result will be: InternLM and InternLM2 are written as the Llama that they equal."""
    return "LlamaForCausalLM" if artifact.architecture in _LLAMA_INSIDE else artifact.architecture


def is_rewritten(artifact: Artifact) -> bool:
    """Whether the tool reads a copy that deploytk writes for it: what it is would need code of the model."""
    return artifact.architecture in _LLAMA_INSIDE


def check_source(artifact: Artifact) -> None:
    """Raises for a model that is broken, or has few bits already."""
    artifact.require_usable()
    if artifact.is_quantized:
        then = "package or publish it as it is"
        if artifact.weight_format in ("awq", "gptq") and artifact.layout == "workspace":
            then = "deploytk modernize makes a directory of it that current LMDeploy loads"
        raise UsageError(
            f"{artifact.root} is quantized already ({artifact.weight_format}, {artifact.weight_bits} bit)", hint=then
        )


def check_wish(artifact: Artifact, options: QuantizeOptions, tool: Tool) -> None:
    """Raises where this tool, in this version, cannot make of this model what TurboMind loads."""
    _check_architecture(artifact, options, tool)
    _check_served(artifact)
    for matrix in matrices(artifact):
        _check_size(artifact, matrix)
    would_run = tool.runs_code or _needs_code(artifact)
    if artifact.remote_code and not options.trusts_code and not is_rewritten(artifact) and would_run:
        what = f"{artifact.root} names code (auto_map), which the quantizer would run"
        raise TrustError(what, hint="read it, then say --trust-remote-code")
    if options.seqlen > artifact.session_len:
        raise UsageError(
            f"windows of {options.seqlen} tokens are longer than a session of this model, {artifact.session_len}",
            hint=f"--seqlen {artifact.session_len}",
        )


def _needs_code(artifact: Artifact) -> bool:
    """Whether the model's own class is in its code; where transformers has one, that is taken and no code runs."""
    return isinstance(artifact.config.get("auto_map"), dict)


def _check_architecture(artifact: Artifact, options: QuantizeOptions, tool: Tool) -> None:
    found, texts = served_architecture(artifact), options.calibration != "none"
    if tool.architectures is None:
        return
    what = f"{tool.package} {tool.version}"
    if found not in tool.architectures:
        known = ", ".join(sorted(tool.architectures))
        raise QuantizeError(
            f"{what} quantizes no {found}", hint=f"--method autoround takes any that transformers loads; known: {known}"
        )
    if not texts and not tool.takes_no_texts:
        raise UsageError(f"{what} quantizes nothing without texts", hint="leave --calib none out")
    if texts and found not in tool.smoothed:
        raise UsageError(f"{what} cannot calibrate {found}", hint="--calib none, which looks at the weights alone")


def _check_served(artifact: Artifact) -> None:
    """Raises when no LMDeploy would serve the model with AWQ weights."""
    if artifact.facts is None:
        return
    awq = lmdeploy.QuantizationFacts(method="awq", bits=4, group_size=GROUP, version="gemm")
    facts = dataclasses.replace(artifact.facts, architecture=served_architecture(artifact), quantization=awq)
    versions = lmdeploy.support(facts)
    if versions.pin is None:
        raise QuantizeError(f"nothing would serve it: {versions.reason}", hint="publish it as it is, in 16 bits")


def matrices(artifact: Artifact) -> Iterator[Matrix]:
    """The linear layers of the decoder, as the files have them; of other files than safetensors as the sizes tell."""
    found = list(_matrices_in_files(artifact))
    return iter(found or _matrices_of_sizes(artifact))


def _matrices_in_files(artifact: Artifact) -> Iterator[Matrix]:
    for file in artifact.files:
        if file.is_weight and file.path.endswith(".safetensors"):
            for name, entry in read_header(artifact.root / file.path).items():
                if is_quantizable(name, entry.shape):
                    yield Matrix(name.removesuffix(".weight"), *entry.shape)


def is_quantizable(name: str, shape: Sequence[int]) -> bool:
    """Whether a tensor is a linear layer of the decoder; choosers of experts and towers that see keep their 16 bits."""
    is_linear = len(shape) == 2 and name.endswith(".weight") and _LAYER.search(name) is not None
    return is_linear and not _KEPT.search(name)


def _matrices_of_sizes(artifact: Artifact) -> Iterator[Matrix]:
    hidden, inner = artifact.hidden_size, artifact.intermediate_size
    query, keys = artifact.heads * artifact.head_dim, artifact.kv_heads * artifact.head_dim
    yield Matrix("the query projection", query, hidden)
    yield Matrix("the key projection", keys, hidden)
    yield Matrix("the value projection", keys, hidden)
    yield Matrix("the output projection", hidden, query)
    yield Matrix("the gate projection", inner, hidden)
    yield Matrix("the up projection", inner, hidden)
    yield Matrix("the down projection", hidden, inner)


def _check_size(artifact: Artifact, matrix: Matrix) -> None:
    hint = "publish it in 16 bits, or quantize it with a tool whose groups fit, for another server"
    if matrix.inputs % GROUP:
        raise QuantizeError(
            f"{artifact.root}: {matrix.name} has {matrix.inputs} inputs, a multiple of {GROUP} is asked for", hint=hint
        )
    if matrix.outputs % _PACKED:
        raise QuantizeError(
            f"{artifact.root}: {matrix.name} has {matrix.outputs} outputs, a multiple of {_PACKED} is asked for",
            hint=hint,
        )


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes that a model takes in 16 bits, and in 4."""

    dense: int
    largest: int  # of a linear layer
    layer: int  # of a decoder layer
    embeddings: int
    packed: int  # on disk, with scales and zero points
    linear: int  # of all linear layers of the decoder
    packed_linear: int  # of them, with scales and zero points
    outputs: int  # of the linear layers of a decoder layer, together; no bytes


def sizes_of(artifact: Artifact) -> Sizes:
    found = list(_matrices_in_files(artifact))
    embedding = artifact.vocab_size * artifact.hidden_size
    heads = 1 if artifact.tied_embeddings else 2
    linear = sum(one.inputs * one.outputs for one in found) or max(0, artifact.parameters - heads * embedding)
    rest = max(0, artifact.parameters - linear)
    if artifact.tied_embeddings and rest >= 2 * embedding:
        rest -= embedding  # a head that is stored as well is not loaded
    # 4 bits, and for each group a scale of 16 and a zero point of 4.
    packed_linear = linear // 2 + linear * 20 // 8 // GROUP
    layers = max(1, artifact.layers)
    return Sizes(
        dense=2 * (linear + rest),
        largest=max(one.inputs * one.outputs * 2 for one in matrices(artifact)),
        layer=linear * 2 // layers,
        embeddings=2 * embedding,
        packed=packed_linear + rest * 2,
        linear=linear * 2,
        packed_linear=packed_linear,
        outputs=sum(one.outputs for one in matrices(artifact)) // (layers if found else 1),
    )


def is_in_pickles(artifact: Artifact) -> Path | None:
    """A weight file that is a pickle: the tool would open it."""
    found = (file.path for file in artifact.files if file.is_weight and not file.path.endswith(".safetensors"))
    path = next(found, None)
    return artifact.root / path if path and artifact.layout == "huggingface" else None
