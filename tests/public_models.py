"""Public models as their config.json and the names and shapes of their tensors have them, written without data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from meta_models import write_tensors

Tensor = tuple[str, str, tuple[int, ...]]

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
    "tie_word_embeddings": False,
}
DEEPSEEK = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "kimi_k2",
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "num_hidden_layers": 61,
    "num_attention_heads": 64,
    "num_key_value_heads": 64,
    "vocab_size": 163840,
    "max_position_embeddings": 131072,
    "kv_lora_rank": 512,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
}


def model_of(root: Path, config: dict[str, Any], tensors: list[Tensor]) -> Path:
    (root / "config.json").write_text(json.dumps(config))
    (root / "tokenizer.json").write_text("{}")
    (root / "tokenizer_config.json").write_text('{"chat_template": "x"}')
    write_tensors(root / "model.safetensors", tensors)
    return root


def matrix(name: str, rows: int, columns: int, form: str = "") -> list[Tensor]:
    """A matrix of `columns` inputs, plain or packed in groups of 128."""
    if form == "awq":
        return [
            (f"{name}.qweight", "I32", (columns, rows // 8)),
            (f"{name}.qzeros", "I32", (columns // 128, rows // 8)),
            (f"{name}.scales", "F16", (columns // 128, rows)),
        ]
    if form == "gptq":
        return [
            (f"{name}.qweight", "I32", (columns // 8, rows)),
            (f"{name}.qzeros", "I32", (columns // 128, rows // 8)),
            (f"{name}.scales", "F16", (columns // 128, rows)),
            (f"{name}.g_idx", "I32", (columns,)),
        ]
    if form == "packed":
        return [
            (f"{name}.weight_packed", "I32", (rows, columns // 8)),
            (f"{name}.weight_scale", "BF16", (rows, columns // 32)),
            (f"{name}.weight_shape", "I64", (2,)),
        ]
    return [(f"{name}.weight", form or "BF16", (rows, columns))]


def layers(config: dict[str, Any], form: str = "", prefix: str = "model.") -> list[Tensor]:
    hidden, inner, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    keys = config["num_key_value_heads"] * (hidden // config["num_attention_heads"])
    tensors: list[Tensor] = [
        (f"{prefix}embed_tokens.weight", "BF16", (vocabulary, hidden)),
        ("lm_head.weight", "BF16", (vocabulary, hidden)),
        (f"{prefix}norm.weight", "BF16", (hidden,)),
    ]
    for layer in range(config["num_hidden_layers"]):
        stem = f"{prefix}layers.{layer}"
        tensors.append((f"{stem}.input_layernorm.weight", "BF16", (hidden,)))
        for name, rows in (("q", hidden), ("k", keys), ("v", keys), ("o", hidden)):
            tensors += matrix(f"{stem}.self_attn.{name}_proj", rows, hidden, form)
        for name, rows, columns in (("gate", inner, hidden), ("up", inner, hidden), ("down", hidden, inner)):
            tensors += matrix(f"{stem}.mlp.{name}_proj", rows, columns, form)
    return tensors
