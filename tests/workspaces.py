"""Writes workspaces of every era: real configurations, weight files of the right names and sizes but no content."""

from __future__ import annotations

from pathlib import Path

import yaml

_SHAPE = {"head_num": 4, "kv_head_num": 2, "vocab_size": 1000, "num_layer": 3, "inter_size": 512, "norm_eps": 1e-06}
_INI = _SHAPE | {
    "model_name": "llama2", "attn_bias": 0, "start_id": 1, "end_id": 2, "session_len": 4104, "weight_type": "fp16",
    "rotary_embedding": 128, "rope_theta": 10000.0, "size_per_head": 128, "group_size": 0, "max_batch_size": 64,
    "max_context_token_num": 1, "step_length": 1, "cache_max_entry_count": 0.8, "use_context_fmha": 1,
    "quant_policy": 0, "max_position_embeddings": 2048, "use_logn_attn": 0, "tensor_para_size": 1,
}  # fmt: skip
_LORA = {"lora_policy": "", "lora_r": 0, "lora_scale": 0.0}
_BLOCKS = {"cache_block_seq_len": 128, "rope_scaling_factor": 0.0}
_ITERATIONS = {"num_tokens_per_iter": 0, "max_prefill_iters": 1, "extra_tokens_per_iter": 0}
_DYNAMIC = {"use_dynamic_ntk": 0}
_PREFIX = {"enable_prefix_caching": False}
_ARCH = {"model_arch": "LlamaForCausalLM"}
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 1.0, "rope_scaling_type": ""}

# The keys that each version added: turbomind/deploy/target_model/base.py at the tags.
INI_KEYS = {
    "0.0.14": _INI | _DYNAMIC,
    "0.1.0": _INI | _BLOCKS,
    "0.2.6": _INI | _BLOCKS | _ITERATIONS,
    "0.3.0": _INI | _BLOCKS | _ITERATIONS | _DYNAMIC,
    "0.4.1": _INI | _BLOCKS | _ITERATIONS | _DYNAMIC | _LORA,
    "0.4.2": _INI | _BLOCKS | _ITERATIONS | _DYNAMIC | _LORA | _PREFIX,
    "0.5.1": _INI | _BLOCKS | _ITERATIONS | _DYNAMIC | _LORA | _PREFIX | _ARCH,
    "0.5.2.post1": _INI | _BLOCKS | _ITERATIONS | _DYNAMIC | _LORA | _PREFIX | _ARCH | _LLAMA3,
    "0.5.3": _INI | _BLOCKS | _DYNAMIC | _LORA | _PREFIX | _ARCH | _LLAMA3
    | {"num_tokens_per_iter": 0, "max_prefill_token_num": 8192},
}  # fmt: skip

_YAML = _SHAPE | _ARCH | {
    "model_name": "tiny", "chat_template": "llama2", "hidden_units": 512, "attn_bias": 0, "size_per_head": 128,
    "group_size": 0, "weight_type": "float16", "session_len": 4096, "tp": 1, "model_format": "hf",
    "start_id": 1, "end_id": 2,
}  # fmt: skip
_PER_LAYER = {"inter_size": [512, 512, 512], "expert_num": [], "embedding_size": 1000, "tune_layer_num": 1}
_NO_IDS = {"start_id": None, "end_id": None}
_SPLIT_TP = {"tp": None, "attn_tp_size": 1, "mlp_tp_size": 1, "qk_norm": False}

YAML_KEYS = {
    "0.6.1": _YAML,
    "0.6.2.post1": _YAML | {"expert_num": 0, "expert_inter_size": 0},
    "0.6.3": _YAML | {"expert_num": 0, "embedding_size": 1000},
    "0.7.0.post1": _YAML | _PER_LAYER,
    "0.7.0.post3": _YAML | _PER_LAYER,
    "0.7.2.post1": _YAML | _PER_LAYER | _NO_IDS,
    "0.7.3": _YAML | _PER_LAYER | _NO_IDS | {"qk_norm": False},
    "0.8.0": _YAML | _PER_LAYER | _NO_IDS | _SPLIT_TP,
    "0.9.1": _YAML | _PER_LAYER | _NO_IDS | _SPLIT_TP | {"tokenizer_size": 1000},
    "0.9.2.post1": _YAML | _PER_LAYER | _NO_IDS | _SPLIT_TP | {"tokenizer_size": 1000},
}
TOKENIZER_AT_ROOT = ("0.7.0.post3", "0.7.2.post1", "0.7.3", "0.8.0", "0.9.1", "0.9.2.post1")


