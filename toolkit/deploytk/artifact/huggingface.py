"""Reads a Hugging Face model directory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from deploytk import lmdeploy
from deploytk.artifact.chat_templates import tool_format
from deploytk.artifact.configuration import Configuration, read_configuration
from deploytk.artifact.dense import dense_parameters, dense_sums
from deploytk.artifact.facts import model_facts, with_tensors
from deploytk.artifact.quantization import NOT_QUANTIZED, Quantization, read_quantization
from deploytk.artifact.remote_code import names_code
from deploytk.artifact.rope import read_rope
from deploytk.artifact.shape import Shape, read_shape
from deploytk.artifact.shape_problems import shape_problems
from deploytk.artifact.shards import Shards, read_shards
from deploytk.artifact.tensor_problems import tensor_problems
from deploytk.artifact.tensor_sums import TensorSums, role_of, sum_up
from deploytk.artifact.text_formats import Reader
from deploytk.artifact.tokenizer import read_tokenizer
from deploytk.artifact.tree import FileEntry
from deploytk.artifact.unstated import size_tells, tensors_tell
from deploytk.artifact.value import Artifact, ModelFile, Problem
from deploytk.base.errors import ArtifactError

_SMALLEST_TOWER_BYTES = 100 * 2**20  # a projector takes less, the smallest tower more
_EXPERT_KEYS = ("num_experts", "num_local_experts", "n_routed_experts")


def read_huggingface(root: Path, entries: Sequence[FileEntry]) -> Artifact:
    """The model at `root`, whose config.json is there; `problems` says what is wrong with its weights."""
    path = root / "config.json"
    configuration = read_configuration(path)
    stated = read_quantization(path, configuration.top)
    config, shape = configuration.text, _shape_of_served(configuration)
    shards = read_shards(root, entries, shape.layers)
    quantization = stated or _unstated(configuration, shape, shards) or NOT_QUANTIZED
    facts = with_tensors(model_facts(configuration, shape, quantization), root, shards)
    is_tied = _is_tied(configuration, shards)
    sums, parameters = _sums(configuration, shape, shards, quantization, is_tied)
    tokenizer = read_tokenizer(root, max(shape.vocab_size, _embedding_rows(shards)))
    artifact = Artifact(
        root=root,
        layout="huggingface",
        config_format="json",
        made_by=_made_by(config, is_by_old_lmdeploy=quantization.weight_format == "awq" and not stated),
        architecture=configuration.architecture,
        weight_format=quantization.weight_format,
        weight_dtype=_dtype(config, shards),
        weight_bits=quantization.bits,
        group_size=quantization.group_size,
        weights_bytes=sum(shards.files.values()),
        tensors=sums,
        parameters=parameters,
        layers=shape.layers,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        attention=shape.attention,
        vocab_size=shape.vocab_size,
        tied_embeddings=is_tied,
        attention_bias=_has_bias(config, configuration.architecture),
        norm_eps=_norm_eps(config),
        rope=read_rope(config, configuration.architecture, shape.head_dim),
        session_len=shape.session_len,
        kv_policy="none",
        tensor_parallel=1,
        chat_template=_own_template(configuration.top) or ("hf" if tokenizer.has_chat_template else None),
        lmdeploy=lmdeploy.support(facts),
        facts=facts,
        config=configuration.top,
        quantized_by=None,
        remote_code=names_code(root),
        files=_belonging(entries, shards),
        problems=(*shards.problems, *tokenizer.problems, *quantization.problems),
        tool_format=tool_format(root),
    )
    problems = (
        *artifact.problems,
        *shape_problems(shape, shards.tensors, configuration),
        *tensor_problems(shards.tensors, configuration.architecture, quantization),
        *_serving_problems(artifact, bool(stated)),
    )
    return replace(artifact, problems=problems)


def _shape_of_served(configuration: Configuration) -> Shape:
    """The sizes; where one is missing because the model is of another kind, as Mamba or Whisper, that is said."""
    try:
        return read_shape(configuration)
    except ArtifactError as error:
        if lmdeploy.knows(configuration.architecture):
            raise
        hint = "serve another model: LMDeploy serves models that generate text with attention"
        raise ArtifactError(f"no LMDeploy serves {configuration.architecture}: {error}", hint=hint) from error


def _unstated(configuration: Configuration, shape: Shape, shards: Shards) -> Quantization | None:
    """What weights are about which config.json says nothing: their names tell, or else their size."""
    if shards.tensors.counts or shards.names or not shards.files:
        return tensors_tell(shards)
    return None if _has_experts(configuration) else size_tells(shape, sum(shards.files.values()))


def _has_experts(configuration: Configuration) -> bool:
    return any(isinstance(configuration.text.values.get(key), int) for key in _EXPERT_KEYS)


def _sums(
    configuration: Configuration, shape: Shape, shards: Shards, quantization: Quantization, is_tied: bool
) -> tuple[TensorSums, int]:
    """What the parts of the model take and its parameters: as the tensors tell, or else as a dense model of that shape.

    With experts the shape tells too little; there the bytes on disk are counted, side tensors and all.
    """
    if shards.tensors.counts:
        return sum_up(shards.tensors, shape.hidden_size), shards.parameters
    config, on_disk = configuration.text, sum(shards.files.values())
    if _has_experts(configuration):
        return TensorSums(linear_bytes=on_disk), on_disk * 8 // quantization.bits
    # Qwen has a bias for queries, keys and values alone, InternLM and Llama for the output as well.
    has_bias = _has_bias(config, configuration.architecture)
    sums = dense_sums(
        shape,
        group_size=(quantization.group_size or 128) if quantization.bits == 4 else None,
        has_bias=has_bias,
        has_output_bias=has_bias and not configuration.architecture.startswith(("Qwen", "QWen")),
        is_tied=is_tied,
    )
    return sums, dense_parameters(shape, sums)


def _serving_problems(artifact: Artifact, is_stated: bool) -> Iterator[Problem]:
    if artifact.is_quantized and not is_stated:
        message = f"config.json has no quantization_config, although the weights are {artifact.weight_format}"
        hint = f"plans pass --model-format {artifact.weight_format}, so that it is served right"
        yield Problem("warning", message, hint)
    tower = artifact.config.get("mm_vision_tower")
    if isinstance(tower, str) and artifact.tensors.tower_bytes < _SMALLEST_TOWER_BYTES:
        message = f"the vision tower {tower[:120]} is not here: LMDeploy fetches it from a hub when it starts"
        yield Problem("warning", message, "have a network there, or give the path of a copy as mm_vision_tower")
    for needed in artifact.lmdeploy.needs:
        yield Problem("warning", needed, "LMDeploy does not load the model as it is")
    if artifact.lmdeploy.pin is None:
        hint = "serve another model, or the PyTorch engine of a newer LMDeploy than deploytk knows"
        yield Problem("warning", artifact.lmdeploy.reason, hint)
    if artifact.chat_template is None:
        message = "the tokenizer has no chat template, so that chat requests get a plain concatenation"
        yield Problem("warning", message, "add chat_template.jinja beside tokenizer_config.json")


def _own_template(config: dict[str, object]) -> str | None:
    """The chat template that a repository of LMDeploy's own first format names."""
    part = config.get("turbomind")
    name = part.get("model_name") if isinstance(part, dict) else None
    return name if isinstance(name, str) and name.isprintable() else None


