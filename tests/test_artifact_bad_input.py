"""Broken and hostile model directories: one line what, one line what to do, never a traceback."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import MODELS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from workspaces import write_workspace

from deploytk.artifact import read_artifact
from deploytk.base.errors import ArtifactError, DeployError


def _errors(root: Path) -> str:
    return "\n".join(problem.message for problem in read_artifact(root).errors)


def _safetensors(header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + data


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="nowhere does not exist"):
        read_artifact(tmp_path / "nowhere")


def test_an_empty_directory_holds_no_model(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="holds no model"):
        read_artifact(tmp_path)


def test_a_file_is_not_a_directory(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")

    with pytest.raises(ArtifactError, match="is not a directory"):
        read_artifact(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("version", "name"),
    [
        ("0.4.2", "layers.1.feed_forward.w13.0.qweight"),
        ("0.7.3", "layers.2.feed_forward.w2.0.scales"),
        ("0.3.0", "output.weight"),
    ],
)
def test_a_weight_file_short_by_one_byte_is_named_with_both_sizes(tmp_path: Path, version: str, name: str) -> None:
    root = write_workspace(tmp_path / "w", version, weight_type="int4", group_size=128)
    path = root / "triton_models" / "weights" / name
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(size - 1)

    assert f"{name} has {size - 1} bytes, {size} expected" in _errors(root)


def test_an_oversized_weight_file_is_named(tmp_path: Path) -> None:
    root = write_workspace(tmp_path / "w", "0.4.2")
    with (root / "triton_models/weights/norm.weight").open("ab") as file:
        file.write(b"\0")

    assert "norm.weight has 1025 bytes, 1024 expected" in _errors(root)


def test_many_missing_files_are_counted_not_listed(tmp_path: Path) -> None:
    root = write_workspace(tmp_path / "w", "0.4.2")
    for path in (root / "triton_models/weights").glob("layers.*"):
        path.unlink()

    problems = read_artifact(root).errors

    # 3 layers x (2 norms + w_qkv + wo + w1 + w2 + w3) = 21
    assert [problem.message for problem in problems][-1] == "21 files missing in all"
    assert len(problems) == 4


def test_a_missing_rank_and_a_rank_too_many_are_named(tmp_path: Path) -> None:
    root = write_workspace(tmp_path / "w", "0.4.2", tensor_para_size=2)
    weights = root / "triton_models/weights"
    (weights / "layers.0.attention.wo.1.weight").rename(weights / "layers.0.attention.wo.2.weight")

    errors = _errors(root)

    assert "layers.0.attention.wo.1.weight is missing" in errors
    assert "layers.0.attention.wo.2.weight is of rank 2, but the configuration has ranks below 2" in errors


def test_group_size_64_is_refused(tmp_path: Path) -> None:
    root = write_workspace(tmp_path / "w", "0.4.2", weight_type="int4", group_size=64)

    assert "group_size is 64, 128 expected" in _errors(root)


def test_both_layouts_in_one_directory_are_an_error(model_copy: Callable[[str], Path]) -> None:
    root = model_copy("workspace-0.7.3-awq")
    (root / "model.safetensors").write_bytes((MODELS / "hf-awq" / "model.safetensors").read_bytes())

    assert "both a workspace and Hugging Face weights (model.safetensors) are here" in _errors(root)


def test_a_missing_tokenizer_is_an_error(model_copy: Callable[[str], Path]) -> None:
    for name in ("hf-awq", "workspace-0.7.3-awq", "workspace-0.4.2-awq"):
        root = model_copy(name)
        next(root.rglob("tokenizer.json")).unlink()

        assert "tokenizer.json is missing" in _errors(root)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"\x80\x04\x95\x10\x00", "is a pickle"),
        (b"PK\x03\x04" + bytes(100), "is a zip file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git-lfs pointer"),
        (b"", "0 bytes"),
        (b"\xff" * 7, "7 bytes"),
        (struct.pack("<Q", 2**63), "too few for the header"),
        (_safetensors(b"not json"), "malformed header"),
        (_safetensors(b"[" * 100_000), "malformed header"),
        (_safetensors(b'{"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}}', b"\0\0\0"), "expected"),
        (_safetensors(b'{"a":{"dtype":"F16","shape":[2],"data_offsets":[0,3]}}', b"\0\0\0"), "4 expected"),
        (_safetensors(b'{"a":{"dtype":"F16","shape":[2],"data_offsets":[2,6]}}', bytes(6)), "gap or an overlap"),
        (_safetensors(b'{"a":{"dtype":"F16","shape":[-2],"data_offsets":[0,4]}}', bytes(4)), "malformed entry"),
        (_safetensors(b'{"a":{"dtype":"Q9","shape":[2],"data_offsets":[0,4]}}', bytes(4)), "malformed entry"),
    ],
)
def test_a_broken_safetensors_file_is_told_apart(model_copy: Callable[[str], Path], content: bytes, named: str) -> None:
    root = model_copy("hf-awq")
    (root / "model.safetensors").write_bytes(content)

    assert named in _errors(root)


def test_a_truncated_shard_names_both_sizes(model_copy: Callable[[str], Path]) -> None:
    root = model_copy("hf-awq")
    path = root / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1])

    assert f"model.safetensors has {len(content) - 1} bytes, {len(content)} expected" in _errors(root)


def test_a_shard_of_the_index_that_is_missing_is_named(model_copy: Callable[[str], Path]) -> None:
    root = model_copy("hf-awq")
    index = {"weight_map": {"a": "model-00002-of-00002.safetensors"}}
    (root / "model.safetensors.index.json").write_text(json.dumps(index))

    assert "model-00002-of-00002.safetensors is missing" in _errors(root)


def test_config_and_weights_that_disagree_are_named(model_copy: Callable[[str], Path]) -> None:
    root = model_copy("hf-awq")
    path = root / "config.json"
    path.write_text(path.read_text().replace('"num_hidden_layers": 2', '"num_hidden_layers": 3'))

    assert "the weights have 2 layers, 3 expected" in _errors(root)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "0 sections"),
        ("[llama]\nmodel_name = a\nmodel_name = b\n", "already exists"),
        ("[llama]\na = 1\n[llama]\nb = 2\n", "already exists"),
        ("[llama]\na = 1\n[other]\nb = 2\n", "2 sections"),
        ("no section\n", "no section headers"),
        ("[llama]\nnum_layer = 3\n", "keys of no known LMDeploy version"),
    ],
)
def test_a_broken_config_ini_says_how(tmp_path: Path, text: str, named: str) -> None:
    root = write_workspace(tmp_path / "w", "0.4.2")
    (root / "triton_models/weights/config.ini").write_text(text)

    with pytest.raises(ArtifactError, match=named):
        read_artifact(root)


def test_percent_signs_and_a_byte_order_mark_are_harmless(tmp_path: Path) -> None:
    root = write_workspace(tmp_path / "w", "0.4.2", model_name="50%(s)s%d")
    path = root / "triton_models/weights/config.ini"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())

    assert read_artifact(root).chat_template == "50%(s)s%d"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"num_layer": "many"}, "num_layer is 'many'"),
        ({"num_layer": 10**9}, "num_layer"),
        ({"num_layer": -1}, "num_layer"),
        ({"weight_type": "int3"}, "weight_type is 'int3'"),
        ({"quant_policy": 5}, "quant_policy is '5'"),
        ({"norm_eps": "nan"}, "norm_eps"),
        ({"tensor_para_size": 3}, "cannot be split over 3 ranks"),
        ({"model_name": "x" * 1000}, "model_name"),
        ({"model_name": "a\x1b[31mb"}, "model_name"),
    ],
)
def test_impossible_values_are_refused_by_name(tmp_path: Path, changes: dict[str, object], named: str) -> None:
    root = write_workspace(tmp_path / "w", "0.4.2")
    path = root / "triton_models/weights/config.ini"
    lines = [line for line in path.read_text().splitlines() if line.split(" ")[0] not in changes]
    path.write_text("\n".join([*lines, *(f"{key} = {value}" for key, value in changes.items())]))

    with pytest.raises(ArtifactError, match=named):
        read_artifact(root)


_BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (_BOMB, "anchors"),
        ("model_config: {a: 1, a: 2}\n", "twice"),
        ("model_config: {num_layer: .nan}\n", "NaN"),
        ("model_config: " + "[" * 5000 + "\n", "nested"),
        ("model_config: !!python/object/apply:os.system ['true']\n", "tag"),
        ("- 1\n", "mapping"),
        ("{: 1", "YAML"),
        ("model_config: 5\n", "model_config"),
    ],
)
def test_a_hostile_config_yaml_is_refused_at_once(tmp_path: Path, text: str, named: str) -> None:
    root = write_workspace(tmp_path / "w", "0.7.3")
    (root / "triton_models/weights/config.yaml").write_text(text)
    started = time.monotonic()

    with pytest.raises(ArtifactError, match=named):
        read_artifact(root)

    assert time.monotonic() - started < 10  # a YAML bomb takes hours


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('{"architectures": ["A"], "architectures": ["B"]}', "twice"),
        ('{"architectures": ["A"], "rope_theta": NaN}', "NaN"),
        ("[" * 100_000, "nested"),
        ("{" * 10, "JSON"),
        ("[]", "mapping"),
        ("{}", "architecture"),
        ('{"architectures": ["A\\n# injected"]}', "architectures is"),
        ('{"architectures": ["A"], "num_attention_heads": 1e400}', "infinity"),
        (
            '{"architectures": ["LlamaForCausalLM"], "quantization_config": {"quant_method": "bitsandbytes"}}',
            "bitsandbytes",
        ),
    ],
)
def test_a_hostile_config_json_is_refused(model_copy: Callable[[str], Path], text: str, named: str) -> None:
    root = model_copy("hf-awq")
    (root / "config.json").write_text(text)

    with pytest.raises(ArtifactError, match=named):
        read_artifact(root)


ENDLESS = ("\u00b2", "0x" + "f" * 5000, "9" * 5000, "1" + "0" * 400, "1e400")
"""What looks like a number: `str.isdigit` says so, or a float cannot hold it, or `str` cannot write it."""


@pytest.mark.parametrize(
    ("version", "key"),
    [
        ("0.4.2", "max_position_embeddings"), ("0.4.2", "rope_theta"), ("0.4.2", "num_layer"),
        ("0.7.3", "norm_eps"), ("0.7.3", "moe_shared_gate"), ("0.7.3", "use_logn_attn"), ("0.7.3", "chat_template"),
        ("0.9.1", "base"), ("0.9.1", "attn_tp_size"), ("0.9.1", "type"),
    ],
)  # fmt: skip
def test_a_number_that_cannot_be_counted_with_is_no_traceback(
    tmp_path: Path, version: str, key: str, record_property: Callable[[str, object], None]
) -> None:
    record_property("inputs", len(ENDLESS))
    root = write_workspace(tmp_path / "w", version)
    weights = root / "triton_models" / "weights"
    config = next(path for path in (weights / "config.yaml", weights / "config.ini") if path.is_file())
    others = [line for line in config.read_text().splitlines() if key not in line]
    [line] = [line for line in config.read_text().splitlines() if re.match(rf"\s*{key}\s*[:=]", line)] or [f"{key} = 0"]
    for number in ENDLESS:
        config.write_text("\n".join([*others, re.sub("([:=]).*", rf"\g<1> {number}", line), ""]))

        with contextlib.suppress(ArtifactError):
            read_artifact(root)


def test_a_number_in_json_that_no_float_holds_is_refused(model_copy: Callable[[str], Path]) -> None:
    root = model_copy("hf-awq")
    config = json.loads((root / "config.json").read_text())
    (root / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 10**400}))

    with pytest.raises(ArtifactError, match="hundreds of digits"):
        read_artifact(root)


def test_a_configuration_that_is_not_text_is_refused(model_copy: Callable[[str], Path]) -> None:
    root = model_copy("hf-awq")
    (root / "config.json").write_bytes(b"\xff\xfe\x00{")

    with pytest.raises(ArtifactError, match="not text in UTF-8"):
        read_artifact(root)


def test_a_pipe_among_the_files_is_refused_and_not_read(model_copy: Callable[[str], Path]) -> None:
    root = model_copy("hf-awq")
    os.mkfifo(root / "model-2.safetensors")

    with pytest.raises(ArtifactError, match="neither a file nor a directory"):
        read_artifact(root)


@given(st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_only_our_own_errors_come_out(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    name, path = data.draw(
        st.sampled_from(
            [
                ("hf-awq", "config.json"),
                ("hf-awq", "model.safetensors"),
                ("hf-awq", "tokenizer_config.json"),
                ("workspace-0.4.2-awq", "triton_models/weights/config.ini"),
                ("workspace-0.7.3-awq", "triton_models/weights/config.yaml"),
            ]
        )
    )
    root = Path(shutil.copytree(MODELS / name, tmp_path_factory.mktemp("fuzz") / "m", copy_function=_link))
    content = bytearray((root / path).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(len(content) - 1, 4000)))
        piece = data.draw(
            st.binary(max_size=6) | st.sampled_from([b"null", b"[]", b"{}", b"-1", b"1e999", b'"', b"\n"])
        )
        content[at : at + data.draw(st.integers(0, 8))] = piece
    (root / path).unlink()
    (root / path).write_bytes(content)

    with contextlib.suppress(DeployError):
        read_artifact(root)


def _link(source: str, destination: str) -> None:
    os.link(source, destination)