def write_workspace(root: Path, version: str, **changes: object) -> Path:
    """A workspace as `version` wrote it, fp16 or int4 (`weight_type="int4"`), of sparse files."""
    weights = root / "triton_models" / "weights"
    weights.mkdir(parents=True)
    keys = dict(INI_KEYS.get(version) or YAML_KEYS[version]) | changes
    keys = {key: value for key, value in keys.items() if value is not None}
    if version in INI_KEYS:
        lines = "".join(f"{key} = {value}\n" for key, value in keys.items())
        (weights / "config.ini").write_text(f"[llama]\n{lines}\n")
    else:
        rope = {"rope_param": {"type": "default", "base": 10000.0, "dim": 128}} if "attn_tp_size" in keys else {}
        if version.startswith("0.9.2"):
            rope["rope_param"]["mrope_section"] = None
        sections = {"model_config": keys, "attention_config": {"cache_block_seq_len": 64, **rope}, "lora_config": _LORA}
        (weights / "config.yaml").write_text(yaml.safe_dump(sections))
    for name, size in _sizes(keys, is_ini=version in INI_KEYS).items():
        with (weights / name).open("wb") as file:
            file.truncate(size)
    tokenizer = root if version in TOKENIZER_AT_ROOT else root / "triton_models" / "tokenizer"
    tokenizer.mkdir(exist_ok=True)
    (tokenizer / "tokenizer.model").write_bytes(b"tokenizer")
    return root


def _sizes(keys: dict[str, object], *, is_ini: bool) -> dict[str, int]:
    """Names and sizes for 4 heads of 128, 2 key/value heads, hidden 512, inner 512, vocabulary 1000, 3 layers."""
    ranks = int(str(keys.get("tensor_para_size") or keys.get("attn_tp_size") or keys.get("tp")))
    is_int4 = keys["weight_type"] == "int4"
    has_bias = bool(keys.get("attn_bias"))
    qkv, hidden, inner = (4 + 2 * 2) * 128, 512, 512
    sizes = {"norm.weight": hidden * 2}
    for name in ("tok_embeddings", "output"):
        total = (1000 + ranks - 1) // ranks * ranks * hidden * 2
        sizes |= {f"{name}.weight": total} if is_ini else {f"{name}.{r}.weight": total // ranks for r in range(ranks)}

    def linear(name: str, rows: int, columns: int) -> None:
        if not is_int4:
            sizes[f"{name}.weight"] = rows * columns * 2
            return
        sizes[f"{name}.qweight"] = rows * columns // 2
        scales = rows * columns // 128 * 2
        sizes.update(
            {f"{name}.scales_zeros": 2 * scales} if is_ini else {f"{name}.scales": scales, f"{name}.zeros": scales}
        )

    for layer in range(3):
        sizes[f"layers.{layer}.attention_norm.weight"] = sizes[f"layers.{layer}.ffn_norm.weight"] = hidden * 2
        for rank in range(ranks):
            linear(f"layers.{layer}.attention.w_qkv.{rank}", hidden, qkv // ranks)
            linear(f"layers.{layer}.attention.wo.{rank}", 512 // ranks, hidden)
            if has_bias:
                sizes[f"layers.{layer}.attention.w_qkv.{rank}.bias"] = qkv // ranks * 2
                sizes[f"layers.{layer}.attention.wo.{rank}.bias"] = hidden * 2
            if is_ini and is_int4:
                linear(f"layers.{layer}.feed_forward.w13.{rank}", hidden, 2 * inner // ranks)
            else:
                linear(f"layers.{layer}.feed_forward.w1.{rank}", hidden, inner // ranks)
                linear(f"layers.{layer}.feed_forward.w3.{rank}", hidden, inner // ranks)
            linear(f"layers.{layer}.feed_forward.w2.{rank}", inner // ranks, hidden)
    return sizes
