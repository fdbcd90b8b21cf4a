"""The Artifact: what a model directory is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from deploytk.artifact.attention import Attention
from deploytk.artifact.chat_templates import ToolFormat
from deploytk.artifact.tensor_sums import TensorSums
from deploytk.base.errors import ArtifactError
from deploytk.lmdeploy import ModelFacts, VersionRange

Layout = Literal["workspace", "huggingface"]
WeightFormat = Literal["none", "awq", "gptq", "fp8", "mxfp4", "compressed-tensors", "smooth_quant"]
KvPolicy = Literal["none", "int8", "int4"]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that whoever deploys this directory should know."""

    level: Literal["error", "warning", "info"]  # error: not usable as it is
    message: str
    hint: str
    option: str = ""  # of the commands that load the model, with which an error is a warning; plans load nothing


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file that belongs to the model: a weight, a tokenizer or a configuration file."""

    path: str  # relative to the root, with /
    bytes: int
    is_weight: bool


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary position embedding, under the names of Hugging Face's `rope_parameters`."""

    theta: float
    dim: int  # rotated values per head
    scaling: tuple[tuple[str, float | int | str], ...]  # () unless scaled: rope_type, factor, ...


@dataclass(frozen=True, slots=True)
class CalibrationData:
    """The texts that a quantizer looked at; none where it looked at the weights alone."""

    name: str  # "deploytk" for the set that ships with it, a file's name, "none"
    digest: str | None  # "sha256:..." over the texts, a line each
    windows: int
    window_tokens: int


@dataclass(frozen=True, slots=True)
class QuantizationCost:
    """The model before and after, on the same text that it was not calibrated with. Says nothing about long answers."""

    text: str  # "deploytk" for the one that ships with it, a file's name
    digest: str
    windows: int
    window_tokens: int
    perplexity_before: float
    perplexity_after: float
    kl_mean: float  # of the next token's distribution after from the one before, nats
    top1_agreement: float  # share of places where both find the same token likeliest
    golden: int  # prompts with known answers
    golden_before: int  # of them answered right
    golden_after: int

    @property
    def perplexity_increase(self) -> float:
        """In percent."""
        return 100 * (self.perplexity_after / self.perplexity_before - 1)


@dataclass(frozen=True, slots=True)
class QuantizedBy:
    """Who made 4 bits of a model, from what, and what it cost."""

    method: Literal["awq", "autoround"]
    tool: str  # "lmdeploy", "auto-round"
    tool_version: str
    deploytk: str
    arguments: tuple[str, ...]  # what was asked of the tool: "search-scale", "iters 200"
    source_dtype: Literal["float16", "bfloat16", "float32"]
    calibration: CalibrationData
    cost: QuantizationCost | None  # None: not measured
    created: str | None = None  # when, in UTC: "2026-11-27T10:00:00+00:00"; None in records of earlier versions
    source: str | None = None  # the name of the directory with 16 bits; None in records of earlier versions


@dataclass(frozen=True, slots=True)
class Artifact:
    """A model directory, as found on disk. Nothing in it is guessed: None means that it does not say."""

    root: Path
    layout: Layout
    config_format: Literal["ini", "yaml", "json"]  # workspaces: config.ini up to 0.5.3, config.yaml from 0.6.0
    made_by: str  # "lmdeploy 0.4.2", "lmdeploy 0.6.4-0.7.2", "transformers 5.17.0", "unknown"
    architecture: str  # Hugging Face class name, "LlamaForCausalLM"
    weight_format: WeightFormat
    weight_dtype: Literal["float16", "bfloat16", "float32"]  # of what is not quantized
    weight_bits: int  # 4 for W4A16; 16 when the weights are not quantized
    group_size: int | None  # None when the weights are not quantized
    weights_bytes: int  # on disk, all weight files together
    tensors: TensorSums  # what of them is what
    parameters: int  # as if nothing were quantized; tied embeddings once
    layers: int
    hidden_size: int
    intermediate_size: int
    heads: int
    kv_heads: int  # 1 for latent attention
    head_dim: int  # of a key; the whole latent vector for latent attention
    attention: Attention  # which layers keep what
    vocab_size: int
    tied_embeddings: bool
    attention_bias: bool
    norm_eps: float
    rope: Rope
    session_len: int  # tokens
    kv_policy: KvPolicy  # stored in config.ini only; "none" elsewhere
    tensor_parallel: int
    chat_template: str | None  # a legacy template's name, "hf" for the tokenizer's own, None when there is none
    lmdeploy: VersionRange  # what can serve it
    facts: ModelFacts | None  # of a Hugging Face directory: what decides that, for another choice of engines
    config: dict[str, object]  # the parsed config file, for what has no field here
    quantized_by: QuantizedBy | None  # where `deploytk quantize` has made it
    remote_code: tuple[str, ...]  # files that name code (auto_map): see remote_code.py
    files: tuple[ModelFile, ...]  # what belongs to the model, sorted by path; leftovers are not in it
    problems: tuple[Problem, ...]
    tool_format: ToolFormat | None = None  # how its chat template has calls of tools written

    @property
    def is_quantized(self) -> bool:
        return self.weight_format != "none"

    @property
    def has_experts(self) -> bool:
        """Whether a token meets only some of the weights."""
        nested = [value for value in self.config.values() if isinstance(value, dict)]
        return any(_counts_experts(config) for config in (self.config, *nested))

    @property
    def errors(self) -> tuple[Problem, ...]:
        return tuple(problem for problem in self.problems if problem.level == "error")

    def require_usable(self) -> None:
        """Raises ArtifactError with the first error among the problems; every stage that loads it starts with this."""
        for problem in self.errors:
            raise ArtifactError(f"{self.root}: {problem.message}", hint=problem.hint)

    def require_plannable(self) -> None:
        """The same, but for files that are refused by their content alone: a plan loads none."""
        replace(self, problems=tuple(problem for problem in self.errors if not problem.option)).require_usable()


def _counts_experts(config: Mapping[str, object]) -> bool:
    counts = (value for name, value in config.items() if re.fullmatch(r"\w*experts?(_num)?", name))
    listed = (count if isinstance(count, list) else [count] for count in counts)
    return any(isinstance(one, int) and one > 1 for count in listed for one in count)
