"""The rows of classes that are not in transformers, typed by hand, are held against what is public of them.

Against the signatures of the classes themselves, as their files beside the weights have them, and against public
models: what their config.json states, and what shape they are known to have.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deploytk.artifact.configuration import read_configuration
from deploytk.artifact.shape import Shape, read_shape

ROOT = Path(__file__).parents[1]
ROWS: dict[str, dict[str, Any]] = json.loads((ROOT / "tools/remote_configurations.json").read_text())["types"]

# What `def __init__` of each class says, under its own names: configuration_*.py of the repository in the row.
SIGNATURES: dict[str, dict[str, Any]] = {
    "internlm": {
        "vocab_size": 103168, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "max_position_embeddings": 2048, "tie_word_embeddings": False,
    },
    "internlm2": {
        "vocab_size": 103168, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": None, "max_position_embeddings": 2048,
        "tie_word_embeddings": False,
    },
    "baichuan": {
        "vocab_size": 125696, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "model_max_length": 4096, "tie_word_embeddings": False,
    },
    "chatglm": {
        "num_layers": 28, "padded_vocab_size": 65024, "hidden_size": 4096, "ffn_hidden_size": 13696,
        "kv_channels": 128, "num_attention_heads": 32, "seq_length": 2048, "multi_query_attention": False,
        "multi_query_group_num": 1,
    },
    "qwen": {
        "vocab_size": 151936, "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
        "max_position_embeddings": 8192, "kv_channels": 128, "intermediate_size": 22016, "tie_word_embeddings": False,
    },
    "cogvlm": {
        "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "max_position_embeddings": 2048, "tie_word_embeddings": False,
    },
    "deepseek": {
        "vocab_size": 102400, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 30,
        "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 2048,
    },
    "minicpm": {
        "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": None, "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
    },
    "molmo": {
        "vocab_size": 50304, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": None, "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
    },
    "sdar": {
        "vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 22016, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 32768,
    },
}  # fmt: skip

# Rows that are a class of transformers under another name.
DERIVED = {
    "internlmxcomposer2": "internlm2",
    "llava_llama": "llama",
    "llava_mistral": "mistral",
    "minicpmv": "qwen2",
    "kimi_k2": "deepseek_v3",
}


def _shape(tmp_path: Path, config: dict[str, Any]) -> Shape:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["X"]} | config))
    return read_shape(read_configuration(tmp_path / "config.json"))


def _sizes(shape: Shape) -> tuple[int, ...]:
    return (
        shape.layers, shape.hidden_size, shape.intermediate_size, shape.heads, shape.kv_heads, shape.head_dim,
        shape.vocab_size, shape.session_len,
    )  # fmt: skip


@pytest.mark.parametrize("model_type", SIGNATURES)
def test_a_configuration_that_says_nothing_is_the_signature_of_its_class(tmp_path: Path, model_type: str) -> None:
    """Filled in by us, and written out under the class's own names: the same sizes."""
    spelled_out = _shape(tmp_path, {"model_type": model_type, **SIGNATURES[model_type]})

    assert _sizes(_shape(tmp_path, {"model_type": model_type})) == _sizes(spelled_out)


@pytest.mark.parametrize("model_type", SIGNATURES)
def test_every_size_of_a_signature_is_in_its_row(model_type: str) -> None:
    row = ROWS[model_type]
    ours = {own: name for name, own in row.get("names", {}).items()}
    stated = {ours.get(own, own): value for own, value in SIGNATURES[model_type].items() if value is not None}

    # ChatGLM's group count is one of a switch that is off
    left_out = {"num_key_value_heads", "multi_query_attention"} if model_type == "chatglm" else set()
    for name in stated.keys() - left_out - {"tie_word_embeddings"}:
        assert row["defaults"][name] == stated[name], name
    assert row["defaults"].get("tie_word_embeddings", False) == stated.get("tie_word_embeddings", False)


@pytest.mark.parametrize(("model_type", "base"), DERIVED.items())
def test_a_row_that_is_another_class_by_name_has_its_sizes(model_type: str, base: str) -> None:
    transformers = pytest.importorskip("transformers")
    row = ROWS[model_type]["defaults"]
    if base in ROWS:
        assert row == ROWS[base]["defaults"]
        return
    config = transformers.CONFIG_MAPPING[base]()
    for name in row.keys() - {"tie_word_embeddings", "max_position_embeddings", "num_key_value_heads"}:
        assert row[name] == getattr(config, name), name


def test_no_row_is_held_by_nothing() -> None:
    held = {*SIGNATURES, *DERIVED, *(case[0]["model_type"] for case in PUBLIC)}
    nested = {name for name, row in ROWS.items() if "text" in row}

    assert ROWS.keys() - held - nested == set()


