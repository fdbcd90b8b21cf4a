"""Pickled weights show what they hold without being loaded."""

from __future__ import annotations

import collections
import contextlib
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import MODELS
from hypothesis import given, settings
from hypothesis import strategies as st

from deploytk.artifact import read_artifact
from deploytk.artifact.pickled_tensors import read_pickled
from deploytk.artifact.safetensors_header import read_header
from deploytk.base.errors import ArtifactError

_DTYPES = {"F16": "float16", "I32": "int32"}


def _torch() -> Any:
    """Imported by who runs a test, not by all that collect them: it takes seconds."""
    return pytest.importorskip("torch")


def _tensors(name: str) -> dict[str, Any]:
    entries = read_header(MODELS / name / "model.safetensors")
    return {
        key: _torch().zeros(entry.shape, dtype=getattr(_torch(), _DTYPES[entry.dtype]))
        for key, entry in entries.items()
    }


def _pickled_copy(model_copy: Callable[[str], Path], name: str, **options: Any) -> Path:
    """The model with its weights as pytorch_model.bin and without a quantization_config, as LMDeploy 0.3.0 wrote it."""
    root = model_copy(name)
    _torch().save(collections.OrderedDict(_tensors(name)), root / "pytorch_model.bin", **options)
    (root / "model.safetensors").unlink()
    config = json.loads((root / "config.json").read_text())
    config.pop("quantization_config", None)
    (root / "config.json").write_text(json.dumps(config))
    return root


@pytest.mark.parametrize(
    "options", [{}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}], ids=["zip", "old", "protocol 4"]
)
def test_awq_in_a_pickle_without_an_index_is_recognised(
    model_copy: Callable[[str], Path], options: dict[str, Any]
) -> None:
    root = _pickled_copy(model_copy, "hf-awq", **options)

    artifact, original = read_artifact(root), read_artifact(MODELS / "hf-awq")

    assert (artifact.weight_format, artifact.weight_bits, artifact.group_size) == ("awq", 4, 128)
    assert artifact.made_by == "lmdeploy 0.0.10-0.3.0"
    assert (artifact.tensors, artifact.parameters) == (original.tensors, original.parameters)


def test_a_checkpoint_around_the_tensors_is_looked_into(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    tensors = {"a": _torch().nn.Parameter(_torch().zeros(2, 3)), "b": _torch().zeros(4, dtype=_torch().bfloat16)}
    _torch().save({"epoch": 3, "state_dict": tensors, "seen": [1, {"x": (2.5, None)}]}, path)

    found = {tensor.name: (tensor.dtype, tensor.shape) for tensor in read_pickled(path)}

    assert found == {"a": ("F32", (2, 3)), "b": ("BF16", (4,))}


class _Hostile:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


def test_nothing_of_a_pickle_is_run(tmp_path: Path) -> None:
    target, path = tmp_path / "owned", tmp_path / "pytorch_model.bin"
    _torch().save({"a": _torch().zeros(2), "b": _Hostile(target)}, path)

    assert [tensor.name for tensor in read_pickled(path)] == ["a"]
    assert not target.exists()


def _zip(content: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("archive/data.pkl", content)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04" + bytes(5000),
        b"\x80\x02.",
        b"u.",
        b"\x80\x02]q\x00." * 4,
        _zip(b"\x80\x02}q\x00."),
        _zip(b"(" * 100_000 + b"."),
        _zip(pickle.dumps({"a": 1}), zipfile.ZIP_DEFLATED),
        _zip(b"\x80\x04\x8f."),
        _zip(b"\x8b\xff\xff\xff\x7f"),
        _zip(b"I" + b"9" * 10_000 + b"\n."),
    ],
    ids=range(11),
)
def test_a_pickle_that_shows_no_tensors_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(content)

    with pytest.raises(ArtifactError, match="does not show its tensors"):
        read_pickled(path)


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_damaged_pickle_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("p") / "pytorch_model.bin"
    file = io.BytesIO()
    _torch().save(
        collections.OrderedDict(a=_torch().zeros(2, 3), b=_torch().zeros(1)),
        file,
        _use_new_zipfile_serialization=data.draw(st.booleans()),
    )
    content = bytearray(file.getvalue())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content))

    with contextlib.suppress(ArtifactError):
        read_pickled(path)


def test_weights_that_cannot_be_read_are_4_bit_by_their_size(model_copy: Callable[[str], Path]) -> None:
    # 1.8 billion parameters: 24 x (2048 x 2 x 2048 + 2 x 2048 x 1024 + 3 x 2048 x 8192) = 1 509 949 440 in matrices of
    # 0.5 + 2.5 / 128 bytes, 2 x 92544 x 2048 + 49 x 2048 = 379 160 576 of 2 bytes: 1 542 782 976
    root = model_copy("hf-fp16")
    (root / "model.safetensors").unlink()
    sizes = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24, "vocab_size": 92544}
    heads = {"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128}
    config = json.loads((root / "config.json").read_text()) | sizes | heads
    (root / "config.json").write_text(json.dumps(config))
    found = {}
    for size in (1_542_782_976, 2 * 1_889_110_016):
        with (root / "pytorch_model.bin").open("wb") as file:
            file.write(b"PK\x03\x04")
            file.truncate(size)
        found[size] = read_artifact(root).weight_format

    assert list(found.values()) == ["awq", "none"]
