"""What is read of a model agrees with transformers' own: sizes, bytes of the weights, bytes of the KV cache."""

from __future__ import annotations

import json
import random
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.errors import StrictDataclassError
from meta_models import cached_numbers, config_class, random_sizes, saved, write_model

from deploytk.artifact import read_artifact
from deploytk.artifact.configuration import read_configuration
from deploytk.artifact.shape import read_shape
from deploytk.plan.kv import kv_bytes_per_token, state_bytes
from deploytk.plan.weights_size import weights_bytes

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(not find_spec("transformers"), reason="needs transformers")

_HEADED = """
llama qwen2 qwen3 mistral mixtral gemma gemma2 gemma3_text starcoder2 olmo2 seed_oss ernie4_5 ernie4_5_moe glm glm4
glm4_moe qwen2_moe qwen3_moe phimoe cohere cohere2 internlm3 hunyuan_v1_dense hunyuan_v1_moe gpt_oss olmo3 qwen3_next
""".split()
_FUSED = "phi3 falcon gpt2 minicpm3 deepseek_v2 deepseek_v3 glm4_moe_lite gpt_neox".split()
_VLMS = {
    "gemma3": "gemma3_text",
    "llava": "llama",
    "internvl": "qwen2",
    "qwen2_vl": "qwen2_vl_text",
    "qwen2_5_vl": "qwen2_5_vl_text",
    "qwen3_vl": "qwen3_vl_text",
    "qwen3_5": "qwen3_5_text",
    "mllama": "mllama_text_model",
    "llama4": "llama4_text",
}


def _bytes(model: Any) -> int:
    return sum(tensor.numel() * 2 for _, tensor in saved(model))


def _text(config: Any) -> Any:
    return config.get_text_config(decoder=True)


@pytest.mark.parametrize("model_type", [*_HEADED, *_FUSED])
def test_weights_and_kv_cache_are_what_transformers_counts(tmp_path: Path, model_type: str) -> None:
    config = config_class(model_type)(**random_sizes(model_type, 1))
    model = write_model(tmp_path, config)

    artifact = read_artifact(tmp_path)

    expected = _bytes(model)
    tied = 2 * config.vocab_size * config.hidden_size if artifact.tensors.head_bytes == 0 else 0
    assert artifact.errors == ()
    assert artifact.parameters * 2 == expected
    assert weights_bytes(artifact, "0.18.0", 1, "pytorch") == pytest.approx(expected, rel=0.001)
    if artifact.attention.latent is None:
        assert weights_bytes(artifact, "0.18.0", 1, "turbomind") == pytest.approx(expected + tied, rel=0.001)
    if model_type in _HEADED:
        assert kv_bytes_per_token(artifact, "none", "0.18.0", 1, "turbomind") == 2 * cached_numbers(model)
        assert kv_bytes_per_token(artifact, "none", "0.18.0", 1, "pytorch") == 2 * cached_numbers(model)
        assert (state_bytes(artifact, 1) > 0) == (model_type == "qwen3_next")


@pytest.mark.parametrize("model_type", _VLMS)
def test_a_model_that_sees_has_its_language_model_and_its_tower(tmp_path: Path, model_type: str) -> None:
    text = random_sizes(_VLMS[model_type], 3)
    config = config_class(model_type)(text_config=text | {"model_type": _VLMS[model_type]})
    model = write_model(tmp_path, config, auto_class="AutoModelForImageTextToText")

    artifact = read_artifact(tmp_path)

    towers = [tensor for name, tensor in saved(model) if not _is_of_language_model(name)]
    assert artifact.errors == ()
    assert artifact.tensors.tower_bytes == 2 * sum(tensor.numel() for tensor in towers)
    assert weights_bytes(artifact, "0.18.0", 1, "pytorch") == pytest.approx(_bytes(model), rel=0.001)
    assert kv_bytes_per_token(artifact, "none", "0.18.0", 1, "pytorch") == 2 * cached_numbers(model)


def _is_of_language_model(name: str) -> bool:
    return name.startswith(("model.language_model.", "language_model.", "lm_head."))


@pytest.mark.parametrize("model_type", [*_HEADED, *_FUSED, *_VLMS])
def test_what_a_configuration_leaves_out_is_what_its_class_fills_in(tmp_path: Path, model_type: str) -> None:
    draw = random.Random(model_type)
    of_text = _VLMS.get(model_type, model_type)
    for seed in range(4):
        sizes = random_sizes(of_text, seed)
        kept = {key: value for key, value in sizes.items() if draw.random() < 0.5 or key == "hidden_size"}
        try:
            config = config_class(model_type)(**(kept if of_text == model_type else {"text_config": kept}))
        except StrictDataclassError:  # sizes that do not go together
            continue
        written = {"architectures": ["X"], "model_type": model_type}
        written |= kept if of_text == model_type else {"text_config": kept | {"model_type": of_text}}
        (tmp_path / "config.json").write_text(json.dumps(written))

        shape = read_shape(read_configuration(tmp_path / "config.json"))

        expected = _text(config)
        assert (shape.layers, shape.hidden_size, shape.heads, shape.vocab_size) == (
            expected.num_hidden_layers,
            expected.hidden_size,
            expected.num_attention_heads,
            expected.vocab_size,
        )
        if shape.attention.latent is None:
            heads = getattr(expected, "num_key_value_heads", None) or expected.num_attention_heads
            assert model_type == "falcon" or shape.kv_heads == heads
            head_dim = getattr(expected, "head_dim", None) or expected.hidden_size // expected.num_attention_heads
            assert shape.head_dim == head_dim


@pytest.mark.engine
def test_the_table_of_configurations_is_what_its_script_writes() -> None:
    """Where this transformers is the one that the table was made from."""
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        import configurations
    finally:
        sys.path.pop(0)
    written = json.loads(configurations.TABLE.read_text())
    import transformers

    if written["transformers"] != transformers.__version__:
        pytest.skip("another transformers")

    assert configurations.table() == written
