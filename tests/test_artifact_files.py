"""Which files belong to a model, which do not, and what is said about each."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import MODELS
from workspaces import write_workspace

from deploytk.artifact import read_artifact
from deploytk.base.errors import ArtifactError

ModelCopy = Callable[[str], Path]


def _messages(root: Path, level: str) -> str:
    return "\n".join(problem.message for problem in read_artifact(root).problems if problem.level == level)


def _paths(root: Path) -> set[str]:
    return {file.path for file in read_artifact(root).files}


def _write_shard(path: Path, tensors: dict[str, tuple[str, list[int]]]) -> None:
    """A safetensors file of zeros, 2 bytes a value for F16 and 4 for I32."""
    header: dict[str, object] = {}
    end = 0
    for name, (dtype, shape) in tensors.items():
        begin = end
        size = {"F16": 2, "I32": 4}[dtype]
        for axis in shape:
            size *= axis
        end += size
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(end))


def _split(root: Path) -> None:
    """Replace model.safetensors by two shards of one tensor each and their index."""
    (root / "model.safetensors").unlink()
    names = ("model.embed_tokens.weight", "lm_head.weight")
    for number, name in enumerate(names, 1):
        _write_shard(root / f"model-0000{number}-of-00002.safetensors", {name: ("F16", [1024, 256])})
    weight_map = {name: f"model-0000{number}-of-00002.safetensors" for number, name in enumerate(names, 1)}
    (root / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_shards_and_their_index_are_one_model(model_copy: ModelCopy) -> None:
    root = model_copy("hf-fp16")
    _split(root)

    artifact = read_artifact(root)

    assert artifact.errors == ()
    assert artifact.parameters == 2 * 1024 * 256
    assert [file.path for file in artifact.files if file.is_weight] == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]


def test_weights_for_other_loaders_are_left_out(model_copy: ModelCopy) -> None:
    root = model_copy("hf-fp16")
    _split(root)
    for name in ("consolidated.safetensors", "model.Q4.gguf", "model.zip", "pytorch_model.bin"):
        (root / name).write_bytes(b"of another loader")

    artifact = read_artifact(root)

    assert artifact.errors == ()
    assert artifact.parameters == 2 * 1024 * 256
    assert not _paths(root) & {"consolidated.safetensors", "model.Q4.gguf", "model.zip", "pytorch_model.bin"}
    assert "model.Q4.gguf is in a format that LMDeploy does not read, 17 bytes (and 1 more like it)" in _messages(
        root, "info"
    )
    assert "pytorch_model.bin is a pickle that this model does not need" in _messages(root, "info")


def test_a_numbered_shard_that_is_not_in_the_index_is_an_error(model_copy: ModelCopy) -> None:
    root = model_copy("hf-fp16")
    _split(root)
    _write_shard(root / "model-00003-of-00003.safetensors", {"model.norm.weight": ("F16", [256])})

    assert "model-00003-of-00003.safetensors is not in the index" in _messages(root, "error")


def test_a_tensor_of_the_index_that_its_shard_lacks_is_named(model_copy: ModelCopy) -> None:
    root = model_copy("hf-fp16")
    _split(root)
    _write_shard(root / "model-00002-of-00002.safetensors", {"other": ("F16", [1])})

    errors = _messages(root, "error")

    assert "lm_head.weight is not in model-00002-of-00002.safetensors" in errors
    assert "other in model-00002-of-00002.safetensors is not in the index" in errors


def test_a_missing_shard_shows_without_an_index(model_copy: ModelCopy) -> None:
    root = model_copy("hf-fp16")
    _split(root)
    (root / "model.safetensors.index.json").unlink()
    (root / "model-00002-of-00002.safetensors").unlink()

    assert "weight file 2 of 2 is missing" in _messages(root, "error")


@pytest.mark.parametrize("content", ["{", "[]", '{"weight_map": []}', '{"weight_map": {"a": 1}}'])
def test_a_broken_index_is_an_error_of_a_model_that_can_be_described(model_copy: ModelCopy, content: str) -> None:
    root = model_copy("hf-fp16")
    _split(root)
    (root / "model.safetensors.index.json").write_text(content)

    artifact = read_artifact(root)

    assert artifact.layers == 2
    assert "model.safetensors.index.json" in artifact.errors[0].message


def test_an_index_cannot_name_files_elsewhere(model_copy: ModelCopy) -> None:
    root = model_copy("hf-fp16")
    (root / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../hf-awq/x", "b": "/etc/x"}}))

    errors = _messages(root, "error")

    assert "../hf-awq/x is missing" in errors
    assert "/etc/x is missing" in errors


def test_gptq_without_a_quantization_config_is_not_taken_for_awq(model_copy: ModelCopy) -> None:
    root = model_copy("hf-fp16")
    stem = "model.layers.0.mlp.up_proj"
    # 256 rows of 768 columns: GPTQ packs 8 rows into an int32, 256 / 8 = 32; 256 / 128 = 2 groups
    _write_shard(
        root / "model.safetensors",
        {f"{stem}.qweight": ("I32", [32, 768]), f"{stem}.scales": ("F16", [2, 768])},
    )

    artifact = read_artifact(root)

    assert (artifact.weight_format, artifact.weight_bits, artifact.group_size) == ("gptq", 4, 128)
    assert "config.json has no quantization_config, although the weights are gptq" in _messages(root, "warning")


def test_pickled_weights_have_the_parameters_of_their_shape(model_copy: ModelCopy) -> None:
    root = model_copy("hf-fp16")
    expected = read_artifact(root).parameters
    (root / "model.safetensors").rename(root / "pytorch_model.bin")

    artifact = read_artifact(root)

    assert artifact.parameters == expected
    assert "pytorch_model.bin is a pickle that cannot be read to its end" in _messages(root, "error")


def test_pickled_internlm_has_the_parameters_that_its_authors_count(model_copy: ModelCopy) -> None:
    root = model_copy("hf-fp16")
    (root / "model.safetensors").rename(root / "pytorch_model.bin")
    shape = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "vocab_size": 103168}
    heads = {"num_attention_heads": 32, "num_key_value_heads": 32, "head_dim": 128, "bias": True}
    config = json.loads((root / "config.json").read_text()) | shape | heads | {"attention_bias": None}
    (root / "config.json").write_text(json.dumps(config | {"architectures": ["InternLMForCausalLM"]}))

    # 2 x 103168 x 4096 + 32 x (4 x 4096 x 4096 + 4 x 4096 + 3 x 4096 x 11008 + 2 x 4096) + 4096
    assert read_artifact(root).parameters == 7_321_948_160


def test_scales_of_a_switched_off_int8_cache_belong_to_a_workspace(tmp_path: Path) -> None:
    root = write_workspace(tmp_path / "w", "0.1.0", quant_policy=0)
    (root / "triton_models/weights/layers.0.past_kv_scale.0.weight").write_bytes(bytes(16))

    artifact = read_artifact(root)

    assert (artifact.kv_policy, artifact.errors) == ("none", ())
    assert "no weight of this model" not in _messages(root, "warning")


def test_symmetric_int8_scales_have_eight_bytes(tmp_path: Path) -> None:
    root = write_workspace(tmp_path / "w", "0.3.0", quant_policy=4)
    for layer in range(3):
        (root / f"triton_models/weights/layers.{layer}.past_kv_scale.0.weight").write_bytes(bytes(8 - layer // 2))

    # the last of the three files is a byte short
    assert "layers.2.past_kv_scale.0.weight has 7 bytes, 8 expected" in _messages(root, "error")


def test_a_stranger_among_the_weights_is_a_warning(tmp_path: Path) -> None:
    root = write_workspace(tmp_path / "w", "0.0.14")
    (root / "triton_models/weights/rope.freqs").write_bytes(bytes(128))  # of Meta's checkpoints, converted by 0.0.x

    assert read_artifact(root).errors == ()
    assert "rope.freqs is no weight of this model" in _messages(root, "warning")


def test_a_workspace_without_its_configuration_is_named(model_copy: ModelCopy) -> None:
    root = model_copy("workspace-0.7.3-awq")  # has a copy of config.json at its root, as a Hugging Face directory has
    (root / "triton_models/weights/config.yaml").unlink()

    with pytest.raises(ArtifactError, match=r"triton_models/weights has neither config\.ini nor config\.yaml"):
        read_artifact(root)


def test_two_configurations_in_one_workspace_are_an_error(model_copy: ModelCopy) -> None:
    root = model_copy("workspace-0.4.2-awq")
    (root / "triton_models/weights/config.yaml").write_text("model_config: {}\n")

    assert "config.ini and triton_models/weights/config.yaml are here" in _messages(root, "error")


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("hf-awq", "tokenizer.json"),
        ("hf-awq", "generation_config.json"),
        ("workspace-0.4.2-awq", "triton_models/tokenizer/tokenizer.json"),
    ],
)
def test_a_tokenizer_that_is_cut_off_or_empty_is_an_error(model_copy: ModelCopy, name: str, path: str) -> None:
    root = model_copy(name)
    content = (root / path).read_bytes()

    (root / path).write_bytes(content[: len(content) // 2])
    assert f"{path} is cut off, it has {len(content) // 2} bytes" in _messages(root, "error")
    (root / path).write_bytes(b"")
    assert f"{path} is empty" in _messages(root, "error")


def test_a_vocabulary_without_merges_is_no_tokenizer(model_copy: ModelCopy) -> None:
    root = model_copy("hf-awq")
    (root / "tokenizer.json").rename(root / "vocab.json")

    assert "tokenizer.json is missing" in _messages(root, "error")
    (root / "merges.txt").write_text("#version: 0.2\n")
    assert read_artifact(root).errors == ()


def test_a_broken_tokenizer_config_is_an_error_of_a_model_that_can_be_described(model_copy: ModelCopy) -> None:
    root = model_copy("hf-awq")
    (root / "tokenizer_config.json").write_text('{"a": 1, "a": 2}')

    assert "tokenizer_config.json is not JSON that can be read: the key 'a' is there twice" in _messages(root, "error")


@pytest.mark.parametrize("path", ["config.json", "tokenizer_config.json"])
def test_code_that_the_configuration_names_is_reported(model_copy: ModelCopy, path: str) -> None:
    root = model_copy("hf-awq")
    config = json.loads((root / path).read_text()) | {"auto_map": {"AutoModel": "someone/else--modeling.Model"}}
    (root / path).write_text(json.dumps(config))

    assert f"{path} names code of its own (auto_map)" in _messages(root, "warning")


def test_dangling_links_that_serve_tritonserver_alone_are_a_warning(model_copy: ModelCopy) -> None:
    root = model_copy("workspace-0.4.2-awq")
    link = root / "model_repository/turbomind"
    link.unlink()
    link.symlink_to("../triton_models/nowhere")

    assert read_artifact(root).errors == ()
    assert "model_repository/turbomind is a link to ../triton_models/nowhere" in _messages(root, "warning")


def test_a_link_to_a_pipe_elsewhere_is_not_opened(model_copy: ModelCopy, tmp_path: Path) -> None:
    root = model_copy("hf-awq")
    os.mkfifo(tmp_path / "pipe")
    (root / "notes.txt").symlink_to(tmp_path / "pipe")

    assert "notes.txt is a link to" in _messages(root, "error")


@pytest.mark.parametrize("name", [b"evil\nname.json", b"\x1b[31mred.txt", b"latin-\xe9.txt"])
def test_a_name_that_is_not_printable_text_is_an_error_and_harmless(model_copy: ModelCopy, name: bytes) -> None:
    root = model_copy("hf-awq")
    Path(os.fsdecode(os.fsencode(root) + b"/" + name)).write_bytes(b"{}")

    artifact = read_artifact(root)

    assert "has a name that is not printable text" in artifact.errors[0].message
    assert artifact.errors[0].message.isprintable()
    assert all(file.path.isprintable() for file in artifact.files)


def test_chinese_names_are_printable_text(model_copy: ModelCopy) -> None:
    root = model_copy("hf-awq")
    (root / "说明.md").write_text("# 说明\n")

    assert read_artifact(root).errors == ()
    assert "说明.md" in _paths(root)


@pytest.mark.parametrize("name", ["x" * 5000, "not-\udce9-text", "a\0b"])
def test_a_path_that_no_system_takes_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ArtifactError, match=r"cannot be read|does not exist"):
        read_artifact(tmp_path / name)


def test_directories_without_end_are_refused(model_copy: ModelCopy) -> None:
    root = model_copy("hf-awq")
    (root / Path(*["d"] * 40)).mkdir(parents=True)

    with pytest.raises(ArtifactError, match="nested deeper than 32 directories"):
        read_artifact(root)


@pytest.mark.parametrize("path", ["config.json", "triton_models/weights/config.yaml"])
def test_a_directory_in_place_of_the_configuration_is_refused(model_copy: ModelCopy, path: str) -> None:
    root = model_copy("workspace-0.7.3-awq" if "triton" in path else "hf-awq")
    (root / path).unlink()
    (root / path).mkdir()

    with pytest.raises(ArtifactError, match=r"holds no model|neither config"):
        read_artifact(root)


def test_a_directory_in_place_of_a_weight_file_is_a_missing_file(model_copy: ModelCopy) -> None:
    root = model_copy("workspace-0.7.3-awq")
    path = root / "triton_models/weights/norm.weight"
    path.unlink()
    path.mkdir()

    assert "norm.weight is missing, 512 bytes expected" in _messages(root, "error")


def test_a_configuration_of_millions_of_files_is_refused_at_once(tmp_path: Path) -> None:
    root = write_workspace(tmp_path / "w", "0.7.3", expert_num=[4096] * 3, tp=64, head_num=64, kv_head_num=64)

    # 3 layers x 64 ranks x (6 + 3 x 4096) = 2 360 448
    with pytest.raises(ArtifactError, match="describes 2360448 weight files"):
        read_artifact(root)


def test_a_mixture_of_experts_is_whole_with_its_experts_and_gates(tmp_path: Path) -> None:
    root = write_workspace(tmp_path / "w", "0.7.3", expert_num=[0, 2, 2], expert_inter_size=256, moe_shared_gate=True)
    weights = root / "triton_models/weights"

    # 2 gates, 2 shared gates, 2 layers x 2 experts x (w1, w2, w3)
    assert "16 files missing in all" in _messages(root, "error")
    for layer in (1, 2):
        (weights / f"layers.{layer}.moe_ffn.gate.weight").write_bytes(bytes(512 * 2 * 2))
        (weights / f"layers.{layer}.moe_ffn.shared_gate.weight").write_bytes(bytes(512 * 2))
        for expert in (0, 1):
            for part in ("w1", "w2", "w3"):
                path = weights / f"layers.{layer}.moe_ffn.experts.{expert}.{part}.0.weight"
                path.write_bytes(bytes(512 * 256 * 2))
    assert read_artifact(root).errors == ()


def test_latent_attention_is_not_judged_by_the_files_of_another_kind(tmp_path: Path) -> None:
    root = write_workspace(tmp_path / "w", "0.7.3", kv_lora_rank=512)

    assert read_artifact(root).errors == ()
    assert "multi-head latent attention" in _messages(root, "warning")


def test_the_models_here_are_seen_as_git_gives_them() -> None:
    artifact = read_artifact(MODELS / "workspace-0.4.2-awq")

    links = [problem for problem in artifact.problems if "stored as a text file" in problem.message]
    assert [problem.level for problem in links] == ["info"]


def test_layers_for_speculative_decoding_are_not_counted(model_copy: ModelCopy) -> None:
    root = model_copy("hf-fp16")
    config = json.loads((root / "config.json").read_text())

    (root / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    assert "the weights have 2 layers, 1 expected" in _messages(root, "error")
    (root / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1, "num_nextn_predict_layers": 1}))
    assert read_artifact(root).errors == ()