def _made_by(config: Reader, *, is_by_old_lmdeploy: bool) -> str:
    own = config.name("lmdeploy_version") if config.has("turbomind") else ""
    if own:
        return f"lmdeploy {own}"
    if is_by_old_lmdeploy:
        return "lmdeploy 0.0.10-0.3.0"
    version = config.name("transformers_version")
    return f"transformers {version}" if version else "unknown"


def _dtype(config: Reader, shards: Shards) -> Literal["float16", "bfloat16", "float32"]:
    named = config.name("dtype") or config.name("torch_dtype")
    stated = named.removeprefix("torch.")
    if stated in ("float16", "bfloat16", "float32"):
        return stated  # type: ignore[return-value]
    found = {group.dtype for group, _ in shards.tensors}
    return "bfloat16" if "BF16" in found else "float32" if "F32" in found and "F16" not in found else "float16"


def _is_tied(configuration: Configuration, shards: Shards) -> bool:
    """Whether the embedding is the head: where the files have no head, or the configuration says so."""
    if shards.tensors.counts and not any(role_of(group) == "head" for group, _ in shards.tensors):
        return True
    if shards.names and not shards.tensors.counts:
        return not any(
            name.endswith(("lm_head.weight", "output.weight", "output_layer.weight")) for name in shards.names
        )
    return configuration.text.flag("tie_word_embeddings")


def _embedding_rows(shards: Shards) -> int:
    """As many tokens as the embedding has rows for: models with images have some beyond the vocabulary."""
    return max((group.shape[0] for group, _ in shards.tensors if role_of(group) == "embedding"), default=0)


def _has_bias(config: Reader, architecture: str) -> bool:
    by_default = architecture.startswith(("Qwen2", "QWen"))
    key = next((key for key in ("attention_bias", "bias", "add_qkv_bias") if config.has(key)), "attention_bias")
    return config.flag(key, by_default)


def _norm_eps(config: Reader) -> float:
    keys = ("rms_norm_eps", "layernorm_epsilon", "layer_norm_epsilon")
    return next((config.real(key, 1e-6) for key in keys if config.has(key)), 1e-6)


def _belonging(entries: Sequence[FileEntry], shards: Shards) -> tuple[ModelFile, ...]:
    """Weights, tokenizer, configuration, code; no leftovers, and no other weights than those that are loaded."""
    return tuple(
        ModelFile(entry.path, entry.bytes, entry.path in shards.files)
        for entry in entries
        if entry.path in shards.files or (entry.may_belong and not _is_other_weights(entry))
    )


def _is_other_weights(entry: FileEntry) -> bool:
    return entry.is_pickle or entry.name.endswith(".safetensors")
