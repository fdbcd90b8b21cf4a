"""The config.json that a workspace's tensors go with: from its own configuration and the copy of the model's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploytk.artifact import Artifact
from deploytk.artifact.text_formats import read_json
from deploytk.base.digits import whole_number
from deploytk.base.errors import WeightsError
from deploytk.weights.names import LLAMA, Family

# Written anew, under both the name that transformers 5 reads and the older one.
_REPLACED = ("quantization_config", "rope_scaling", "rope_theta", "rope_parameters", "dtype", "torch_dtype", "bias")

# Chat templates of models that have Llama's layout; up to 0.4.2 nothing else in config.ini tells the architecture.
# Source: the names in lmdeploy/model.py, v0.0.14 to v0.4.2, that belong to `--model-format hf` in the converter.
_LLAMA_TEMPLATES = (
    "codellama", "deepseek", "llama", "mistral", "solar", "ultracm", "ultralm", "vicuna", "wizardlm", "yi",
)  # fmt: skip
_INTERNLM_TEMPLATES = ("internlm2", "internlm-", "puyu")


@dataclass(frozen=True, slots=True)
class Original:
    """What the copied config.json of the original model adds to the workspace's own configuration."""

    config: dict[str, Any]  # empty when there is no copy
    is_tied: bool
    repeats: int  # how often each key/value head is in the workspace
    padding: int  # inner columns that were added


def tokenizer_directory(artifact: Artifact) -> Path:
    """Where a workspace keeps its tokenizer, and a copy of config.json: from 0.7.0.post2 on at its root."""
    directory = artifact.root / "triton_models" / "tokenizer"
    return directory if artifact.layout == "workspace" and directory.is_dir() else artifact.root


def read_original(artifact: Artifact, are_embeddings_equal: Callable[[], bool]) -> Original:
    """The copied config.json, checked against the workspace; WeightsError where the two describe different models.

    A workspace always has an output of its own. It is taken for the tied embedding when the copy says so and both
    are equal byte for byte; without a copy, when they are equal. An untied pair differs in its first bytes.
    """
    path = tokenizer_directory(artifact) / "config.json"
    if not path.is_file():
        _refuse_undecided(artifact)
        return Original({}, are_embeddings_equal(), 1, 0)
    config = read_json(path)
    names = config.get("architectures")
    if isinstance(names, list) and names and names[0] != artifact.architecture:
        raise _disagreement(artifact, path, "architectures", artifact.architecture, names[0])
    for key, own in (
        ("hidden_size", artifact.hidden_size),
        ("num_hidden_layers", artifact.layers),
        ("num_attention_heads", artifact.heads),
        ("head_dim", artifact.head_dim),
        ("vocab_size", artifact.vocab_size),
    ):
        if config.get(key) not in (None, own):
            raise _disagreement(artifact, path, key, own, config[key])
    if (config.get("bias") is True or config.get("attention_bias") is True) and not artifact.attention_bias:
        raise WeightsError(
            f"{artifact.root} has no attention bias, but {path} says that the model has it",
            hint="LMDeploy 0.6.4-0.9.2 left it out when converting; start from the original model",
        )
    is_tied = config.get("tie_word_embeddings") is True and are_embeddings_equal()
    return Original(config, is_tied, _repeats(artifact, path, config), _padding(artifact, path, config))


def build_config(artifact: Artifact, family: Family, original: Original) -> dict[str, Any]:
    """config.json for the tensors of a workspace, without quantization_config."""
    copied = {key: value for key, value in original.config.items() if key not in _REPLACED}
    if family.architecture != artifact.architecture or not _has_code(artifact, copied):
        copied.pop("auto_map", None)
    rope = _rope_parameters(artifact)
    config = copied | {
        "architectures": [family.architecture],
        "model_type": family.model_type,
        "hidden_act": copied.get("hidden_act", "silu"),
        "hidden_size": artifact.hidden_size,
        "intermediate_size": artifact.intermediate_size - original.padding,
        "max_position_embeddings": _longest(artifact, copied),
        "num_attention_heads": artifact.heads,
        "num_hidden_layers": artifact.layers,
        "num_key_value_heads": artifact.kv_heads // original.repeats,
        "rms_norm_eps": artifact.norm_eps,
        "rope_theta": artifact.rope.theta,
        "rope_scaling": {"type": rope["rope_type"], **rope} if artifact.rope.scaling else None,
        "rope_parameters": rope,
        "tie_word_embeddings": original.is_tied,
        "dtype": artifact.weight_dtype,
        "torch_dtype": artifact.weight_dtype,
        "vocab_size": artifact.vocab_size,
    }
    if artifact.head_dim * artifact.heads != artifact.hidden_size or "head_dim" in copied or family is LLAMA:
        config["head_dim"] = artifact.head_dim
    if family is LLAMA:
        config["attention_bias"] = artifact.attention_bias
        config.setdefault("mlp_bias", False)
    if family.model_type == "internlm2":
        config["bias"] = artifact.attention_bias
    return config | _token_ids(artifact, copied)


