"""Reads a workspace that `lmdeploy convert` wrote (0.0.x to 0.9.2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from deploytk import lmdeploy
from deploytk.artifact.attention import Attention, LatentAttention, read_latent
from deploytk.artifact.chat_templates import named_tool_format
from deploytk.artifact.remote_code import names_code
from deploytk.artifact.text_formats import Reader, read_ini, read_json, read_yaml
from deploytk.artifact.tokenizer import read_tokenizer
from deploytk.artifact.tree import FileEntry
from deploytk.artifact.value import Artifact, KvPolicy, ModelFile, Problem
from deploytk.artifact.workspace_files import WorkspaceShape, sum_files
from deploytk.artifact.workspace_problems import (
    TEMPLATE_FAMILIES,
    kv_scale_problems,
    layout_problems,
    loading_problems,
    template_problems,
    vision_problems,
    weight_problems,
)
from deploytk.artifact.workspace_rope import read_rope, rope_problems
from deploytk.base.errors import ArtifactError

WEIGHTS = Path("triton_models/weights")
TOKENIZER = Path("triton_models/tokenizer")
_CONFIGS = ("config.ini", "config.yaml")
_MOST_FILES = 500_000  # of weights; a model of 61 layers, 256 experts and 8 ranks has 375 000


def config_path(root: Path) -> Path | None:
    """The configuration of the workspace at `root`, None when there is no workspace."""
    if not (root / WEIGHTS).is_dir():
        return None
    for name in _CONFIGS:
        if (root / WEIGHTS / name).is_file():
            return root / WEIGHTS / name
    raise ArtifactError(
        f"{root / WEIGHTS} has neither config.ini nor config.yaml", hint="take it from the original workspace"
    )


def read_workspace(root: Path, path: Path, entries: Sequence[FileEntry]) -> Artifact:
    """The workspace at `root`, its configuration at `path`; `problems` says what is wrong with its weights."""
    tokenizer_at_root = not (root / TOKENIZER).is_dir()
    if path.suffix == ".ini":
        config = Reader(path, dict(read_ini(path)))
        attention = config
    else:
        sections = read_yaml(path)
        parts = {name: sections.get(name) or {} for name in ("model_config", "attention_config", "lora_config")}
        if not all(isinstance(part, dict) for part in parts.values()) or not parts["model_config"]:
            raise ArtifactError(f"{path} has no model_config", hint="take config.yaml from the original workspace")
        nested = parts["attention_config"].get("rope_param")
        marks = nested if isinstance(nested, dict) else {}
        config = Reader(path, {**marks, **parts["lora_config"], **parts["attention_config"], **parts["model_config"]})
        attention = Reader(path, parts["attention_config"])
    config_format: Literal["ini", "yaml"] = "ini" if path.suffix == ".ini" else "yaml"
    era = lmdeploy.recognise_era(config_format, config.values.keys(), tokenizer_at_root=tokenizer_at_root)
    if era is None:
        raise ArtifactError(
            f"{path} has the keys of no known LMDeploy version", hint="take it from the original workspace, unedited"
        )
    hf_config = _copied_config(root, tokenizer_at_root)
    architecture = _architecture(config, hf_config)
    named = _named_architecture(config, hf_config)
    weight_type, is_int4 = _weight_type(config)
    shape = _shape(config, config_format, is_int4)
    kv_policy = _kv_policy(config, era)
    files = tuple(
        ModelFile(entry.path, entry.bytes, _is_weight(entry.path))
        for entry in entries
        if entry.may_belong and not entry.is_pickle
    )
    sizes = {file.path.removeprefix(f"{WEIGHTS}/"): file.bytes for file in files if file.is_weight}
    if kv_policy == "int8" and lmdeploy.has_static_int8(era.made_by[1]):
        shape = replace(shape, kv_scale_bytes=_kv_scale_bytes(sizes))
    rope = read_rope(config, attention, era)
    versions = lmdeploy.versions_for_workspace(era, str(dict(rope.scaling).get("rope_type", "")))
    chat_template = _chat_template(config, config_format)
    tokenizer = (
        read_tokenizer(root, shape.vocab)
        if tokenizer_at_root
        else read_tokenizer(root / TOKENIZER, shape.vocab, f"{TOKENIZER}/")
    )
    configs = [entry.path for entry in entries if entry.path in {f"{WEIGHTS}/{name}" for name in _CONFIGS}]
    problems = (
        *weight_problems(sizes, shape, weight_type),
        *layout_problems(entries, configs),
        *_ignored_settings(config, era),
        *rope_problems(config.values, rope, era),
        *loading_problems(versions),
        *template_problems("model_name" if config_format == "ini" else "chat_template", chat_template, named, versions),
        *vision_problems(named),
        *kv_scale_problems(root / WEIGHTS, sizes if kv_policy == "int8" else {}),
        *tokenizer.problems,
    )
    return Artifact(
        root=root,
        layout="workspace",
        config_format=config_format,
        made_by=era.label,
        architecture=architecture,
        weight_format=_weight_format(config, is_int4),
        weight_dtype="bfloat16" if weight_type in ("bf16", "bfloat16") else "float16",
        weight_bits={"int4": 4, "fp8": 8}.get(weight_type, 16),
        group_size=shape.group_size if is_int4 else None,
        weights_bytes=sum(sizes.values()),
        tensors=sum_files(sizes, shape.ranks),
        parameters=shape.parameters,
        layers=shape.layers,
        hidden_size=shape.hidden,
        intermediate_size=max(shape.intermediate) or shape.expert_intermediate,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        attention=Attention(shape.layers, _latent(config)),
        vocab_size=shape.vocab,
        tied_embeddings=False,
        attention_bias=shape.has_bias,
        norm_eps=config.real("norm_eps", 1e-6),
        rope=rope,
        session_len=config.whole("session_len", 2048),
        kv_policy=kv_policy,
        tensor_parallel=shape.ranks,
        chat_template=chat_template,
        lmdeploy=versions,
        facts=None,
        config=config.values,
        quantized_by=None,
        remote_code=names_code(root),
        files=files,
        problems=problems,
        tool_format=named_tool_format(chat_template),
    )


def _architecture(config: Reader, hf_config: Reader | None) -> str:
    named = _named_architecture(config, hf_config)
    if named:
        return named
    template = config.name("model_name").lower()
    known = (name for start, name in TEMPLATE_FAMILIES if template.startswith(start))
    return next(known, "LlamaForCausalLM")


def _named_architecture(config: Reader, hf_config: Reader | None) -> str | None:
    if config.has("model_arch"):
        return config.name("model_arch")
    architectures = hf_config.values.get("architectures") if hf_config else None
    if isinstance(architectures, list) and architectures and isinstance(architectures[0], str):
        return architectures[0]
    return None


def _copied_config(root: Path, tokenizer_at_root: bool) -> Reader | None:
    path = (root if tokenizer_at_root else root / TOKENIZER) / "config.json"
    return Reader(path, read_json(path)) if path.is_file() else None


def _weight_type(config: Reader) -> tuple[str, bool]:
    weight_type = config.name("weight_type", "fp16")
    if weight_type not in ("fp16", "bf16", "fp32", "float16", "bfloat16", "float32", "int4", "fp8"):
        raise config.wrong("weight_type", "fp16, bf16, fp32, int4 or fp8")
    return weight_type, weight_type == "int4"


def _weight_format(config: Reader, is_int4: bool) -> Literal["none", "awq", "gptq", "fp8"]:
    if config.name("weight_type", "fp16") == "fp8":
        return "fp8"
    if not is_int4:
        return "none"
    return "gptq" if config.name("model_format") == "gptq" else "awq"


def _shape(config: Reader, config_format: Literal["ini", "yaml"], is_int4: bool) -> WorkspaceShape:
    layers = config.whole("num_layer", largest=1000)
    heads = config.whole("head_num", largest=4096)
    head_dim = config.whole("size_per_head", 128, largest=4096)
    ranks = next(
        (config.whole(key, largest=64) for key in ("tensor_para_size", "attn_tp_size", "tp") if config.has(key)), 1
    )
    group_size = config.whole("group_size", 128, smallest=0, largest=2**20) or 128
    per_layer = config.values.get("inter_size")
    if not isinstance(per_layer, list):
        per_layer = [config.whole("inter_size", smallest=0)] * layers
    experts = config.values.get("expert_num") or []
    if not isinstance(experts, list):
        experts = [config.whole("expert_num", smallest=0, largest=4096)] * layers
    for key, values in (("inter_size", per_layer), ("expert_num", experts)):
        are_sizes = all(type(value) is int and 0 <= value < 2**30 for value in values)
        if not are_sizes or len(values) not in (layers, 0 if key == "expert_num" else layers):
            raise config.wrong(key, f"one size for each of the {layers} layers")
    _check_amount(config, layers * ranks * (6 + 3 * max([0, *experts])))
    if any(experts) and config.name("model_arch") == "MixtralForCausalLM":
        per_layer = [0] * layers  # 0.6.2 wrote the experts' size here, although there is no dense part
    shape = WorkspaceShape(
        config_format=config_format,
        is_int4=is_int4,
        group_size=group_size,
        ranks=ranks,
        layers=layers,
        hidden=config.whole("hidden_units", heads * head_dim),
        heads=heads,
        kv_heads=config.whole("kv_head_num", heads, largest=4096),
        head_dim=head_dim,
        intermediate=tuple(per_layer),
        vocab=config.whole("embedding_size", 0, smallest=0) or config.whole("vocab_size"),
        has_bias=config.flag("attn_bias"),
        has_qk_norm=config.flag("qk_norm"),
        kv_scale_bytes=0,
        experts=tuple(experts),
        expert_intermediate=config.whole("expert_inter_size", 0, smallest=0),
        has_shared_gate=config.flag("moe_shared_gate"),
        has_latent_attention=config.whole("kv_lora_rank", 0, smallest=0) > 0,
    )
    if shape.heads % ranks or shape.kv_heads % ranks or any(size % ranks for size in shape.intermediate):
        raise ArtifactError(
            f"{config.path}: {shape.heads} heads, {shape.kv_heads} key/value heads and {max(shape.intermediate)} inner "
            f"columns cannot be split over {ranks} ranks",
            hint="take the configuration from the original workspace",
        )
    return shape


def _check_amount(config: Reader, files: int) -> None:
    """Refuse a configuration of so many weight files that listing them would take all memory."""
    if files > _MOST_FILES:
        raise ArtifactError(
            f"{config.path} describes {files} weight files, at most {_MOST_FILES} expected",
            hint="take the configuration from the original workspace",
        )


def _kv_scale_bytes(sizes: Mapping[str, int]) -> int:
    """Static int8 has a file per layer and rank: 4 float32, or 2 when symmetric (lite/apis/kv_qparams.py)."""
    return 8 if sizes.get("layers.0.past_kv_scale.0.weight") == 8 else 16


def _latent(config: Reader) -> LatentAttention | None:
    """Under a workspace's own names; keys of 0 mean that there is none."""
    names = {"qk_rope_head_dim": "qk_rope_dim", "v_head_dim": "v_head_dim", "kv_lora_rank": "kv_lora_rank"}
    values = {name: config.values.get(own) for name, own in names.items()} | {
        "q_lora_rank": config.values.get("q_lora_rank")
    }
    rope = config.whole("qk_rope_dim", 0, smallest=0)
    nope = max(0, config.whole("size_per_head", 128) - rope)
    return read_latent(Reader(config.path, values | {"qk_nope_head_dim": nope}))


def _kv_policy(config: Reader, era: lmdeploy.WorkspaceEra) -> KvPolicy:
    policy = lmdeploy.stored_kv_policy(era, config.whole("quant_policy", 0, smallest=0))
    if policy is None:
        raise config.wrong("quant_policy", f"a policy that {era.label} knows")
    return policy


def _ignored_settings(config: Reader, era: lmdeploy.WorkspaceEra) -> Iterator[Problem]:
    if config.values.get("use_context_fmha") == "0" and not lmdeploy.reads_context_fmha(era.made_by[0]):
        message = "config.ini sets use_context_fmha = 0, which does nothing"
        yield Problem("info", message, "it is read and ignored from 0.1.0 on")


def _chat_template(config: Reader, config_format: str) -> str | None:
    name = config.name("model_name" if config_format == "ini" else "chat_template")
    return name or None


def _is_weight(path: str) -> bool:
    return path.startswith(f"{WEIGHTS}/") and not path.startswith(f"{WEIGHTS}/config.")
