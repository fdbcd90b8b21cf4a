"""What `read_artifact` says of model directories that are as they should be."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import MODELS
from workspaces import INI_KEYS, YAML_KEYS, write_workspace

from deploytk import lmdeploy
from deploytk.artifact import Rope, read_artifact
from deploytk.artifact.facts import with_tensors
from deploytk.artifact.gptq_zeros import stored_zeros
from deploytk.artifact.shards import Shards
from deploytk.artifact.tensors import Tensors


def _change_config(root: Path, **changes: object) -> None:
    path = root / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def _messages(root: Path, level: str) -> str:
    return "\n".join(problem.message for problem in read_artifact(root).problems if problem.level == level)


@pytest.mark.parametrize(
    ("name", "made_by", "pin"),
    [
        ("workspace-0.4.2-awq", "lmdeploy 0.4.2", "0.4.2"),
        ("workspace-0.7.3-awq", "lmdeploy 0.7.3", "0.7.3"),
        ("workspace-0.9.2-awq", "lmdeploy 0.9.2-0.9.2.post1", None),
        ("gqa/workspace-0.4.2-llama-awq-tp2", "lmdeploy 0.4.2", "0.4.2"),
        ("gqa/workspace-0.7.3-qwen2-awq-tp1", "lmdeploy 0.7.3", "0.7.3"),
    ],
)
def test_a_real_workspace_is_recognised_and_whole(name: str, made_by: str, pin: str | None) -> None:
    artifact = read_artifact(MODELS / name)

    assert (artifact.layout, artifact.made_by, artifact.lmdeploy.pin) == ("workspace", made_by, pin)
    assert (artifact.weight_format, artifact.weight_bits, artifact.group_size) == ("awq", 4, 128)
    assert artifact.errors == ()


def test_the_facts_of_a_workspace() -> None:
    artifact = read_artifact(MODELS / "workspace-0.4.2-awq")

    assert (artifact.layers, artifact.hidden_size, artifact.intermediate_size) == (2, 256, 768)
    assert (artifact.heads, artifact.kv_heads, artifact.head_dim, artifact.vocab_size) == (2, 2, 128, 1024)
    assert (artifact.session_len, artifact.chat_template, artifact.tensor_parallel) == (2056, "internlm-chat-7b", 1)
    # 2 layers x (4 x 256 x 256 + 3 x 256 x 768 + 2 x 256) + 2 x 1024 x 256 + 256 = 2 229 504
    assert artifact.parameters == 2 * (4 * 256 * 256 + 3 * 256 * 768 + 2 * 256) + 2 * 1024 * 256 + 256
    # per layer 98304 + 6144 + 32768 + 2048 + 2 x 512 + 196608 + 12288 + 98304 + 6144 = 453632; 2 x 524288 + 512 more
    assert artifact.weights_bytes == 2 * 453632 + 2 * 524288 + 512


@pytest.mark.parametrize("name", ["hf-fp16", "hf-awq", "gqa/hf-llama-awq", "gqa/hf-qwen2-awq"])
def test_a_real_huggingface_directory_is_whole(name: str) -> None:
    artifact = read_artifact(MODELS / name)

    assert (artifact.layout, artifact.errors, artifact.chat_template) == ("huggingface", (), "hf")
    assert artifact.lmdeploy.pin == "0.18.0"


def test_all_layouts_of_one_model_have_the_same_shape() -> None:
    names = ("hf-fp16", "hf-awq", "workspace-0.4.2-awq", "workspace-0.7.3-awq", "workspace-0.9.2-awq")
    artifacts = [read_artifact(MODELS / name) for name in names]

    shapes = {(a.parameters, a.layers, a.heads, a.kv_heads, a.head_dim, a.vocab_size, a.norm_eps) for a in artifacts}

    assert len(shapes) == 1


@pytest.mark.parametrize("weight_type", ["fp16", "int4"])
@pytest.mark.parametrize("version", INI_KEYS)
def test_every_era_of_config_ini_is_recognised(tmp_path: Path, version: str, weight_type: str) -> None:
    root = write_workspace(tmp_path / "w", version, weight_type=weight_type, tensor_para_size=2, attn_bias=1)

    artifact = read_artifact(root)

    assert artifact.made_by.removeprefix("lmdeploy ").split("-")[-1] == version
    assert (artifact.lmdeploy.pin, artifact.tensor_parallel, artifact.errors) == (version, 2, ())


@pytest.mark.parametrize("weight_type", ["float16", "bfloat16", "int4"])
@pytest.mark.parametrize("version", YAML_KEYS)
def test_every_era_of_config_yaml_is_recognised(tmp_path: Path, version: str, weight_type: str) -> None:
    group_size = 128 if weight_type == "int4" else 0
    root = write_workspace(tmp_path / "w", version, weight_type=weight_type, group_size=group_size)

    artifact = read_artifact(root)

    assert artifact.made_by.removeprefix("lmdeploy ").split("-")[-1] == version
    assert artifact.lmdeploy.pin == (version if version < "0.8" else None)
    assert artifact.errors == ()


@pytest.mark.parametrize("version", [*INI_KEYS, *YAML_KEYS])
def test_no_workspace_is_given_to_the_versions_that_answer_garbage(tmp_path: Path, version: str) -> None:
    versions = read_artifact(write_workspace(tmp_path / "w", version)).lmdeploy

    assert not {versions.min, versions.max, versions.pin} & {"0.8.0", "0.9.0", "0.9.1", "0.9.2", "0.9.2.post1"}
    assert "0.8.0-0.9.2" in versions.reason


@pytest.mark.parametrize(
    ("version", "number", "policy"),
    [("0.1.0", 4, "int8"), ("0.3.0", 4, "int8"), ("0.4.1", 4, "int4"), ("0.4.2", 8, "int8"), ("0.5.3", 0, "none")],
)
def test_quant_policy_means_what_it_meant_in_its_era(tmp_path: Path, version: str, number: int, policy: str) -> None:
    root = write_workspace(tmp_path / "w", version, quant_policy=number)

    assert read_artifact(root).kv_policy == policy


def test_offline_int8_needs_its_scale_files(tmp_path: Path) -> None:
    root = write_workspace(tmp_path / "w", "0.1.0", quant_policy=4)

    assert "layers.0.past_kv_scale.0.weight is missing, 16 bytes expected" in _messages(root, "error")
    for layer in range(3):
        (root / f"triton_models/weights/layers.{layer}.past_kv_scale.0.weight").write_bytes(bytes(16))
    assert read_artifact(root).errors == ()


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ({"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True, "desc_act": False}, ("gptq", 4, 128)),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, ("fp8", 8, None)),
        ({"quant_method": "mxfp4"}, ("mxfp4", 4, 32)),
        ({"quant_method": "smooth_quant", "quant_dtype": "int8"}, ("smooth_quant", 8, None)),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"group_0": {"weights": {"num_bits": 4, "group_size": 32}}},
            },
            ("compressed-tensors", 4, 32),
        ),
        (None, ("awq", 4, 128)),  # as LMDeploy up to 0.3.0 wrote it: the tensors alone tell
    ],
)
def test_every_quantization_is_named(
    model_copy: Callable[[str], Path], method: dict[str, object] | None, expected: tuple[str, int, int | None]
) -> None:
    root = model_copy("hf-awq")
    _change_config(root, quantization_config=method)

    artifact = read_artifact(root)

    assert (artifact.weight_format, artifact.weight_bits, artifact.group_size) == expected


def test_a_quantization_nested_in_the_text_part_is_found(model_copy: Callable[[str], Path]) -> None:
    root = model_copy("hf-awq")
    config = json.loads((root / "config.json").read_text())
    nested = {"architectures": ["InternVLChatModel"], "model_type": "internvl_chat", "llm_config": config}
    (root / "config.json").write_text(json.dumps(nested))

    artifact = read_artifact(root)

    assert (artifact.architecture, artifact.weight_format, artifact.hidden_size) == ("InternVLChatModel", "awq", 256)


def test_smooth_quant_is_left_to_the_pytorch_engine(model_copy: Callable[[str], Path]) -> None:
    root = model_copy("hf-fp16")
    _change_config(root, quantization_config={"quant_method": "smooth_quant"})

    assert read_artifact(root).lmdeploy.engine == "pytorch"


def test_internlm_is_pinned_to_the_last_turbomind_that_had_it(model_copy: Callable[[str], Path]) -> None:
    root = model_copy("hf-fp16")
    _change_config(root, architectures=["InternLMForCausalLM"])

    versions = read_artifact(root).lmdeploy

    assert (versions.engine, versions.pin) == ("turbomind", "0.13.0")


def test_pickled_weights_are_read_from_their_index_alone(model_copy: Callable[[str], Path]) -> None:
    root = model_copy("hf-awq")
    (root / "model.safetensors").unlink()
    _change_config(root, quantization_config=None)
    (root / "pytorch_model-00001-of-00001.bin").write_bytes(b"\x80\x02cos\nsystem\n(S'touch /tmp/owned'\ntR.")
    weight_map = {"model.layers.0.self_attn.q_proj.qweight": "pytorch_model-00001-of-00001.bin"}
    (root / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))

    artifact = read_artifact(root)

    assert (artifact.weight_format, artifact.made_by) == ("awq", "lmdeploy 0.0.10-0.3.0")
    assert "-00001.bin would call os.system when it is loaded" in _messages(root, "error")
    assert not Path("/tmp/owned").exists()


def test_leftovers_are_reported_and_do_not_belong(model_copy: Callable[[str], Path]) -> None:
    root = model_copy("hf-awq")
    (root / "inputs_stats.pth").write_bytes(b"\x80\x02.")

    artifact = read_artifact(root)

    assert "inputs_stats.pth is left over" in _messages(root, "info")
    assert "inputs_stats.pth" not in {file.path for file in artifact.files}


def test_code_and_private_files_are_reported(model_copy: Callable[[str], Path]) -> None:
    root = model_copy("hf-awq")
    (root / "modeling_tiny.py").write_text("import os\n")
    (root / "model.safetensors").chmod(0o600)

    warnings = _messages(root, "warning")

    assert "modeling_tiny.py is Python code" in warnings
    assert "model.safetensors has mode 0600" in warnings


def test_links_out_of_the_directory_are_errors(model_copy: Callable[[str], Path]) -> None:
    root = model_copy("hf-awq")
    (root / "notes.txt").symlink_to("/etc/passwd")

    assert "notes.txt is a link to /etc/passwd" in _messages(root, "error")


def test_a_snapshot_of_the_huggingface_cache_is_a_model(tmp_path: Path) -> None:
    blobs = tmp_path / "models--me--tiny" / "blobs"
    snapshot = tmp_path / "models--me--tiny" / "snapshots" / "0123"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for file in (MODELS / "hf-awq").iterdir():
        os.link(file, blobs / f"blob-{file.name}")
        (snapshot / file.name).symlink_to(f"../../blobs/blob-{file.name}")

    artifact = read_artifact(snapshot)

    assert artifact.errors == ()
    assert artifact.weights_bytes == (MODELS / "hf-awq" / "model.safetensors").stat().st_size


def test_a_link_into_another_models_cache_is_not_followed(
    model_copy: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "hub"
    secret = cache / "models--me--private" / "blobs" / "0123"
    secret.parent.mkdir(parents=True)
    secret.write_text("mine")
    root = model_copy("hf-awq")
    (root / "notes.txt").symlink_to(secret)
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))

    assert "notes.txt is a link to" in _messages(root, "error")


def test_links_to_where_a_container_fetched_its_weights_are_followed(
    model_copy: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = model_copy("hf-awq")
    (root / "model.safetensors").rename(tmp_path / "model.safetensors")
    (root / "model.safetensors").symlink_to(tmp_path / "model.safetensors")
    monkeypatch.setenv("DEPLOYTK_WEIGHTS", str(tmp_path))

    assert not [problem for problem in read_artifact(root).problems if problem.level == "error"]


def test_links_of_a_workspace_are_not_counted_twice(model_copy: Callable[[str], Path]) -> None:
    root = model_copy("workspace-0.4.2-awq")
    expected = read_artifact(root).weights_bytes
    link = root / "triton_models" / "interactive" / "1" / "weights"
    link.unlink()
    link.symlink_to("../../weights")

    artifact = read_artifact(root)

    assert (artifact.weights_bytes, artifact.errors) == (expected, ())


def test_the_generated_files_of_a_bundle_are_not_the_models(model_copy: Callable[[str], Path]) -> None:
    root = model_copy("hf-awq")
    (root / "app.py").write_text("print()\n")
    files = {"app.py": {"kind": "app"}, "config.json": {"kind": "model"}}
    (root / "deploytk.json").write_text(json.dumps({"files": files}))

    paths = {file.path for file in read_artifact(root).files}

    assert "config.json" in paths
    assert not paths & {"app.py", "deploytk.json"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"rope_theta": 5e5, "rope_parameters": None}, Rope(5e5, 128, ())),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}, Rope(1e6, 128, ())),
        (
            {"rope_parameters": None, "rope_theta": 1e4, "rope_scaling": {"type": "dynamic", "factor": 2.0}},
            Rope(1e4, 128, (("rope_type", "dynamic"), ("factor", 2.0))),
        ),
        (
            {"rope_parameters": {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e4}}},
            Rope(1e6, 128, ()),
        ),
        ({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, Rope(1e4, 64, ())),
        ({"rope_parameters": None, "rope_theta": None, "rotary_emb_base": 1e6}, Rope(1e6, 128, ())),
    ],
)
def test_rotary_embeddings_are_read_under_every_name(
    model_copy: Callable[[str], Path], changes: dict[str, object], expected: Rope
) -> None:
    root = model_copy("hf-fp16")
    _change_config(root, **changes)

    assert read_artifact(root).rope == expected


def test_qwen1_counts_both_halves_of_its_inner_size(model_copy: Callable[[str], Path]) -> None:
    root = model_copy("hf-fp16")
    _change_config(root, architectures=["QWenLMHeadModel"], intermediate_size=2 * 768)

    assert read_artifact(root).intermediate_size == 768


def test_a_workspace_that_names_no_chat_template_is_told_so(tmp_path: Path) -> None:
    root = write_workspace(tmp_path / "w", "0.7.3", chat_template="")

    artifact = read_artifact(root)

    assert artifact.chat_template is None
    assert "the configuration names no chat template" in _messages(root, "warning")


@pytest.mark.parametrize(
    ("word", "zeros", "is_served"),
    [(0x77777777, "v1", True), (0x88888888, "v2", False), (0x12345678, None, True)],
)
def test_zero_points_in_the_files_tell_the_version_of_gptq(
    tmp_path: Path, model_copy: Callable[[str], Path], word: int, zeros: str | None, is_served: bool
) -> None:
    root = model_copy("hf-fp16")
    gptq = {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True, "desc_act": False}
    _change_config(root, quantization_config={**gptq, "checkpoint_format": "gptq"})
    other = struct.pack("<I", 0)
    entries = {"a.scales": ["F16", [2], [0, 4]], "a.qzeros": ["I32", [1, 1], [4, 8]]}
    header = {
        name: dict(zip(("dtype", "shape", "data_offsets"), entry, strict=True)) for name, entry in entries.items()
    }
    text = json.dumps(header).encode()
    file = tmp_path / "weights.safetensors"
    file.write_bytes(struct.pack("<Q", len(text)) + text + other + struct.pack("<I", word))
    facts = read_artifact(root).facts
    assert facts

    found = with_tensors(facts, tmp_path, Shards({file.name: 1}, Tensors(2), frozenset(), ()))

    assert found.quantization.zeros == zeros
    assert (lmdeploy.support(found).engine == "turbomind") is is_served


@pytest.mark.parametrize("content", [b"", b"\xff" * 40, struct.pack("<Q", 2**62) + b"{}", b"\x02" + b"\0" * 7 + b"{}"])
def test_zero_points_of_a_broken_file_tell_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "weights.safetensors").write_bytes(content)

    assert stored_zeros([tmp_path / "weights.safetensors", tmp_path / "missing.safetensors"]) is None
