"""Weights that GPTQ and compressed-tensors packed are read as what they are, or refused where TurboMind errs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import MODELS
from safetensors.numpy import load_file, save_file

from deploytk.artifact import read_artifact
from deploytk.artifact.safetensors_header import read_header
from deploytk.base.errors import WeightsError
from deploytk.weights import open_weights
from deploytk.weights.huggingface import _mapped
from deploytk.weights.packed import _floats, _groups, _require_in_order, dense
from deploytk.weights.value import Tensor

GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": True}


def _compressed(*, symmetric: bool, group_size: int = 128, **more: Any) -> dict[str, Any]:
    weights = {
        "num_bits": 4,
        "type": "int",
        "strategy": "group",
        "group_size": group_size,
        "symmetric": symmetric,
        **more,
    }
    group = {"targets": ["Linear"], "weights": weights, "format": "pack-quantized"}
    return {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"group_0": group}}


def _words(numbers: np.ndarray, axis: int) -> np.ndarray:
    """Eight numbers to a word along `axis`, the first in the lowest four bits: written out, nibble by nibble."""
    moved = np.moveaxis(numbers.astype(np.uint32), axis, 0)
    words = np.zeros((len(moved) // 8, *moved.shape[1:]), np.uint32)
    for place in range(len(moved)):
        words[place // 8] |= moved[place] << np.uint32(4 * (place % 8))
    return np.ascontiguousarray(np.moveaxis(words, 0, axis)).view(np.int32)


def _model(place: Path, config: dict[str, Any], group: int, **changed: np.ndarray) -> dict[str, np.ndarray]:
    """The tiny model with every linear layer packed from random numbers; returns what those are."""
    dense = load_file(MODELS / "hf-fp16" / "model.safetensors")
    random, stored, expected = np.random.default_rng(1), {}, {}
    is_gptq, is_symmetric = config["quant_method"] == "gptq", "v1" in str(place) or "symmetric" in place.name
    for name, values in dense.items():
        if ".layers." not in name or values.ndim == 1:
            stored[name] = expected[name] = values
            continue
        outputs, inputs = values.shape
        numbers = random.integers(0, 16, (outputs, inputs))
        zeros = (
            random.integers(1, 16, (outputs, inputs // group))
            if not is_symmetric
            else np.full((outputs, inputs // group), 8)
        )
        scales = random.uniform(1e-4, 1e-2, zeros.shape).astype(np.float16)
        repeated = [np.repeat(one, group, axis=1).astype(np.float32) for one in (zeros, scales)]
        expected[name] = ((numbers - repeated[0]) * repeated[1]).astype(np.float16)
        module = name.removesuffix(".weight")
        if is_gptq:
            stored |= {
                f"{module}.qweight": _words(numbers.T, 0),
                f"{module}.qzeros": _words(zeros.T - 1, 1),
                f"{module}.scales": np.ascontiguousarray(scales.T),
                f"{module}.g_idx": (np.arange(inputs) // group).astype(np.int32),
            }
        else:
            stored |= {
                f"{module}.weight_packed": _words(numbers, 1),
                f"{module}.weight_scale": scales,
                f"{module}.weight_shape": np.array(values.shape, np.int64),
            }
            if not is_symmetric:
                stored[f"{module}.weight_zero_point"] = _words(zeros, 0)
    place.mkdir()
    for path in (MODELS / "hf-fp16").iterdir():
        if path.suffix != ".safetensors":
            (place / path.name).write_bytes(path.read_bytes())
    settings = json.loads((place / "config.json").read_text()) | {"quantization_config": config}
    (place / "config.json").write_text(json.dumps(settings))
    save_file(stored | changed, place / "model.safetensors")
    return expected


KINDS = {
    "gptq-v1": (GPTQ, 128),
    "symmetric": (_compressed(symmetric=True), 128),
    "with-zeros": (_compressed(symmetric=False), 128),
    "groups-of-32": (_compressed(symmetric=False, group_size=32), 32),
}


@pytest.mark.parametrize("kind", KINDS)
def test_packed_weights_are_read_as_the_numbers_that_were_packed(tmp_path: Path, kind: str) -> None:
    config, group = KINDS[kind]
    expected = _model(tmp_path / kind, config, group)

    artifact = read_artifact(tmp_path / kind)
    found = {tensor.name: tensor.read() for tensor in open_weights(artifact).tensors(dequantize=True)}

    assert artifact.errors == ()
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


Q = "model.layers.0.self_attn.q_proj"  # 256 x 256


@pytest.mark.parametrize(
    ("kind", "change", "says"),
    [
        ("gptq-v1", {f"{Q}.qzeros": np.full((2, 32), -2004318072, np.int32)}, None),
        (
            "gptq-v1",
            {f"{Q}.g_idx": np.arange(256, dtype=np.int32)[::-1] // 128},
            "q_proj.g_idx puts inputs into another",
        ),
        ("gptq-v1", {f"{Q}.scales": np.ones((3, 256), np.float16)}, "no whole groups"),
        ("gptq-v1", {f"{Q}.qzeros": np.zeros((1, 32), np.int32)}, "q_proj.qzeros is of shape"),
        ("symmetric", {f"{Q}.weight_scale": np.ones((255, 2), np.float16)}, "q_proj.weight_scale is of shape"),
        ("with-zeros", {f"{Q}.weight_zero_point": np.zeros((31, 2), np.int32)}, "weight_zero_point is of shape"),
    ],
)
def test_parts_that_do_not_fit_together_are_named(tmp_path: Path, kind: str, change: dict, says: str | None) -> None:
    config, group = KINDS[kind]
    _model(tmp_path / kind, config, group, **change)

    def read() -> None:
        artifact = read_artifact(tmp_path / kind)
        for tensor in open_weights(artifact).tensors(dequantize=True):
            tensor.read()

    if says is None:
        read()  # one matrix may have other zero points than the first, which tells the version
        return
    with pytest.raises(WeightsError, match=says):
        read()


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({**GPTQ, "checkpoint_format": "gptq_v2"}, None),  # the zero points themselves say v1: seven in every place
        ({**GPTQ, "desc_act": True}, "GPTQ weights with desc_act"),
        ({**GPTQ, "sym": False}, "GPTQ weights that are not symmetric"),
        (_compressed(symmetric=True, actorder="group"), "in the order of activations"),
        (_compressed(symmetric=True, actorder="static"), None),
        (_compressed(symmetric=True, type="float"), "in the format"),
        (_compressed(symmetric=True) | {"format": "int-quantized"}, None),
    ],
)
def test_what_turbomind_misreads_is_said_by_inspect_and_not_previewed_as_if_it_were_right(
    tmp_path: Path, config: dict, says: str | None
) -> None:
    name = "gptq-v1" if config["quant_method"] == "gptq" else "symmetric"
    _model(tmp_path / name, config, 128)
    artifact = read_artifact(tmp_path / name)

    if says is None:
        assert open_weights(artifact).tensors(dequantize=True)
        return
    with pytest.raises(WeightsError, match=says):
        open_weights(artifact)
    assert artifact.lmdeploy.engine != "turbomind"
    assert any("does not serve it" in problem.message for problem in artifact.problems), artifact.problems


def test_zero_points_of_gptq_v2_are_found_in_the_weights_and_refused(tmp_path: Path) -> None:
    """0x88888888: eight as it is. TurboMind adds one and says nothing."""
    v2 = {
        f"model.layers.{layer}.{name}.qzeros": np.full((inputs // 128, outputs // 8), -2004318072, np.int32)
        for layer in (0, 1)
        for name, outputs, inputs in (
            *((f"self_attn.{one}_proj", 256, 256) for one in "qkvo"),
            ("mlp.gate_proj", 768, 256),
            ("mlp.up_proj", 768, 256),
            ("mlp.down_proj", 256, 768),
        )
    }
    _model(tmp_path / "gptq-v1", GPTQ, 128, **v2)
    artifact = read_artifact(tmp_path / "gptq-v1")

    with pytest.raises(WeightsError, match="zero points of GPTQ v2"):
        open_weights(artifact)
    assert "would be read as v1" in artifact.lmdeploy.reason


@pytest.mark.parametrize(
    ("second", "is_misread"),
    [
        ({"weights": {"num_bits": 8, "type": "int", "group_size": 128}, "format": "pack-quantized"}, True),
        ({"weights": None}, True),
        (None, False),  # the same scheme for other layers
    ],
)
def test_groups_with_another_scheme_than_the_one_that_is_read_are_said_and_not_previewed(
    tmp_path: Path, second: dict | None, is_misread: bool
) -> None:
    config = _compressed(symmetric=True)
    first = config["config_groups"]["group_0"]
    config["config_groups"]["group_1"] = {"targets": ["re:.*down_proj"], **(second or {**first, "targets": []})}
    _model(tmp_path / "symmetric", config, 128)
    artifact = read_artifact(tmp_path / "symmetric")

    assert any("group_1 with another scheme" in problem.message for problem in artifact.problems) is is_misread
    if is_misread:
        with pytest.raises(WeightsError, match="several schemes"):
            open_weights(artifact)
    else:
        assert open_weights(artifact).tensors(dequantize=True)


@pytest.mark.parametrize(
    ("words", "groups", "is_whole"),
    [
        (8, 4, True),  # 64 inputs, 16 each
        (6, 3, True),  # 48, 16 each
        (6, 4, False),  # 48, 12 each: a word of eight would be of two groups
        (6, 5, False),  # 48 by 5
        (6, 12, False),  # 4 each
        (6, 0, False),
    ],
)
def test_a_group_is_whole_words_of_eight(words: int, groups: int, is_whole: bool) -> None:
    def nothing(_out: np.ndarray, _first: int) -> None: ...

    parts = {"qweight": Tensor("qweight", "I32", (words, 32), nothing),
             "scales": Tensor("scales", "F16", (groups, 32), nothing)}  # fmt: skip

    if is_whole:
        assert _groups("m", parts, "scales", 0) == groups
        return
    with pytest.raises(WeightsError, match=f"no whole groups of {8 * words} inputs"):
        _groups("m", parts, "scales", 0)


def test_a_tensor_can_be_read_from_any_row(tmp_path: Path) -> None:
    rows = np.arange(7 * 6, dtype=np.float16).reshape(7, 6)
    save_file({"before": np.ones(5, np.float16), "rows": rows}, tmp_path / "model.safetensors")
    path = tmp_path / "model.safetensors"
    tensor = _mapped(path, "rows", dict(read_header(path))["rows"])

    for first in range(7):
        for last in range(first + 1, 8):
            out = np.empty((last - first, 6), np.float16)
            tensor.fill(out, first)
            assert np.array_equal(out, rows[first:last])


def test_scales_in_bfloat16_are_the_upper_half_of_what_they_mean() -> None:
    def fill(out: np.ndarray, _first: int) -> None:
        out[:] = [0x3FC0, 0xC100, 0x0001]

    found = _floats(Tensor("s", "BF16", (3,), fill))

    assert found.tolist() == [1.5, -8.0, 2.0**-133]  # the smallest one: the lowest bit of seven, 2 ** -126 / 128


@pytest.mark.parametrize(
    ("order", "is_right"),
    [([], True), ([0, 0, 1, 1], True), ([0, 1, 0, 1], False), ([0, 0, 1, 1, 2, 2], False), ([0, 0, 1], False)],
)
def test_an_order_of_inputs_is_none_or_that_of_their_groups(order: list[int], is_right: bool) -> None:
    def fill(out: np.ndarray, _first: int) -> None:
        out[:] = order

    index = Tensor("g_idx", "I32", (len(order),), fill)

    if is_right:
        _require_in_order("m", index, 4, 2)
        return
    with pytest.raises(WeightsError, match=r"m\.g_idx puts inputs into another order"):
        _require_in_order("m", index, 4, 2)


def _held(name: str, values: np.ndarray) -> Tensor:
    def fill(out: np.ndarray, _first: int) -> None:
        out[:] = values

    return Tensor(name, "F16" if values.dtype == np.float16 else "I32", values.shape, fill)


@pytest.mark.parametrize("packing", ["gptq", "compressed-tensors"])
def test_every_group_of_a_small_matrix_has_its_own_scale_and_zero(packing: str) -> None:
    """Three groups of 16 inputs, eight outputs."""
    random = np.random.default_rng(3)
    numbers, zeros = random.integers(0, 16, (8, 48)), random.integers(1, 16, (8, 3))
    scales = random.uniform(0.1, 1, (8, 3)).astype(np.float16)
    wide = [np.repeat(one, 16, axis=1).astype(np.float32) for one in (zeros, scales)]
    if packing == "gptq":
        parts = {"qweight": _words(numbers.T, 0), "qzeros": _words(zeros.T - 1, 1), "scales": scales.T.copy()}
    else:
        parts = {"weight_packed": _words(numbers, 1), "weight_scale": scales, "weight_zero_point": _words(zeros, 0)}
    stored = tuple(_held(f"m.{name}", values) for name, values in parts.items())

    (found,) = dense(packing, stored)  # type: ignore[arg-type]

    assert np.array_equal(found.read(), ((numbers - wide[0]) * wide[1]).astype(np.float16))