# What the public config.json states, and the shape: layers, hidden, inner, heads, KV heads, head_dim, tokens, session.
PUBLIC: list[tuple[dict[str, Any], tuple[int, ...]]] = [
    (  # internlm/internlm-chat-7b
        {"model_type": "internlm", "bias": True, "hidden_size": 4096, "intermediate_size": 11008,
         "max_position_embeddings": 2048, "num_attention_heads": 32, "num_hidden_layers": 32, "vocab_size": 103168},
        (32, 4096, 11008, 32, 32, 128, 103168, 2048),
    ),
    (  # internlm/internlm2_5-7b-chat
        {"model_type": "internlm2", "hidden_size": 4096, "intermediate_size": 14336, "max_position_embeddings": 32768,
         "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8, "vocab_size": 92544},
        (32, 4096, 14336, 32, 8, 128, 92544, 32768),
    ),
    (  # baichuan-inc/Baichuan2-13B-Chat
        {"model_type": "baichuan", "hidden_size": 5120, "intermediate_size": 13696, "model_max_length": 4096,
         "num_attention_heads": 40, "num_hidden_layers": 40, "vocab_size": 125696},
        (40, 5120, 13696, 40, 40, 128, 125696, 4096),
    ),
    (  # baichuan-inc/Baichuan-7B
        {"model_type": "baichuan", "hidden_size": 4096, "intermediate_size": 11008, "max_position_embeddings": 4096,
         "num_attention_heads": 32, "num_hidden_layers": 32, "vocab_size": 64000},
        (32, 4096, 11008, 32, 32, 128, 64000, 4096),
    ),
    (  # THUDM/chatglm3-6b
        {"model_type": "chatglm", "ffn_hidden_size": 13696, "hidden_size": 4096, "kv_channels": 128, "num_layers": 28,
         "multi_query_attention": True, "multi_query_group_num": 2, "num_attention_heads": 32,
         "padded_vocab_size": 65024, "seq_length": 8192},
        (28, 4096, 13696, 32, 2, 128, 65024, 8192),
    ),
    (  # THUDM/glm-4-9b-chat
        {"model_type": "chatglm", "ffn_hidden_size": 13696, "hidden_size": 4096, "kv_channels": 128, "num_layers": 40,
         "multi_query_attention": True, "multi_query_group_num": 2, "num_attention_heads": 32,
         "padded_vocab_size": 151552, "seq_length": 131072},
        (40, 4096, 13696, 32, 2, 128, 151552, 131072),
    ),
    (  # Qwen/Qwen-14B-Chat
        {"model_type": "qwen", "hidden_size": 5120, "intermediate_size": 27392, "kv_channels": 128,
         "max_position_embeddings": 8192, "num_attention_heads": 40, "num_hidden_layers": 40, "seq_length": 2048,
         "vocab_size": 152064},
        (40, 5120, 27392, 40, 40, 128, 152064, 2048),
    ),
    (  # THUDM/cogvlm2-llama3-chat-19B
        {"model_type": "cogvlm", "hidden_size": 4096, "intermediate_size": 14336, "max_position_embeddings": 8192,
         "num_attention_heads": 32, "num_hidden_layers": 32, "num_multi_query_heads": 8, "vocab_size": 128256},
        (32, 4096, 14336, 32, 8, 128, 128256, 8192),
    ),
    (  # deepseek-ai/deepseek-moe-16b-chat
        {"model_type": "deepseek", "hidden_size": 2048, "intermediate_size": 10944, "max_position_embeddings": 4096,
         "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 16, "vocab_size": 102400},
        (28, 2048, 10944, 16, 16, 128, 102400, 4096),
    ),
    (  # openbmb/MiniCPM-V-2_6
        {"model_type": "minicpmv", "hidden_size": 3584, "intermediate_size": 18944, "max_position_embeddings": 32768,
         "num_attention_heads": 28, "num_hidden_layers": 28, "num_key_value_heads": 4, "vocab_size": 151666},
        (28, 3584, 18944, 28, 4, 128, 151666, 32768),
    ),
    (  # allenai/Molmo-7B-D-0924
        {"model_type": "molmo", "hidden_size": 3584, "intermediate_size": 37888, "max_position_embeddings": 4096,
         "num_attention_heads": 28, "num_hidden_layers": 28, "num_key_value_heads": 4, "vocab_size": 152064},
        (28, 3584, 37888, 28, 4, 128, 152064, 4096),
    ),
    (  # allenai/Molmo-7B-O-0924: as many keys as queries, which its configuration does not say
        {"model_type": "molmo", "hidden_size": 4096, "intermediate_size": 22016, "max_position_embeddings": 4096,
         "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": None, "vocab_size": 100278},
        (32, 4096, 22016, 32, 32, 128, 100278, 4096),
    ),
    (  # microsoft/Phi-3.5-vision-instruct
        {"model_type": "phi3_v", "hidden_size": 3072, "intermediate_size": 8192, "max_position_embeddings": 131072,
         "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32, "vocab_size": 32064},
        (32, 3072, 8192, 32, 32, 96, 32064, 131072),
    ),
    (  # xverse/XVERSE-13B-Chat
        {"model_type": "xverse", "hidden_size": 5120, "intermediate_size": 13824, "max_position_embeddings": 8192,
         "num_attention_heads": 40, "num_hidden_layers": 40, "vocab_size": 100278},
        (40, 5120, 13824, 40, 40, 128, 100278, 8192),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("config", "expected"), PUBLIC, ids=[f"{c['model_type']}-{e[1]}-{e[6]}" for c, e in PUBLIC])
def test_a_public_model_has_its_shape(tmp_path: Path, config: dict[str, Any], expected: tuple[int, ...]) -> None:
    assert _sizes(_shape(tmp_path, config)) == expected
