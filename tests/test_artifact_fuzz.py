"""Whatever the files of a model hold, only our own errors come out, and nothing that a terminal would act upon."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import MODELS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from workspaces import INI_KEYS, write_workspace

from deploytk.artifact import read_artifact
from deploytk.base.errors import DeployError
from deploytk.base.json import plain

_VALUES = st.sampled_from(
    [
        *(None, True, 0, 1, -1, 3, 128, 10**6, 2**63, 10**30, 0.0, -1.5, 1e308, "", "x", "1", "None", "int4", "fp8"),
        *("a\nb", "\x1b[31m", "{{ 7 * 7 }}", "'; true", "x" * 300, "\ud800"),
        *([], [1], [[]], [None], ["A"], [768, 768], {}, {"a": 1}, {"type": "linear"}, {"full_attention": {}}),
        *({"quant_method": []}, {"quant_method": "gptq", "bits": "x"}, {"quant_method": "compressed-tensors"}),
    ]
)
_KEYS = st.sampled_from(
    "text_config llm_config quantization_config rope_scaling expert_num kv_lora_rank rope_param tp dtype files".split()
)


def _mutated(draw: Callable[[Any], Any], value: Any) -> Any:
    """`value` with one thing in it removed, replaced or added."""
    if isinstance(value, dict) and value and draw(st.integers(0, 9)):
        key = draw(st.sampled_from(sorted(value)))
        action = draw(st.integers(0, 9))
        if action == 0:
            return {name: item for name, item in value.items() if name != key}
        if action == 1:
            return value | {draw(_KEYS): draw(_VALUES)}
        return value | {key: _mutated(draw, value[key])}
    if isinstance(value, list) and value and draw(st.booleans()):
        place = draw(st.integers(0, len(value) - 1))
        return [*value[:place], _mutated(draw, value[place]), *value[place + 1 :]]
    return draw(_VALUES)


def _model(directory: Path, name: str) -> Path:
    return Path(shutil.copytree(MODELS / name, directory / "m", copy_function=os.link))


ODD = "\ud800\x1b[2J" + 400 * "x"


def _replace(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)  # never write through a hard link
    path.write_bytes(content)


def _read_safely(root: Path) -> None:
    try:
        artifact = read_artifact(root)
    except DeployError as error:
        texts = [str(error), error.hint]
    else:
        json.dumps(plain(artifact.lmdeploy), allow_nan=False)
        shown = {key: value for key, value in plain(artifact).items() if key != "config"}  # type: ignore[attr-defined]
        json.dumps(shown, allow_nan=False, ensure_ascii=False).encode()
        texts = [text for problem in artifact.problems for text in (problem.message, problem.hint)]
    assert all(text and text.isprintable() and len(text) < 700 for text in texts)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("hf-awq", "config.json"),
        ("hf-awq", "tokenizer_config.json"),
        ("hf-awq", "model.safetensors"),
        ("hf-fp16", "model.safetensors.index.json"),
        ("hf-fp16", "deploytk.json"),
        ("workspace-0.7.3-awq", "triton_models/weights/config.yaml"),
        ("workspace-0.9.2-awq", "triton_models/weights/config.yaml"),
    ],
)
@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_changed_values_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, name: str, path: str, data: st.DataObject
) -> None:
    root = _model(tmp_path_factory.mktemp("fuzz"), name)
    file = root / path
    if path == "model.safetensors":
        content = file.read_bytes()
        length = struct.unpack("<Q", content[:8])[0]
        value, rest = json.loads(content[8 : 8 + length]), content[8 + length :]
    elif file.suffix == ".yaml":
        value = yaml.safe_load(file.read_text())
    elif file.exists():
        value = json.loads(file.read_text())
    else:
        value = {"weight_map": {"lm_head.weight": "model.safetensors"}, "files": {"app.py": {"kind": "app"}}}

    for _ in range(data.draw(st.integers(1, 3))):
        value = _mutated(data.draw, value)
    text = (yaml.safe_dump(value) if file.suffix == ".yaml" else json.dumps(value)).encode()
    _replace(file, struct.pack("<Q", len(text)) + text + rest if path == "model.safetensors" else text)

    _read_safely(root)


@given(
    version=st.sampled_from(sorted(INI_KEYS)),
    key=st.sampled_from(sorted(INI_KEYS["0.5.3"])),
    value=_VALUES.filter(lambda value: value != "\ud800"),
    line=st.sampled_from(["", "[x]", "[DEFAULT]", "x", " y = 2", "%", "= 1", ";", "\0 = 1", "HEAD_NUM = 1", "a: b"]),
)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_changed_settings_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, version: str, key: str, value: object, line: str
) -> None:
    root = write_workspace(tmp_path_factory.mktemp("fuzz") / "m", version)
    path = root / "triton_models/weights/config.ini"
    lines = [text for text in path.read_text().splitlines() if not text.startswith(f"{key} =")]
    path.write_text("\n".join([*lines, f"{key} = {value}", line]))

    _read_safely(root)


@pytest.mark.parametrize(
    "places",
    [
        {"quantization_config": {"version": ODD}},
        {
            "quantization_config": {
                "checkpoint_format": ODD,
                "format": ODD,
                "quant_dtype": ODD,
                "activation_scheme": ODD,
            }
        },
        {
            "quantization_config": {
                "config_groups": {"group_0": {"format": ODD, "weights": {"type": ODD, "strategy": ODD}}}
            }
        },
        {"version": ODD},
        {"auto_map": {"AutoModelForCausalLM": ODD}},
    ],
)
def test_what_a_model_says_of_its_formats_can_be_written(
    model_copy: Callable[[str], Path], places: dict[str, Any]
) -> None:
    root = model_copy("hf-awq")
    config = json.loads((root / "config.json").read_text())
    for key, value in places.items():
        config[key] = {**config.get(key, {}), **value} if isinstance(value, dict) else value
    _replace(root / "config.json", json.dumps(config).encode())

    _read_safely(root)
