"""Reads a Hugging Face model directory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from deploytk import lmdeploy
from deploytk.artifact.facts import (
    quantization_facts,
    sliding_window,
    stated_quantization,
    tensors_quantization,
    text_architecture,
)
from deploytk.artifact.quantization import NOT_QUANTIZED, Quantization, read_quantization
from deploytk.artifact.safetensors_header import TensorEntry
from deploytk.artifact.shards import Shards, read_shards
from deploytk.artifact.text_formats import Reader, read_json
from deploytk.artifact.tokenizer import read_tokenizer
from deploytk.artifact.tree import FileEntry
from deploytk.artifact.value import Artifact, ModelFile, Problem, Rope
from deploytk.base.errors import ArtifactError

# Where LMDeploy looks for the longest session: `_get_and_verify_max_len`, lmdeploy/utils.py.
_SESSION_KEYS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "model_max_length",
    "max_sequence_length",
    "max_seq_length",
    "seq_len",
)

_EXPERT_KEYS = ("num_experts", "num_local_experts", "n_routed_experts")


def read_huggingface(root: Path, entries: Sequence[FileEntry]) -> Artifact:
    """The model at `root`, whose config.json is there; `problems` says what is wrong with its weights."""
    path = root / "config.json"
    top = read_json(path)
    text = next((top[key] for key in ("text_config", "llm_config") if isinstance(top.get(key), dict)), top)
    config = Reader(path, {**top, **text})
    shards = read_shards(root, entries)
    stated = read_quantization(path, top)
    quantization = stated or _unstated(shards) or NOT_QUANTIZED
    architecture = _architecture(top, path)
    heads = _first(config, "num_attention_heads", "n_head")
    hidden = _first(config, "hidden_size", "n_embd")
    head_dim = config.whole("head_dim", _first(config, "kv_channels", default=max(1, hidden // heads)))
    kv_heads = _first(config, "num_key_value_heads", "multi_query_group_num", default=heads)
    layers = _first(config, "num_hidden_layers", "n_layer", "num_layers")
    of_weights = stated_quantization(top)
    facts = lmdeploy.ModelFacts(
        architecture=architecture,
        text_architecture=text_architecture(top),
        layers=layers,
        hidden_size=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        states_head_dim=config.has("head_dim"),
        states_kv_heads=config.has("num_key_value_heads"),
        sliding_window=sliding_window(config),
        has_vision=isinstance(top.get("vision_config"), dict),
        model_version=str(top["version"]) if isinstance(top.get("version"), (str, int, float)) else None,
        has_turbomind="turbomind" in top,
        quantization=quantization_facts(Reader(path, of_weights))
        if isinstance(of_weights, dict)
        else tensors_quantization(quantization.weight_format, quantization.bits, quantization.group_size),
    )
    tokenizer = read_tokenizer(root)
    artifact = Artifact(
        root=root,
        layout="huggingface",
        config_format="json",
        made_by=_made_by(config, is_by_old_lmdeploy=quantization.weight_format == "awq" and not stated),
        architecture=architecture,
        weight_format=quantization.weight_format,
        weight_dtype=_dtype(config, shards),
        weight_bits=quantization.bits,
        group_size=quantization.group_size,
        weights_bytes=sum(shards.files.values()),
        parameters=shards.parameters,
        layers=layers,
        hidden_size=hidden,
        intermediate_size=_intermediate_size(config, architecture),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocab_size=_first(config, "vocab_size", "padded_vocab_size"),
        tied_embeddings=_is_tied(config, shards),
        attention_bias=_has_bias(config, architecture),
        norm_eps=_norm_eps(config),
        rope=_rope(config, architecture, head_dim),
        session_len=min([config.whole(key) for key in _SESSION_KEYS if config.has(key)], default=2048),
        kv_policy="none",
        tensor_parallel=1,
        chat_template="hf" if tokenizer.has_chat_template else None,
        lmdeploy=lmdeploy.support(facts),
        facts=facts,
        config=top,
        files=_belonging(entries, shards),
        problems=(*shards.problems, *tokenizer.problems, *quantization.problems),
    )
    artifact = artifact if artifact.parameters else replace(artifact, parameters=_dense_parameters(artifact))
    found = (*artifact.problems, *_shape_problems(artifact, shards.tensors), *_serving_problems(artifact, bool(stated)))
    return replace(artifact, problems=found)


def _serving_problems(artifact: Artifact, is_stated: bool) -> Iterator[Problem]:
    if artifact.is_quantized and not is_stated:
        message = f"config.json has no quantization_config, although the weights are {artifact.weight_format}"
        hint = f"plans pass --model-format {artifact.weight_format}, so that it is served right"
        yield Problem("warning", message, hint)
    if "auto_map" in artifact.config:
        message = "config.json names code of its own (auto_map)"
        yield Problem("warning", message, "LMDeploy from 0.13.0 on runs it with --trust-remote-code alone")
    if artifact.lmdeploy.pin is None:
        hint = "serve another model, or the PyTorch engine of a newer LMDeploy than deploytk knows"
        yield Problem("warning", artifact.lmdeploy.reason, hint)
    if artifact.chat_template is None:
        message = "the tokenizer has no chat template, so that chat requests get a plain concatenation"
        yield Problem("warning", message, "add chat_template.jinja beside tokenizer_config.json")


def _dense_parameters(artifact: Artifact) -> int:
    """Parameters of a model of that shape: pickled weights do not tell how many they hold.

    With experts the shape tells too little; there the bytes on disk are counted, side tensors and all.
    """
    if any(isinstance(artifact.config.get(key), int) for key in _EXPERT_KEYS):
        return artifact.weights_bytes * 8 // artifact.weight_bits
    width = artifact.heads * artifact.head_dim
    keys_and_values = 2 * artifact.kv_heads * artifact.head_dim
    attention = artifact.hidden_size * (2 * width + keys_and_values)
    # Qwen has a bias for queries, keys and values alone, InternLM and Llama for the output as well.
    bias_of_output = 0 if artifact.architecture.startswith(("Qwen", "QWen")) else artifact.hidden_size
    bias = width + keys_and_values + bias_of_output if artifact.attention_bias else 0
    feed_forward = 3 * artifact.hidden_size * artifact.intermediate_size
    embeddings = (1 if artifact.tied_embeddings else 2) * artifact.vocab_size * artifact.hidden_size
    layer = attention + bias + feed_forward + 2 * artifact.hidden_size
    return artifact.layers * layer + embeddings + artifact.hidden_size


def _first(config: Reader, *keys: str, default: int | None = None) -> int:
    """The whole number under the first of `keys` that is there."""
    key = next((key for key in keys if config.has(key)), keys[0])
    return config.whole(key, default)


def _architecture(top: dict[str, Any], path: Path) -> str:
    names = top.get("architectures")
    if not isinstance(names, list) or not names:
        raise ArtifactError(f"{path} names no architecture", hint='it must have architectures: ["...ForCausalLM"]')
    return Reader(path, {"architectures": names[0]}).name("architectures")


def _made_by(config: Reader, *, is_by_old_lmdeploy: bool) -> str:
    if is_by_old_lmdeploy:
        return "lmdeploy 0.0.10-0.3.0"
    version = config.name("transformers_version")
    return f"transformers {version}" if version else "unknown"


def _dtype(config: Reader, shards: Shards) -> Literal["float16", "bfloat16", "float32"]:
    named = config.name("dtype") or config.name("torch_dtype")
    stated = named.removeprefix("torch.")
    if stated in ("float16", "bfloat16", "float32"):
        return stated  # type: ignore[return-value]
    found = {entry.dtype for entry in shards.tensors.values()}
    return "bfloat16" if "BF16" in found else "float32" if "F32" in found and "F16" not in found else "float16"


def _is_tied(config: Reader, shards: Shards) -> bool:
    if shards.names:
        return not any(
            name.endswith(("lm_head.weight", "output.weight", "output_layer.weight")) for name in shards.names
        )
    return config.flag("tie_word_embeddings")


def _has_bias(config: Reader, architecture: str) -> bool:
    by_default = architecture.startswith(("Qwen2", "QWen"))
    key = next((key for key in ("attention_bias", "bias", "add_qkv_bias") if config.has(key)), "attention_bias")
    return config.flag(key, by_default)


def _intermediate_size(config: Reader, architecture: str) -> int:
    size = _first(config, "intermediate_size", "ffn_hidden_size", "moe_intermediate_size", "n_inner")
    return size // 2 if architecture == "QWenLMHeadModel" else size  # Qwen1 counts its two halves together


def _norm_eps(config: Reader) -> float:
    keys = ("rms_norm_eps", "layernorm_epsilon", "layer_norm_epsilon")
    return next((config.real(key, 1e-6) for key in keys if config.has(key)), 1e-6)


def _rope(config: Reader, architecture: str, head_dim: int) -> Rope:
    stated: dict[str, Any] = {}
    for key in ("rope_scaling", "rope_parameters"):
        part = config.values.get(key)
        if isinstance(part, dict):
            # Models with sliding windows have one set of parameters for each kind of layer.
            full = part.get("full_attention")
            stated |= full if isinstance(full, dict) else part
    rope = Reader(config.path, {**config.values, **stated})
    theta = rope.real("rope_theta", rope.real("rotary_emb_base", 10000 * rope.real("rope_ratio", 1)))
    rotated = rope.real("partial_rotary_factor", 0.5 if architecture == "ChatGLMModel" else 1)
    dim = max(1, int(head_dim * min(rotated, 1)))
    kind = rope.name("rope_type") or rope.name("type")
    if not stated or kind in ("", "default"):
        return Rope(theta, dim, ())
    other = ("rope_theta", "rope_type", "type", "partial_rotary_factor")
    values = [(key, value) for key, value in stated.items() if isinstance(value, (int, float, str))]
    return Rope(theta, dim, (("rope_type", kind), *(item for item in values if item[0] not in other)))


def _unstated(shards: Shards) -> Quantization | None:
    """How 4-bit weights are quantized about which config.json says nothing, None when there are none.

    LMDeploy up to 0.3.0 wrote AWQ so. AWQ packs eight columns into an int32, GPTQ eight rows
    (`weight_format.py`, LMDeploy 0.18.0). Pickles do not show shapes: there it is AWQ unless GPTQ's g_idx is there.
    """
    packed = next((name for name in sorted(shards.names) if name.endswith(".qweight")), None)
    if packed is None:
        return None
    stem = packed.removesuffix("qweight")
    weight, scales = shards.tensors.get(packed), shards.tensors.get(f"{stem}scales")
    is_gptq = f"{stem}g_idx" in shards.names
    if weight is None or scales is None:
        return Quantization("gptq" if is_gptq else "awq", 4, 128)
    if len(weight.shape) != 2 or len(scales.shape) != 2 or 0 in scales.shape:
        problem = Problem("error", f"{packed} and its scales are no matrices", "quantize the model again")
        return Quantization("awq", 4, 128, (problem,))
    is_gptq = is_gptq or weight.shape[1] == scales.shape[1]
    rows = weight.shape[0] * (8 if is_gptq else 1)
    return Quantization("gptq" if is_gptq else "awq", 4, rows // scales.shape[0])


def _shape_problems(artifact: Artifact, tensors: Mapping[str, TensorEntry]) -> Iterator[Problem]:
    """Where config.json and the weights of a Llama-like model disagree."""
    rows, hidden = artifact.heads * artifact.head_dim, artifact.hidden_size
    query = "model.layers.0.self_attn.q_proj"
    expected = {
        "model.embed_tokens.weight": (artifact.vocab_size, hidden),
        f"{query}.weight": (rows, hidden),
        f"{query}.qweight": (hidden, rows // 8) if artifact.weight_format == "awq" else (hidden // 8, rows),
    }
    for name, shape in expected.items():
        if name in tensors and tensors[name].shape != shape:
            message = f"{name} has shape {list(tensors[name].shape)}, {list(shape)} expected from config.json"
            yield Problem("error", message, "take config.json and the weights from one model")
    numbers = {name.split(".")[2] for name in tensors if name.startswith("model.layers.")}
    # DeepSeek-V3 and GLM-4.5 keep layers for speculative decoding after the others.
    surplus = artifact.config.get("num_nextn_predict_layers")
    most = artifact.layers + (surplus if isinstance(surplus, int) else 0)
    if numbers and not artifact.layers <= len(numbers) <= most:
        message = f"the weights have {len(numbers)} layers, {artifact.layers} expected from config.json"
        yield Problem("error", message, "take config.json and the weights from one model")


def _belonging(entries: Sequence[FileEntry], shards: Shards) -> tuple[ModelFile, ...]:
    """Weights, tokenizer, configuration, code; no leftovers, and no other weights than those that are loaded."""
    return tuple(
        ModelFile(entry.path, entry.bytes, entry.path in shards.files)
        for entry in entries
        if entry.path in shards.files or (entry.may_belong and not _is_other_weights(entry))
    )


def _is_other_weights(entry: FileEntry) -> bool:
    return entry.is_pickle or entry.name.endswith(".safetensors")
