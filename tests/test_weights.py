"""Weights come back bit for bit: from real workspaces, and from a transcription of the converter."""

from __future__ import annotations

import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import MODELS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from legacy_workspace import Model, awq_unpack, convert, random_model

from deploytk.artifact import read_artifact
from deploytk.base.errors import WeightsError
from deploytk.weights import STORED_AS, Tensor, matrices, nibbles, open_weights, tokenizer_files
from deploytk.weights.config import _padding
from deploytk.weights.internlm2 import from_llama, to_llama
from deploytk.weights.mapped import MappedFiles

PAIRS = [
    ("workspace-0.4.2-awq", "hf-awq"),
    ("workspace-0.7.3-awq", "hf-awq"),
    ("workspace-0.9.2-awq", "hf-awq"),
    ("gqa/workspace-0.4.2-llama-awq-tp2", "gqa/hf-llama-awq"),
    ("gqa/workspace-0.7.3-qwen2-awq-tp1", "gqa/hf-qwen2-awq"),
]


@pytest.fixture(autouse=True, scope="module")
def small_parts():
    """Tensors of small models are made in parts too, and read in blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matrices, "STRIPE", 64)
        patch.setattr(matrices, "_BLOCK_ROWS", 96)
        patch.setattr(nibbles, "_BLOCK_WORDS", 2**10)
        yield


def contents(tensors: tuple[Tensor, ...]) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Made in the smallest parts; each tensor made as a whole is the same."""
    found = {tensor.name: (tensor.dtype, tensor.shape, b"".join(in_parts(tensor))) for tensor in tensors}
    assert found == {tensor.name: (tensor.dtype, tensor.shape, tensor.read().tobytes()) for tensor in tensors}
    return found


def in_parts(tensor: Tensor) -> list[bytes]:
    parts = []
    for first, shape in tensor.parts(about_bytes=1):
        values = np.empty(shape, STORED_AS[tensor.dtype])
        tensor.fill(values, first)
        parts.append(values.tobytes())
    return parts


def test_large_tensors_are_made_in_parts():
    tensors = {tensor.name: tensor for tensor in open_weights(read_artifact(MODELS / PAIRS[0][0])).tensors()}
    qweight = tensors["model.layers.0.mlp.gate_proj.qweight"]
    row_bytes = 4 * qweight.shape[1]

    parts = list(qweight.parts(about_bytes=100 * row_bytes))

    assert parts[:2] == [(0, (96, qweight.shape[1])), (96, (96, qweight.shape[1]))]  # whole tiles of 32 rows: 3 x 32
    assert sum(rows for _, (rows, _) in parts) == qweight.shape[0]


@pytest.mark.parametrize(("workspace", "original"), PAIRS)
def test_a_real_workspace_gives_the_tensors_of_its_original(workspace, original):
    weights = open_weights(read_artifact(MODELS / workspace))

    found = contents(weights.tensors())

    assert found == contents(open_weights(read_artifact(MODELS / original)).tensors())


def test_dequantized_weights_are_number_less_zero_point_times_scale():
    weights = open_weights(read_artifact(MODELS / "workspace-0.4.2-awq"))
    stored = {tensor.name: tensor.read() for tensor in weights.tensors()}
    name = "model.layers.1.self_attn.k_proj"
    numbers = awq_unpack(stored[f"{name}.qweight"]).astype(np.float64)
    zeros = awq_unpack(stored[f"{name}.qzeros"]).astype(np.float64).repeat(128, axis=0)
    scales = stored[f"{name}.scales"].astype(np.float64).repeat(128, axis=0)

    dense = {tensor.name: tensor for tensor in weights.tensors(dequantize=True)}

    assert not any(name.endswith(("qweight", "qzeros", "scales")) for name in dense)
    assert np.array_equal(dense[f"{name}.weight"].read(), ((numbers - zeros) * scales).astype(np.float16).T)


ERAS = ("0.4.2", "0.7.3", "0.9.2")


