"""Model directories with the tensors of transformers' own models, made without memory: names, shapes, no data."""

from __future__ import annotations

import json
import random
import struct
import sys
from pathlib import Path
from typing import Any

import pytest

_DTYPES = {"torch.float16": "F16", "torch.bfloat16": "BF16", "torch.float32": "F32", "torch.int64": "I64"}
_BYTES = {"F16": 2, "BF16": 2, "F32": 4, "I64": 8, "I32": 4, "U32": 4, "F8_E4M3": 1}

# Sizes that tell whether the right one was taken: no two are the same.
_CHOICES: dict[str, list[int]] = {
    "num_hidden_layers": [3, 4, 6],
    "vocab_size": [1000, 1504],
    "intermediate_size": [352, 480],
    "moe_intermediate_size": [96, 160],
    "shared_expert_intermediate_size": [224],
    "kv_lora_rank": [40, 56],
    "q_lora_rank": [48, 72],
    "qk_rope_head_dim": [16],
    "qk_nope_head_dim": [24, 32],
    "v_head_dim": [24, 40],
    "num_experts": [4],
    "num_local_experts": [4],
    "n_routed_experts": [4],
    "n_shared_experts": [1, 2],
    "num_experts_per_tok": [2],
    "first_k_dense_replace": [1],
    "n_group": [1],
    "topk_group": [1],
    "linear_num_key_heads": [2],
    "linear_num_value_heads": [4],
    "linear_key_head_dim": [16],
    "linear_value_head_dim": [24],
    "sliding_window": [64],
    "pad_token_id": [0],
}


def config_class(model_type: str) -> Any:
    """transformers' class of that type; skips where there is no release that has it."""
    from transformers import CONFIG_MAPPING  # which takes a while

    if sys.version_info < (3, 11) and model_type not in CONFIG_MAPPING:
        pytest.skip("the last transformers for Python 3.10 does not know it")
    return CONFIG_MAPPING[model_type]


def random_sizes(model_type: str, seed: int) -> dict[str, Any]:
    """Small sizes for a configuration of that type, of the language model; those that its class has."""
    draw = random.Random(f"{model_type} {seed}")
    known = config_class(model_type)()
    heads = draw.choice([4, 8])
    head_dim = draw.choice([16, 32])
    sizes: dict[str, Any] = {"num_attention_heads": heads, "hidden_size": heads * head_dim}
    if getattr(known, "num_key_value_heads", None) is not None:
        sizes["num_key_value_heads"] = draw.choice([heads, heads // 2, 1])
    own = known.to_dict()
    has_heads_of_its_own = isinstance(own.get("head_dim"), int) and "kv_lora_rank" not in own
    if has_heads_of_its_own or model_type.startswith("hunyuan"):
        sizes["head_dim"] = draw.choice([16, 32, 64])
    sizes |= {name: draw.choice(values) for name, values in _CHOICES.items() if getattr(known, name, None) is not None}
    sizes["tie_word_embeddings"] = draw.choice([True, False])
    return sizes


def write_model(directory: Path, config: Any, *, auto_class: str = "AutoModelForCausalLM") -> Any:
    """Write what transformers would save of a model of `config`, sparse; returns the model, on the meta device."""
    import torch
    import transformers

    with torch.device("meta"):
        model = getattr(transformers, auto_class).from_config(config, dtype=torch.bfloat16)
    directory.mkdir(parents=True, exist_ok=True)
    config.architectures = [type(model).__name__]
    config.save_pretrained(directory)
    (directory / "tokenizer.json").write_text("{}")
    write_tensors(
        directory / "model.safetensors", [(n, _DTYPES[str(t.dtype)], tuple(t.shape)) for n, t in saved(model)]
    )
    return model


def saved(model: Any) -> list[tuple[str, Any]]:
    """The tensors that are saved: tied ones once."""
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    return [(name, tensor) for name, tensor in model.state_dict().items() if name not in tied]


def write_tensors(path: Path, tensors: list[tuple[str, str, tuple[int, ...]]]) -> None:
    """A safetensors file of those names, dtypes and shapes, sparse."""
    place, header = 0, {}
    for name, dtype, shape in tensors:
        size = _BYTES[dtype]
        for axis in shape:
            size *= axis
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(header, separators=(",", ":")).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + place)


def cached_numbers(model: Any) -> int:
    """Numbers that the model's own attention keeps of one token: what its key and value projections give."""
    total = 0
    for name, module in model.named_modules():
        is_text = not any(part in name for part in ("vision", "visual", "audio"))
        if is_text and hasattr(module, "k_proj") and hasattr(module, "v_proj"):
            total += module.k_proj.weight.shape[0] + module.v_proj.weight.shape[0]
    return total