def _has_code(artifact: Artifact, config: dict[str, Any]) -> bool:
    """Whether the Python files that `auto_map` names are there."""
    named = config.get("auto_map")
    if not isinstance(named, dict):
        return False
    modules = {str(value).rpartition("--")[2].partition(".")[0] for value in named.values() if isinstance(value, str)}
    return all((tokenizer_directory(artifact) / f"{module}.py").is_file() for module in modules)


def _rope_parameters(artifact: Artifact) -> dict[str, Any]:
    return {"rope_type": "default", **dict(artifact.rope.scaling), "rope_theta": artifact.rope.theta}


def _longest(artifact: Artifact, copied: dict[str, Any]) -> int:
    """The positions that the model was made for; config.ini keeps 8 more than the session (`session_len + 8`)."""
    for found in (copied.get("max_position_embeddings"), artifact.config.get("max_position_embeddings")):
        stated = whole_number(str(found))
        if stated:
            return stated
    return artifact.session_len - 8 if artifact.config_format == "ini" else artifact.session_len


def _token_ids(artifact: Artifact, copied: dict[str, Any]) -> dict[str, int]:
    """Begin and end of a text where config.json does not say them: config.ini and config.yaml up to 0.7.0 do."""
    found: dict[str, int] = {}
    for key, own in (("bos_token_id", "start_id"), ("eos_token_id", "end_id")):
        value = whole_number(str(artifact.config.get(own)))
        if key not in copied and value is not None:
            found[key] = value
    return found


def _repeats(artifact: Artifact, path: Path, config: dict[str, Any]) -> int:
    """With more ranks than key/value heads, 0.6.0 and later repeat each head as often as needed (`_repeat_kv`)."""
    heads = config.get("num_key_value_heads", config.get("num_attention_heads"))
    if heads in (None, artifact.kv_heads):
        return 1
    is_repeated = (
        artifact.config_format == "yaml"
        and isinstance(heads, int)
        and 0 < heads < artifact.tensor_parallel == artifact.kv_heads
        and artifact.kv_heads % heads == 0
    )
    if not is_repeated:
        raise _disagreement(artifact, path, "num_key_value_heads", artifact.kv_heads, heads)
    return int(artifact.kv_heads // heads)


def _padding(artifact: Artifact, path: Path, config: dict[str, Any]) -> int:
    """0.6.0 and later pad inner columns to the same whole number of groups on each rank (`_pad_inter_size`)."""
    size = config.get("intermediate_size")
    if size in (None, artifact.intermediate_size):
        return 0
    group = artifact.group_size or 1
    if artifact.config_format == "yaml" and isinstance(size, int) and size > 0 and size % group == 0:
        per_rank = -(-(size // group) // artifact.tensor_parallel)
        if per_rank * group * artifact.tensor_parallel == artifact.intermediate_size:
            return artifact.intermediate_size - size
    raise _disagreement(artifact, path, "intermediate_size", artifact.intermediate_size, size)


def _refuse_undecided(artifact: Artifact) -> None:
    """A config.ini before 0.5.0 without a copied config.json names its architecture by its chat template alone."""
    if artifact.config_format == "yaml" or "model_arch" in artifact.config:
        return
    template = (artifact.chat_template or "").lower()
    is_llama = template.startswith(_LLAMA_TEMPLATES) and not artifact.attention_bias
    if not is_llama and not template.startswith(_INTERNLM_TEMPLATES):
        raise WeightsError(
            f"{artifact.root} does not say which architecture it has: its chat template is {template or 'none'}",
            hint="put the config.json of the original model into triton_models/tokenizer/",
        )


def _disagreement(artifact: Artifact, path: Path, key: str, own: object, copied: object) -> WeightsError:
    return WeightsError(
        f"{artifact.root}: the workspace is made for {key} {own}, but {path} says {copied}",
        hint="take the workspace and the config.json in it from one conversion",
    )