def round_trip(model: Model, root: Path, era: str, tp: int, **options: bool) -> None:
    convert(model, root, era, tp, **options)

    weights = open_weights(read_artifact(root))

    found = {tensor.name: tensor.read() for tensor in weights.tensors()}
    assert found.keys() == model.tensors.keys()
    for name, values in model.tensors.items():
        assert found[name].shape == values.shape, name
        assert found[name].tobytes() == values.tobytes(), name
    kinds = {tensor.dtype for tensor in weights.tensors()}
    assert kinds == ({"F16", "I32"} if model.is_int4 else {"BF16" if model.is_bf16 else "F16"})


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 2**32 - 1),
    era=st.sampled_from(ERAS),
    tp=st.sampled_from([1, 2, 4]),
    layers=st.integers(1, 3),
    kv_heads=st.sampled_from([1, 2]),
    share=st.integers(1, 3),
    groups=st.integers(1, 2),
    spare=st.integers(0, 3),
    kind=st.sampled_from(["int4", "fp16", "bf16"]),
    bias=st.sampled_from(["none", "qkv", "all"]),
    is_tied=st.booleans(),
)
def test_random_models_come_back_from_every_era(
    tmp_path_factory, seed, era, tp, layers, kv_heads, share, groups, spare, kind, bias, is_tied
):
    model = random_model(
        seed,
        architecture={"none": "LlamaForCausalLM", "qkv": "Qwen2ForCausalLM", "all": "InternLMForCausalLM"}[bias],
        layers=layers,
        heads=kv_heads * tp * min(share, 12 // (kv_heads * tp)),  # the larger ones take as long as all others together
        kv_heads=kv_heads * tp,
        head_dim=128,
        inner=128 * groups * tp,
        vocab=64 + spare,
        is_int4=kind == "int4",
        is_bf16=kind == "bf16",
        has_bias=bias != "none",
        has_output_bias=bias == "all",
        is_tied=is_tied,
    )

    round_trip(model, tmp_path_factory.mktemp("workspace"), era, tp)


def small(**changes: object) -> Model:
    shape = {"architecture": "LlamaForCausalLM", "layers": 1, "heads": 4, "kv_heads": 2, "head_dim": 128}
    return random_model(7, **(shape | {"inner": 384, "vocab": 66} | changes))


@pytest.mark.parametrize("era", ERAS)
def test_eight_ranks_are_merged(tmp_path, era):
    round_trip(small(heads=8, kv_heads=8, inner=1024, is_int4=True), tmp_path, era, 8)


@pytest.mark.parametrize("era", ["0.7.3", "0.9.2"])
@pytest.mark.parametrize("is_int4", [True, False])
def test_inner_columns_that_were_padded_for_the_ranks_are_taken_out(tmp_path, era, is_int4):
    # 3 groups over 2 ranks are padded to 4; 387 columns to 388
    round_trip(small(is_int4=is_int4, inner=384 if is_int4 else 388 - 1), tmp_path, era, 2)


@pytest.mark.parametrize("is_int4", [True, False])
def test_heads_that_were_repeated_for_the_ranks_are_there_once(tmp_path, is_int4):
    model = small(architecture="Qwen2ForCausalLM", is_int4=is_int4, has_bias=True, inner=512)

    round_trip(model, tmp_path, "0.9.2", 4)


@pytest.mark.parametrize("era", ERAS)
def test_heads_of_another_length_come_back(tmp_path, era):
    round_trip(small(head_dim=64, heads=4, kv_heads=2), tmp_path, era, 2)


def test_internlm2_is_merged_as_its_own_code_wants_it(tmp_path):
    model = small(architecture="InternLM2ForCausalLM", heads=4, kv_heads=2)
    convert(model, tmp_path, "0.4.2")
    q, k, v = (model.tensors[f"model.layers.0.self_attn.{x}_proj.weight"] for x in "qkv")
    heads = [*q[:256].reshape(2, 128, -1), k[:128], v[:128], *q[256:].reshape(2, 128, -1), k[128:], v[128:]]

    found = {tensor.name: tensor.read() for tensor in open_weights(read_artifact(tmp_path)).tensors()}

    assert found["model.layers.0.attention.wqkv.weight"].tobytes() == np.concatenate(heads).tobytes()
    assert found.keys() == {
        "model.tok_embeddings.weight", "model.norm.weight", "output.weight",
        "model.layers.0.attention_norm.weight", "model.layers.0.ffn_norm.weight",
        "model.layers.0.attention.wqkv.weight", "model.layers.0.attention.wo.weight",
        "model.layers.0.feed_forward.w1.weight", "model.layers.0.feed_forward.w2.weight",
        "model.layers.0.feed_forward.w3.weight",
    }  # fmt: skip
    own = found["model.layers.0.feed_forward.w3.weight"]
    assert own.tobytes() == model.tensors["model.layers.0.mlp.up_proj.weight"].tobytes()


@pytest.mark.parametrize("is_int4", [True, False])
def test_internlm2_can_be_had_as_llama(tmp_path, is_int4):
    model = small(architecture="InternLM2ForCausalLM", is_int4=is_int4)
    convert(model, tmp_path, "0.7.3")

    weights = open_weights(read_artifact(tmp_path), names="llama")

    assert weights.config["architectures"] == ["LlamaForCausalLM"]
    assert {tensor.name: tensor.read().tobytes() for tensor in weights.tensors()} == {
        name: values.tobytes() for name, values in model.tensors.items()
    }


def test_a_workspace_without_a_copied_config_is_tied_when_both_embeddings_are_equal(tmp_path):
    round_trip(small(is_tied=True), tmp_path / "tied", "0.7.3", 1, copies_config=False)
    round_trip(small(), tmp_path / "untied", "0.7.3", 1, copies_config=False)

    assert open_weights(read_artifact(tmp_path / "tied")).config["tie_word_embeddings"] is True
    assert open_weights(read_artifact(tmp_path / "untied")).config["tie_word_embeddings"] is False


def test_equal_embeddings_stay_two_when_the_model_says_so(tmp_path):
    model = small()
    model.tensors["lm_head.weight"] = model.tensors["model.embed_tokens.weight"].copy()

    round_trip(model, tmp_path, "0.7.3", 1)


def test_internlm_is_described_as_the_llama_that_it_equals(tmp_path):
    model = small(architecture="InternLMForCausalLM", has_bias=True, has_output_bias=True)
    convert(model, tmp_path, "0.4.2")

    config = open_weights(read_artifact(tmp_path)).hf_config()

    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["attention_bias"] is True
    assert "bias" not in config


def test_the_config_says_rope_and_type_under_both_names(tmp_path):
    config = open_weights(read_artifact(convert(small(), tmp_path, "0.4.2", copies_config=False))).hf_config()

    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 10000.0
    assert config["rope_parameters"]["rope_type"] == "default"
    assert config["torch_dtype"] == config["dtype"] == "float16"
    assert (config["bos_token_id"], config["eos_token_id"]) == (1, 2)
    assert config["max_position_embeddings"] == 2048


def test_scaled_rope_is_said_under_both_names(tmp_path):
    root = convert(small(), tmp_path, "0.4.2", copies_config=False)
    ini = root / "triton_models/weights/config.ini"
    ini.write_text(ini.read_text().replace("rope_scaling_factor = 0.0", "rope_scaling_factor = 4.0"))

    config = open_weights(read_artifact(root)).hf_config()

    assert config["rope_scaling"] == {"type": "linear", "rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}
    assert config["rope_parameters"] == {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}


def test_tokenizer_files_are_those_of_the_model_alone():
    names = [path.name for path in tokenizer_files(read_artifact(MODELS / "workspace-0.4.2-awq"))]

    assert names == ["tokenizer.json", "tokenizer_config.json"]


# -- bad input ----------------------------------------------------------------------------------------------------


def refused(root: Path) -> str:
    with pytest.raises(WeightsError) as error:
        open_weights(read_artifact(root))
    assert error.value.hint
    return str(error.value)


def changed(root: Path, name: str, old: str, new: str) -> Path:
    path = root / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return root


def test_another_architecture_is_refused_by_name(tmp_path):
    root = convert(small(), tmp_path, "0.7.3", copies_config=False)

    message = refused(changed(root, "triton_models/weights/config.yaml", "LlamaFor", "GemmaFor"))

    assert "GemmaForCausalLM" in message


def test_an_architecture_that_only_the_template_could_tell_is_not_guessed(tmp_path):
    root = convert(small(), tmp_path, "0.4.2", copies_config=False)

    message = refused(changed(root, "triton_models/weights/config.ini", "llama2", "my-own"))

    assert "my-own" in message


def test_a_copied_config_of_another_model_is_refused_with_both_numbers(tmp_path):
    root = convert(small(), tmp_path, "0.7.3")

    message = refused(changed(root, "config.json", '"hidden_size": 512', '"hidden_size": 4096'))

    assert "hidden_size 512" in message
    assert "4096" in message


def test_a_model_whose_bias_was_lost_is_refused(tmp_path):
    root = convert(small(architecture="InternLMForCausalLM"), tmp_path, "0.7.3")

    message = refused(changed(root, "config.json", '"bias": false', '"bias": true'))

    assert "no attention bias" in message


def test_a_bias_that_qwen2_does_not_have_is_refused(tmp_path):
    root = convert(small(architecture="Qwen2ForCausalLM", has_bias=True), tmp_path, "0.7.3")
    path = root / "triton_models/weights/layers.0.attention.wo.0.bias"
    path.write_bytes(b"\1" * path.stat().st_size)

    assert "wo.0.bias is not zero" in refused(root)


def test_rows_that_are_no_whole_groups_are_refused_by_their_number():
    artifact = read_artifact(MODELS / "workspace-0.7.3-awq")
    wider = replace(artifact, intermediate_size=768 + 64)  # 6.5 groups of 128

    with pytest.raises(WeightsError, match="w2 has 832 rows on each rank, a multiple of 128"):
        open_weights(wider)


def test_zero_points_that_are_none_are_refused_when_read(tmp_path):
    root = convert(small(is_int4=True), tmp_path, "0.4.2")
    path = root / "triton_models/weights/layers.0.feed_forward.w2.0.scales_zeros"
    path.write_bytes(b"\0" * path.stat().st_size)

    with pytest.raises(WeightsError, match=r"w2\.0 has zero points"):
        contents(open_weights(read_artifact(root)).tensors())


def with_zero_point(root: Path, era: str, value: float) -> Path:
    """The workspace with its first zero point of w2 set: config.ini keeps 64 + value, 16 steps of a half each."""
    name, stored = ("scales_zeros", 0x5400 + int(16 * value)) if era == "0.4.2" else ("zeros", None)
    path = root / f"triton_models/weights/layers.0.feed_forward.w2.0.{name}"
    halves = np.fromfile(path, np.uint16)
    halves[0] = stored if stored is not None else np.float16(value).view(np.uint16)
    halves.tofile(path)
    return root


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("value", [15.5, 16, 17, 31, -1])
def test_zero_points_beyond_fifteen_are_refused(tmp_path, era, value):
    root = with_zero_point(convert(small(is_int4=True), tmp_path, era), era, value)

    with pytest.raises(WeightsError, match=r"w2\.0 has zero points that are not the numbers 0 to 15"):
        contents(open_weights(read_artifact(root)).tensors())


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("value", [0, 15])
def test_zero_points_of_the_ends_are_kept(tmp_path, era, value):
    root = with_zero_point(convert(small(is_int4=True), tmp_path, era), era, value)

    tensors = {tensor.name: tensor for tensor in open_weights(read_artifact(root)).tensors()}

    assert awq_unpack(tensors["model.layers.0.mlp.down_proj.qzeros"].read())[0, 0] == value


def test_a_file_that_shrinks_after_it_was_inspected_is_named_with_both_sizes(tmp_path):
    root = convert(small(), tmp_path, "0.4.2")
    weights = open_weights(read_artifact(root))
    (root / "triton_models/weights/layers.0.attention.wo.0.weight").write_bytes(b"")

    with pytest.raises(WeightsError, match=r"wo\.0\.weight has 0 bytes, 524288 expected"):
        contents(weights.tensors())


def test_pickles_are_never_opened(tmp_path):
    root = Path(shutil.copytree(MODELS / "hf-fp16", tmp_path / "model"))
    (root / "model.safetensors").unlink()
    (root / "pytorch_model.bin").write_bytes(pickle.dumps({}))

    assert "is a pickle" in refused(root)


@settings(max_examples=40, deadline=None)
@given(
    kv_heads=st.integers(1, 4),
    share=st.integers(1, 5),
    width=st.integers(1, 6),
    steps=st.tuples(*[st.sampled_from([1, 2, 3, 4, 6])] * 3),
    is_packed=st.booleans(),
)
def test_internlm2_and_llama_are_one_model_whatever_the_heads(kv_heads, share, width, steps, is_packed):
    """Merged in any parts that go together, and parted again."""
    names = [f"model.layers.0.self_attn.{name}_proj.{'qweight' if is_packed else 'weight'}" for name in "qkv"]
    tensors = []
    for number, (name, step) in enumerate(zip(names, steps, strict=True)):
        outputs = (share if number == 0 else 1) * kv_heads * width
        values = (1000 * number + np.arange(outputs * 12).reshape(outputs, 12)).astype(np.int32)
        values = np.ascontiguousarray(values.T) if is_packed else values

        def fill(out, first, values=values, step=step):
            assert first % step == 0
            assert len(out) % step == 0 or first + len(out) == len(values)
            out[:] = values[first : first + len(out)]

        tensors.append(Tensor(name, "I32", values.shape, fill, step=step))

    (merged,) = from_llama(tensors, share * kv_heads, kv_heads)
    assert b"".join(in_parts(merged)) == merged.read().tobytes()
    parted = list(to_llama([merged], share * kv_heads, kv_heads))

    assert [(one.name, one.read().tolist()) for one in parted] == [(one.name, one.read().tolist()) for one in tensors]


def test_a_file_that_grew_is_mapped_anew(tmp_path):
    path = tmp_path / "weight"
    path.write_bytes(b"ab")
    files = MappedFiles(2)
    assert bytes(files.get(path, 2)) == b"ab"
    path.write_bytes(b"abcd")

    assert bytes(files.get(path, 4)) == b"abcd"
    path.write_bytes(b"a")
    assert bytes(files.get(path, 1)) == b"a"


@pytest.mark.parametrize(("era", "ranks", "is_whole"), [("0.4.2", 1, True), ("0.7.3", 1, True), ("0.7.3", 2, False)])
def test_what_lies_whole_in_a_file_is_taken_from_it(tmp_path, era, ranks, is_whole):
    """The embeddings: of two ranks each file has a part."""
    convert(small(), tmp_path, era, ranks)

    tensors = {tensor.name: tensor for tensor in open_weights(read_artifact(tmp_path)).tensors()}

    embeddings = tensors["model.embed_tokens.weight"]
    assert (embeddings.source is not None) == is_whole
    if embeddings.source is not None:
        stored = embeddings.source.path.read_bytes()[embeddings.source.offset :]
        assert stored[: embeddings.bytes] == embeddings.read().tobytes()


@pytest.mark.parametrize(
    ("size", "padding"),
    [(768, 0), (None, 0), (640, None), (896, None), (128, None), (767, None), (0, None), (-128, None), ("768", None)],
)
def test_a_copied_config_names_the_columns_before_they_were_padded_or_another_model(size, padding):
    """768 are six groups of 128 on one rank: nothing else is padded to them."""
    artifact = read_artifact(MODELS / "workspace-0.7.3-awq")

    if padding is not None:
        assert _padding(artifact, Path("config.json"), {"intermediate_size": size}) == padding
        return
    with pytest.raises(WeightsError, match="intermediate_size"):
        _padding(artifact, Path("config.json"), {"intermediate_size": size})


def test_columns_are_padded_to_as_many_groups_on_every_rank():
    """Of five groups each of two ranks has three: six."""
    artifact = replace(read_artifact(MODELS / "workspace-0.7.3-awq"), tensor_parallel=2)

    assert _padding(artifact, Path("config.json"), {"intermediate_size": 640}) == 128
    with pytest.raises(WeightsError, match="intermediate_size"):
        _padding(artifact, Path("config.json"), {"intermediate_size": 512})
