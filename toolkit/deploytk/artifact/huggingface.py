"""Reads a Hugging Face model directory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, Literal

from deploytk import lmdeploy
from deploytk.artifact.quantization import NOT_QUANTIZED, Quantization, read_quantization
from deploytk.artifact.safetensors_header import TensorEntry, read_header
from deploytk.artifact.text_formats import Reader, read_json
from deploytk.artifact.tree import FileEntry
from deploytk.artifact.value import Artifact, ModelFile, Problem, Rope
from deploytk.errors import ArtifactError

_SHOWN = 3  # problems of one kind that are spelled out
_WHOLE = "take the file from the original model, whole"

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

# What a quantized tensor holds besides the weights themselves.
_SIDE_TENSORS = (
    ".qzeros",
    ".scales",
    ".g_idx",
    "_scale",
    "_scale_inv",
    "_scales",
    ".weight_shape",
    ".weight_zero_point",
    ".scale",
)


@dataclass(frozen=True, slots=True)
class _Shards:
    """The weight files of a directory and what their headers hold."""

    files: dict[str, int]  # path -> bytes
    tensors: dict[str, TensorEntry]  # all shards together; empty for pickles
    names: frozenset[str]  # of tensors, known from an index also for pickles
    problems: tuple[Problem, ...]


def read_huggingface(root: Path, entries: Sequence[FileEntry]) -> Artifact:
    """The model at `root`, whose config.json is there; `problems` says what is wrong with its weights."""
    path = root / "config.json"
    top = read_json(path)
    text = next((top[key] for key in ("text_config", "llm_config") if isinstance(top.get(key), dict)), top)
    config = Reader(path, {**top, **text})
    shards = _read_shards(root, entries)
    stated = read_quantization(path, top)
    is_unstated_awq = stated is None and any(name.endswith(".qweight") for name in shards.names)
    quantization = stated or (_unstated_awq(shards) if is_unstated_awq else NOT_QUANTIZED)
    architecture = _architecture(top, path)
    versions = lmdeploy.versions_for_huggingface(architecture, quantization.weight_format)
    heads = _first(config, "num_attention_heads", "n_head")
    hidden = _first(config, "hidden_size", "n_embd")
    head_dim = config.whole("head_dim", _first(config, "kv_channels", default=max(1, hidden // heads)))
    chat_template = _chat_template(root)
    artifact = Artifact(
        root=root,
        layout="huggingface",
        config_format="json",
        made_by=_made_by(config, is_unstated_awq),
        architecture=architecture,
        weight_format=quantization.weight_format,
        weight_dtype=_dtype(config, shards),
        weight_bits=quantization.bits,
        group_size=quantization.group_size,
        weights_bytes=sum(shards.files.values()),
        parameters=_parameters(shards.tensors),
        layers=_first(config, "num_hidden_layers", "n_layer", "num_layers"),
        hidden_size=hidden,
        intermediate_size=_first(config, "intermediate_size", "ffn_hidden_size", "moe_intermediate_size", "n_inner"),
        heads=heads,
        kv_heads=_first(config, "num_key_value_heads", "multi_query_group_num", default=heads),
        head_dim=head_dim,
        vocab_size=_first(config, "vocab_size", "padded_vocab_size"),
        tied_embeddings=_is_tied(config, shards),
        attention_bias=_has_bias(config, architecture),
        norm_eps=_norm_eps(config),
        rope=_rope(config, head_dim),
        session_len=min([config.whole(key) for key in _SESSION_KEYS if config.has(key)], default=2048),
        kv_policy="none",
        tensor_parallel=1,
        chat_template=chat_template,
        lmdeploy=versions,
        config=top,
        files=_belonging(entries, shards),
        problems=(*shards.problems, *quantization.problems),
    )
    return _with_problems(artifact, shards, is_unstated_awq)


def _with_problems(artifact: Artifact, shards: _Shards, is_unstated_awq: bool) -> Artifact:
    problems = [*artifact.problems, *_shape_problems(artifact, shards.tensors)]
    if is_unstated_awq:
        message = (
            "config.json has no quantization_config although the weights are AWQ (LMDeploy up to 0.3.0 wrote none)"
        )
        problems.append(Problem("warning", message, "plans pass --model-format awq, so that it is served right"))
    if artifact.lmdeploy.pin is None:
        hint = "serve another model, or the PyTorch engine of a newer LMDeploy than deploytk knows"
        problems.append(Problem("warning", artifact.lmdeploy.reason, hint))
    if artifact.chat_template is None:
        message = "the tokenizer has no chat template, so that chat requests get a plain concatenation"
        problems.append(Problem("warning", message, "add chat_template.jinja beside tokenizer_config.json"))
    return replace(artifact, problems=tuple(problems))


def _first(config: Reader, *keys: str, default: int | None = None) -> int:
    """The whole number under the first of `keys` that is there."""
    key = next((key for key in keys if config.has(key)), keys[0])
    return config.whole(key, default)


def _architecture(top: dict[str, Any], path: Path) -> str:
    names = top.get("architectures")
    if not isinstance(names, list) or not names:
        raise ArtifactError(f"{path} names no architecture", hint='it must have architectures: ["...ForCausalLM"]')
    return Reader(path, {"architectures": names[0]}).name("architectures")


def _made_by(config: Reader, is_unstated_awq: bool) -> str:
    if is_unstated_awq:
        return "lmdeploy 0.0.10-0.3.0"
    version = config.name("transformers_version")
    return f"transformers {version}" if version else "unknown"


def _dtype(config: Reader, shards: _Shards) -> Literal["float16", "bfloat16", "float32"]:
    named = config.name("dtype") or config.name("torch_dtype")
    stated = named.removeprefix("torch.")
    if stated in ("float16", "bfloat16", "float32"):
        return stated  # type: ignore[return-value]
    found = {entry.dtype for entry in shards.tensors.values()}
    return "bfloat16" if "BF16" in found else "float32" if "F32" in found and "F16" not in found else "float16"


def _is_tied(config: Reader, shards: _Shards) -> bool:
    if shards.names:
        return not any(
            name.endswith(("lm_head.weight", "output.weight", "output_layer.weight")) for name in shards.names
        )
    return config.flag("tie_word_embeddings")


def _has_bias(config: Reader, architecture: str) -> bool:
    by_default = architecture.startswith(("Qwen2", "QWen"))
    return config.flag("attention_bias", config.flag("bias", by_default))


def _norm_eps(config: Reader) -> float:
    keys = ("rms_norm_eps", "layernorm_epsilon", "layer_norm_epsilon")
    return next((config.real(key, 1e-6) for key in keys if config.has(key)), 1e-6)


def _rope(config: Reader, head_dim: int) -> Rope:
    scaling: dict[str, Any] = {}
    for key in ("rope_scaling", "rope_parameters"):
        if isinstance(config.values.get(key), dict):
            scaling |= config.values[key]
    nested = Reader(config.path, {**config.values, **scaling})
    kind = nested.name("rope_type") or nested.name("type")
    plain = {
        key: value for key, value in scaling.items() if isinstance(value, (int, float, str)) and key != "rope_theta"
    }
    is_scaled = bool(scaling) and kind not in ("", "default")
    named = tuple({**plain, "rope_type": kind}.items()) if is_scaled else ()
    return Rope(nested.real("rope_theta", 10000), head_dim, tuple(item for item in named if item[0] != "type"))


def _chat_template(root: Path) -> str | None:
    if any((root / name).is_file() for name in ("chat_template.jinja", "chat_template.json")):
        return "hf"
    path = root / "tokenizer_config.json"
    return "hf" if path.is_file() and read_json(path).get("chat_template") else None


def _read_shards(root: Path, entries: Sequence[FileEntry]) -> _Shards:
    at_root = {entry.path: entry.bytes for entry in entries if "/" not in entry.path and not entry.is_leftover}
    shards = {path: size for path, size in at_root.items() if path.endswith(".safetensors")}
    if not shards:
        return _read_pickles(root, at_root)
    problems: list[Problem] = []
    tensors: dict[str, TensorEntry] = {}
    home: dict[str, str] = {}
    for shard in shards:
        try:
            header = read_header(root / shard)
        except ArtifactError as error:
            problems.append(Problem("error", str(error).replace(f"{root}/", ""), error.hint))
            continue
        twice = next((name for name in header if name in home), None)
        if twice:
            problems.append(Problem("error", f"{twice} is in both {home[twice]} and {shard}", _WHOLE))
        tensors |= header
        home |= dict.fromkeys(header, shard)
    index = root / "model.safetensors.index.json"
    if index.is_file():
        problems += _index_problems(_weight_map(index), home, shards, is_checked=not problems)
    elif len(shards) > 1 and "model.safetensors" not in shards:
        message = f"{index.name} is missing, although the weights are in {len(shards)} files"
        problems.append(Problem("error", message, "copy it from the original model"))
    return _Shards(shards, tensors, frozenset(tensors), tuple(problems))


def _read_pickles(root: Path, at_root: dict[str, int]) -> _Shards:
    """Pickled weights are never opened: only an index beside them tells what they hold."""
    index = root / "pytorch_model.bin.index.json"
    found = {path: size for path, size in at_root.items() if path.endswith(".bin")}
    if not index.is_file():
        return _Shards(found, {}, frozenset(), ())
    weight_map = _weight_map(index)
    problems = _missing_shards(set(weight_map.values()), found)
    return _Shards(found, {}, frozenset(weight_map), tuple(problems))


def _weight_map(index: Path) -> dict[str, str]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise ArtifactError(f"{index} has no weight_map", hint="copy it from the original model")
    return weight_map


def _index_problems(
    weight_map: dict[str, str], home: dict[str, str], shards: dict[str, int], *, is_checked: bool
) -> Iterator[Problem]:
    yield from _missing_shards(set(weight_map.values()), shards)
    if not is_checked or set(weight_map.values()) - shards.keys():
        return
    lost = [f"{name} is not in {shard}" for name, shard in weight_map.items() if home.get(name) != shard]
    yield from _few(lost, "tensors of the index missing")
    strays = [f"{shard} is not in the index" for shard in sorted(shards.keys() - set(weight_map.values()))]
    yield from _few(strays, "files not in the index")
    unlisted = [f"{name} in {shard} is not in the index" for name, shard in home.items() if name not in weight_map]
    yield from _few(unlisted if not strays else [], "tensors not in the index")


def _missing_shards(expected: set[str], found: dict[str, int]) -> Iterator[Problem]:
    yield from _few([f"{shard} is missing" for shard in sorted(expected - found.keys())], "files missing")


def _few(messages: list[str], what: str) -> Iterator[Problem]:
    for message in messages[:_SHOWN]:
        yield Problem("error", message, _WHOLE)
    if len(messages) > _SHOWN:
        yield Problem("error", f"{len(messages)} {what} in all", _WHOLE)


def _unstated_awq(shards: _Shards) -> Quantization:
    """LMDeploy up to 0.3.0 quantized to 4 bits in groups of 128, without a word in config.json."""
    for name, entry in shards.tensors.items():
        scales = shards.tensors.get(f"{name.removesuffix('qweight')}scales")
        if name.endswith(".qweight") and scales and scales.shape[0]:
            return Quantization("awq", 4, entry.shape[0] // scales.shape[0])
    return Quantization("awq", 4, 128)


def _parameters(tensors: dict[str, TensorEntry]) -> int:
    """Parameters as if nothing were quantized: a 4-bit tensor holds eight in an int32, two in a byte."""
    count = 0
    for name, entry in tensors.items():
        if name.endswith(_SIDE_TENSORS):
            continue
        packed = 8 if name.endswith((".qweight", ".weight_packed")) else 2 if name.endswith("_blocks") else 1
        count += prod(entry.shape) * packed
    return count


def _shape_problems(artifact: Artifact, tensors: dict[str, TensorEntry]) -> Iterator[Problem]:
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
    if numbers and len(numbers) != artifact.layers:
        message = f"the weights have {len(numbers)} layers, {artifact.layers} expected from config.json"
        yield Problem("error", message, "take config.json and the weights from one model")


def _belonging(entries: Sequence[FileEntry], shards: _Shards) -> tuple[ModelFile, ...]:
    """Weights, tokenizer, configuration, code; no leftovers, and no pickles beside safetensors."""
    return tuple(
        ModelFile(entry.path, entry.bytes, entry.path in shards.files)
        for entry in entries
        if entry.is_reachable and not entry.is_leftover and (not entry.is_pickle or entry.path in shards.files)
    )
