"""What comes along with a fine-tuned or converted model, and what is said about it."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from workspaces import write_workspace

from deploytk import lmdeploy
from deploytk.artifact import read_artifact
from deploytk.base.errors import ArtifactError

ModelCopy = Callable[[str], Path]


def _warnings(root: Path) -> str:
    return "\n".join(problem.message for problem in read_artifact(root).problems if problem.level == "warning")


def test_a_vocabulary_of_tiktoken_is_not_sentencepieces(model_copy: ModelCopy) -> None:
    root = model_copy("hf-fp16")
    (root / "tokenizer.json").unlink()
    (root / "tokenizer.model").write_text("IQ== 0\nIg== 1\n")
    assert "tokenizer.model is a vocabulary of tiktoken" in _warnings(root)

    (root / "tokenizer.model").write_bytes(b"\n\x0e\n\x05<unk>\x15\0\0\0\0\x18\x02")
    assert "tiktoken" not in _warnings(root)


@pytest.mark.parametrize("place", ["added_tokens.json", "tokenizer_config.json", "tokenizer.json"])
def test_added_tokens_beyond_the_vocabulary_are_named(model_copy: ModelCopy, place: str) -> None:
    # the model has 1024 tokens
    added: dict[str, object] = {
        "added_tokens.json": {"<in>": 1023, "<out>": 1024},
        "tokenizer_config.json": {"added_tokens_decoder": {"1023": {"content": "<in>"}, "1024": {"content": "<out>"}}},
        "tokenizer.json": {"added_tokens": [{"id": 1023, "content": "<in>"}, {"id": 1024, "content": "<out>"}]},
    }
    root = model_copy("hf-fp16")
    assert "beyond" not in _warnings(root)

    (root / place).write_text(json.dumps(added[place]))

    assert (
        "tokens that the tokenizer adds are beyond the model's vocabulary of 1024: 1, the first is '<out>'"
        in _warnings(root)
    )


@pytest.mark.parametrize("content", ["[", '{"added_tokens": 3}', '{"added_tokens": [1, {"id": "x"}]}', "\0"])
def test_malformed_added_tokens_are_left_to_who_needs_them(model_copy: ModelCopy, content: str) -> None:
    root = model_copy("hf-fp16")
    (root / "added_tokens.json").write_text(content)
    (root / "tokenizer.json").write_text(content)

    assert read_artifact(root).layers == 2


def test_an_adapter_beside_a_model_is_named_and_stays_behind(model_copy: ModelCopy) -> None:
    root = model_copy("hf-fp16")
    (root / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "internlm/internlm-chat-7b"}))
    (root / "adapter_model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")

    artifact = read_artifact(root)

    assert "a LoRA adapter of internlm/internlm-chat-7b is left in the directory" in _warnings(root)
    assert not any("adapter" in file.path for file in artifact.files)
    assert artifact.errors == ()


def test_an_adapter_is_no_model(model_copy: ModelCopy) -> None:
    root = model_copy("hf-fp16")
    (root / "model.safetensors").rename(root / "adapter_model.safetensors")
    assert "the weights here are a LoRA adapter, not a model" in str([p.message for p in read_artifact(root).errors])

    (root / "config.json").unlink()
    with pytest.raises(ArtifactError, match="holds a LoRA adapter, not a model"):
        read_artifact(root)


def test_kv_scales_of_zero_are_named(tmp_path: Path) -> None:
    root = write_workspace(tmp_path / "w", "0.1.0", quant_policy=4)
    for layer, scale in enumerate((0.1, 0.0, 0.1)):
        path = root / "triton_models" / "weights" / f"layers.{layer}.past_kv_scale.0.weight"
        path.write_bytes(struct.pack("<4f", scale, 0, scale, 0))

    assert "layers.1.past_kv_scale.0.weight holds KV scales of zero" in _warnings(root)


def test_a_chat_template_that_the_version_lacks_is_named(tmp_path: Path) -> None:
    root = write_workspace(tmp_path / "w", "0.4.2", model_name="internlm-chat-7b-mine")

    problems = [problem for problem in read_artifact(root).problems if "no such chat template" in problem.message]

    assert "model_name is 'internlm-chat-7b-mine': LMDeploy 0.4.2 has no such chat template" in problems[0].message
    assert "internlm-chat-7b" in problems[0].hint


def test_the_key_of_the_chat_template_is_that_of_its_era(tmp_path: Path) -> None:
    root = write_workspace(tmp_path / "w", "0.7.3", chat_template="mine")

    assert "chat_template is 'mine': LMDeploy 0.7.3 has no such chat template" in _warnings(root)


def test_a_chat_template_of_another_model_is_named(tmp_path: Path) -> None:
    named = {"model_name": "internlm2-chat-7b", "model_arch": "InternLMForCausalLM"}
    root = write_workspace(tmp_path / "w", "0.5.1", **named)

    assert "internlm2-chat-7b is not that of InternLMForCausalLM" in _warnings(root)


def test_a_workspace_of_a_model_that_sees_is_told_so(tmp_path: Path) -> None:
    root = write_workspace(tmp_path / "w", "0.5.1", model_arch="LlavaLlamaForCausalLM", model_name="vicuna")

    assert "converted from LlavaLlamaForCausalLM, without its vision tower" in _warnings(root)


def test_chat_templates_are_those_of_the_version() -> None:
    assert "internlm-chat-7b" in lmdeploy.chat_template_names("0.5.1")
    assert "internlm-chat-7b" not in lmdeploy.chat_template_names("0.5.2")
    assert "base" in lmdeploy.chat_template_names("0.0.10")
    assert lmdeploy.chat_template_names("0.18.0") == ()


def test_rows_for_images_are_no_tokens_beyond_the_vocabulary(model_copy: ModelCopy) -> None:
    # the embedding has 1024 rows: those of a vocabulary of 1016 and eight for images
    root = model_copy("hf-fp16")
    config = json.loads((root / "config.json").read_text()) | {"model_type": "mllama", "vocab_size": 1016}
    (root / "config.json").write_text(json.dumps(config))
    (root / "added_tokens.json").write_text(json.dumps({"<image>": 1016}))

    assert "beyond" not in _warnings(root)
