"""`quantize`: what is known before the hours, what is left when a run ends, what becomes of a tool's output."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import stat
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from artifacts import internlm_7b
from conftest import MODELS
from legacy_workspace import Model, convert
from quantizers import Stub, quantizer, tool
from safetensors.numpy import load_file, save_file

from deploytk.artifact import RECORD, read_artifact
from deploytk.base.errors import ArtifactError, DeployError, QuantizeError, UsageError
from deploytk.base.progress import Silent
from deploytk.hardware.catalogue import Gpu
from deploytk.quantize import Quantized, QuantizeOptions, memory, quantize, write
from deploytk.quantize.calibration import calibration_texts, measured_text, read_texts
from deploytk.quantize.checks import check_wish, sizes_of
from deploytk.quantize.engines.windows import NoWindowError, make_windows
from deploytk.weights import open_weights
from deploytk.weights.internlm2 import from_llama

__all__ = ["quantizer"]  # a fixture

TINY = MODELS / "hf-fp16"
QUICK = QuantizeOptions(samples=4, seqlen=64, measures=False)


class Said(Silent):
    """Keeps what is said, and counts the steps."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.done = 0
        self.total = 0

    @contextmanager
    def task(self, label, total, unit="bytes"):
        def advance(amount: int) -> None:
            self.done += amount

        self.done, self.total = (0, total) if unit == "steps" else (self.done, self.total)
        yield advance if unit == "steps" else lambda _: None

    def note(self, text: str) -> None:
        self.notes.append(text)


def quantized(model: Path, destination: Path, options: QuantizeOptions = QUICK, said: Said | None = None) -> Quantized:
    return quantize(read_artifact(model), destination, options, said or Silent())


def test_the_directory_has_the_sources_own_texts_readable_files_and_no_pickle(tmp_path: Path, quantizer: Stub) -> None:
    done = quantized(TINY, tmp_path / "model")

    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert names == {path.name for path in TINY.iterdir()} | {RECORD}
    assert sorted(names) == list(done.files)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        assert (tmp_path / "model" / name).read_bytes() == (TINY / name).read_bytes()
    assert {stat.S_IMODE(path.stat().st_mode) & 0o444 for path in (tmp_path / "model").iterdir()} == {0o444}
    assert {path.name for path in tmp_path.iterdir()} == {"model", "stub.py", "stub.calls"}


def test_paths_may_be_relative(tmp_path: Path, quantizer: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes that work run in a directory of their own."""
    shutil.copytree(TINY, tmp_path / "source")
    monkeypatch.chdir(tmp_path)

    done = quantized(Path("source"), Path("model"))

    assert done.path == Path("model")
    assert (tmp_path / "model" / "model.safetensors").is_file()


def test_config_json_is_the_sources_with_what_turbomind_asks_for(tmp_path: Path, quantizer: Stub) -> None:
    quantized(TINY, tmp_path / "model", dataclasses.replace(QUICK, session_len=1024))

    config = json.loads((tmp_path / "model" / "config.json").read_text())
    before = json.loads((TINY / "config.json").read_text())
    awq = {"bits": 4, "group_size": 128, "quant_method": "awq", "version": "gemm", "zero_point": True}
    assert config == before | {"quantization_config": awq, "max_position_embeddings": 1024}


def test_the_record_says_how_it_was_made_and_is_read_back(tmp_path: Path, quantizer: Stub) -> None:
    done = quantized(TINY, tmp_path / "model")

    artifact = read_artifact(tmp_path / "model")
    assert artifact.quantized_by == done.quantized_by
    assert (done.quantized_by.tool, done.quantized_by.arguments) == ("lmdeploy", ("device cpu",))
    calibration = done.quantized_by.calibration
    assert (calibration.name, calibration.windows, calibration.window_tokens) == ("deploytk", 4, 64)
    texts = calibration_texts(None)
    assert texts is not None
    assert calibration.digest == texts.digest


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"quantized_by": {}},
        {"more": 1},
        {"quantized_by.tool": "a`b"},
        {"quantized_by.tool": "x" * 200},
        {"quantized_by.calibration": None},
        {"quantized_by.calibration.digest": "sha256:0"},
    ],
)
def test_a_record_that_nobody_could_have_written_is_a_warning(tmp_path: Path, quantizer: Stub, change: dict) -> None:
    quantized(TINY, tmp_path / "model")
    path = tmp_path / "model" / RECORD
    record = json.loads(path.read_text())
    for place, value in change.items():
        part = record
        *outer, last = place.split(".")
        for key in outer:
            part = part[key]
        part[last] = value
    path.write_text(json.dumps(record))

    artifact = read_artifact(tmp_path / "model")

    assert artifact.quantized_by is None
    assert [p.level for p in artifact.problems if RECORD in p.message] == ["warning"]


def test_progress_counts_layers_calibrated_smoothed_and_packed(tmp_path: Path, quantizer: Stub) -> None:
    said = Said()

    quantized(TINY, tmp_path / "model", said=said)

    assert (said.done, said.total) == (6, 6)  # two layers, three times


def test_without_texts_layers_are_packed_alone(tmp_path: Path, quantizer: Stub) -> None:
    said = Said()

    done = quantized(TINY, tmp_path / "model", dataclasses.replace(QUICK, calibration="none"), said)

    assert (said.done, said.total) == (2, 2)
    calibration = done.quantized_by.calibration
    assert (calibration.name, calibration.digest, calibration.windows) == ("none", None, 0)


def test_a_run_that_was_killed_goes_on_after_the_calibration(tmp_path: Path, quantizer: Stub) -> None:
    quantizer.does(stop="import os, signal; sys.stdout.flush(); os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(QuantizeError, match="ended by signal 9"):
        quantized(TINY, tmp_path / "model")
    assert not (tmp_path / "model").exists()
    quantizer.does()
    said = Said()

    quantized(TINY, tmp_path / "model", said=said)

    assert (said.done, said.total) == (6, 6)
    assert any("calibrated" in note for note in said.notes)
    assert {path.name for path in tmp_path.iterdir()} == {"model", "stub.py", "stub.calls"}


def test_a_run_with_another_wish_starts_anew_and_says_so(tmp_path: Path, quantizer: Stub) -> None:
    quantizer.does(stop="sys.exit(1)")
    with pytest.raises(QuantizeError):
        quantized(TINY, tmp_path / "model")
    quantizer.does()
    said = Said()

    quantized(TINY, tmp_path / "model", dataclasses.replace(QUICK, seqlen=32), said)

    assert any("starts anew" in note for note in said.notes)


def test_a_run_that_ended_after_the_tool_does_not_start_it_again(tmp_path: Path, quantizer: Stub, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(write, "put_texts", full)
        with pytest.raises(QuantizeError, match="full"):
            quantized(TINY, tmp_path / "model")
    assert not (tmp_path / "model").exists()

    quantized(TINY, tmp_path / "model")

    assert quantizer.calls == 1


def test_what_the_tool_says_is_in_the_error(tmp_path: Path, quantizer: Stub) -> None:
    quantizer.does(stop="print('it is raining', file=sys.stderr); sys.exit(3)")

    with pytest.raises(QuantizeError, match=r"ended with code 3\n(.*\n)*.*it is raining"):
        quantized(TINY, tmp_path / "model")


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("model.layers.1.mlp.up_proj.scales", None, "up_proj.scales is missing"),
        ("model.layers.1.mlp.up_proj.qzeros", np.zeros((1, 96), np.int32), "up_proj.qzeros is I32"),
        ("model.layers.1.mlp.up_proj.scales", np.full((2, 768), np.nan, np.float16), "is not finite"),
        ("model.norm.weight", None, "model.norm.weight is missing"),
        ("model.norm.weight", np.zeros(128, np.float16), "has the shape"),
        ("model.layers.0.mlp.down_proj.qweight", np.zeros((256, 32), np.int32), "down_proj"),
    ],
)
def test_weights_that_turbomind_would_not_load_never_appear(tmp_path, quantizer: Stub, name, change, says) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    tensors = load_file(MODELS / "hf-awq" / "model.safetensors")
    if change is None:
        del tensors[name]
    else:
        tensors[name] = change
    save_file(tensors, broken / "model.safetensors")
    (broken / "config.json").write_bytes((MODELS / "hf-awq" / "config.json").read_bytes())
    quantizer.does(model=broken)

    with pytest.raises(QuantizeError, match=says):
        quantized(TINY, tmp_path / "model")

    assert not (tmp_path / "model").exists()


def test_what_the_tool_saved_in_32_bits_becomes_16(tmp_path: Path, quantizer: Stub) -> None:
    """As AutoRound does on the CPU."""
    wide = tmp_path / "wide"
    wide.mkdir()
    tensors = load_file(MODELS / "hf-awq" / "model.safetensors")
    save_file(
        {name: v.astype(np.float32) if v.dtype == np.float16 else v for name, v in tensors.items()},
        wide / "model.safetensors",
    )
    (wide / "config.json").write_bytes((MODELS / "hf-awq" / "config.json").read_bytes())
    quantizer.does(model=wide)

    quantized(TINY, tmp_path / "model")

    found = load_file(tmp_path / "model" / "model.safetensors")
    assert found.keys() == tensors.keys()
    assert all(
        np.array_equal(found[name], values) and found[name].dtype == values.dtype for name, values in tensors.items()
    )


def test_a_generation_config_that_nothing_could_be_saved_with_is_left_aside_and_kept(
    tmp_path: Path, quantizer: Stub, model_copy
) -> None:
    model = model_copy("hf-fp16")
    own = json.dumps({"temperature": 0.7, "top_p": 0.9, "do_sample": False, "eos_token_id": 4})
    (model / "generation_config.json").write_text(own)
    seen = "json.loads((Path(job['model']) / 'generation_config.json').read_text())"
    quantizer.does(after=f"assert {seen} == {{'do_sample': False, 'eos_token_id': 4}}")

    done = quantized(model, tmp_path / "made")

    assert (tmp_path / "made" / "generation_config.json").read_text() == own
    assert "temperature, top_p" in done.notes[0]


@pytest.fixture
def internlm2(tmp_path: Path) -> Path:
    """The tiny model as InternLM2 keeps it: merged, under other names, with code that its classes need."""
    tensors = tuple(open_weights(read_artifact(TINY)).tensors())
    model = tmp_path / "internlm2"
    model.mkdir()
    save_file({one.name: one.read() for one in from_llama(tensors, 2, 2)}, model / "model.safetensors")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        (model / name).write_bytes((TINY / name).read_bytes())
    config = json.loads((TINY / "config.json").read_text())
    config |= {"architectures": ["InternLM2ForCausalLM"], "model_type": "internlm2", "bias": False}
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_internlm2.InternLM2ForCausalLM"}
    (model / "config.json").write_text(json.dumps(config))
    (model / "modeling_internlm2.py").write_text("raise SystemExit('run')")
    (model / "LICENSE").write_text("as it is")
    return model


def test_internlm2_is_read_and_written_as_the_llama_that_it_equals_and_runs_no_code(
    tmp_path: Path, quantizer: Stub, internlm2: Path
) -> None:
    source = tmp_path / "seen"
    quantizer.does(after=f"shutil.copytree(job['model'], {str(source)!r})")

    done = quantized(internlm2, tmp_path / "made")

    seen, original = load_file(source / "model.safetensors"), load_file(TINY / "model.safetensors")
    assert seen.keys() == original.keys()
    assert all(np.array_equal(seen[name], values) for name, values in original.items())
    config = json.loads((tmp_path / "made" / "config.json").read_text())
    assert (config["architectures"], config["model_type"], config.get("auto_map")) == (
        ["LlamaForCausalLM"],
        "llama",
        None,
    )
    assert done.architecture == "LlamaForCausalLM"
    assert "modeling_internlm2.py" not in done.files
    assert {"LICENSE", "generation_config.json", "chat_template.jinja"} <= set(done.files)
    assert read_artifact(tmp_path / "made").remote_code == ()


def test_a_workspace_in_16_bits_is_quantized_as_what_it_was_made_of(tmp_path: Path, quantizer: Stub) -> None:
    shape = {"layers": 2, "heads": 2, "kv_heads": 2, "head_dim": 128, "inner": 768, "vocab": 1024}
    model = Model("LlamaForCausalLM", **shape, is_int4=False, has_bias=False)
    model.tensors = load_file(TINY / "model.safetensors")
    workspace = convert(model, tmp_path / "workspace", "0.7.3")
    source = tmp_path / "seen"
    quantizer.does(after=f"shutil.copytree(job['model'], {str(source)!r})")

    done = quantized(workspace, tmp_path / "made")

    seen = load_file(source / "model.safetensors")
    assert all(np.array_equal(seen[name], values) for name, values in model.tensors.items())
    assert done.architecture == "LlamaForCausalLM"
    assert read_artifact(tmp_path / "made").layout == "huggingface"
    assert {path.name for path in tmp_path.iterdir()} == {"workspace", "seen", "made", "stub.py", "stub.calls"}


# --- what is known before


def test_a_model_with_few_bits_already_is_refused(tmp_path: Path, quantizer: Stub) -> None:
    with pytest.raises(UsageError, match="is quantized already"):
        quantized(MODELS / "hf-awq", tmp_path / "model")


def test_a_directory_that_is_there_is_left_alone(tmp_path: Path, quantizer: Stub) -> None:
    (tmp_path / "model").mkdir()

    with pytest.raises(UsageError, match="exists already"):
        quantized(TINY, tmp_path / "model")


def test_a_layer_with_other_inputs_than_groups_is_named(quantizer: Stub, model_copy) -> None:
    model = model_copy("hf-fp16")
    tensors = load_file(model / "model.safetensors")
    for layer in (0, 1):
        tensors[f"model.layers.{layer}.mlp.down_proj.weight"] = np.zeros((256, 700), np.float16)
    save_file(tensors, model / "model.safetensors")

    with pytest.raises(QuantizeError, match=r"down_proj has 700 inputs, a multiple of 128") as caught:
        check_wish(read_artifact(model), QUICK, tool())

    assert "16 bits" in caught.value.hint


def test_an_architecture_that_this_version_does_not_know_is_refused_with_what_would_work() -> None:
    with pytest.raises(QuantizeError, match="quantizes no BaichuanForCausalLM") as caught:
        check_wish(internlm_7b(architecture="BaichuanForCausalLM"), QUICK, tool())

    assert "autoround" in caught.value.hint


def test_what_can_only_be_quantized_without_texts_says_so() -> None:
    with pytest.raises(UsageError, match="cannot calibrate Qwen3MoeForCausalLM") as caught:
        check_wish(internlm_7b(architecture="Qwen3MoeForCausalLM"), QUICK, tool())

    assert "--calib none" in caught.value.hint


def test_an_old_version_without_a_way_without_texts_is_refused() -> None:
    wish = dataclasses.replace(QUICK, calibration="none")

    with pytest.raises(UsageError, match="quantizes nothing without texts"):
        check_wish(internlm_7b(), wish, tool(takes_no_texts=False))


def test_internlm_needs_no_code_of_the_model() -> None:
    """It is read as the Llama that it equals, which LMDeploy's quantizer knows."""
    named = dataclasses.replace(internlm_7b(), remote_code=("config.json",), config={"auto_map": {"AutoConfig": "a.B"}})

    check_wish(named, QUICK, tool())


def test_code_of_a_model_is_not_run_unasked() -> None:
    named = dataclasses.replace(
        internlm_7b(architecture="Qwen2ForCausalLM"),
        remote_code=("config.json",),
        config={"auto_map": {"AutoConfig": "a.B"}},
    )
    with pytest.raises(DeployError, match="names code"):
        check_wish(named, QUICK, tool())

    check_wish(named, dataclasses.replace(QUICK, trusts_code=True), tool())


def test_memory_is_predicted_as_it_was_measured_on_an_h200() -> None:
    """32 windows of 2048 tokens: 19.8 GB of RAM were taken, and torch reserved 6526 MiB beside CUDA's own."""
    options = QuantizeOptions(samples=32)
    sizes = sizes_of(internlm_7b(architecture="LlamaForCausalLM"))

    ram = memory.ram_bytes(sizes, options, 4096, "cuda")
    gpu = memory.gpu_bytes(sizes, options, 4096)

    assert ram / 19_788_300_288 == pytest.approx(1, abs=0.05)
    assert (gpu - 600 * 2**20) / 6_843_006_976 == pytest.approx(1, abs=0.05)
    # The driver has seen 4457 MiB while layers were packed, whatever the windows: 3.4 GB of them stay there.
    without = memory.gpu_bytes(sizes, dataclasses.replace(options, calibration="none"), 4096)
    assert 4457 * 2**20 < without < 1.2 * 4457 * 2**20


# Qwen2.5-0.5B and TinyLlama-1.1B: hidden size, inner size, layers, heads of keys, vocabulary, parameters, tied.
_HALF_BILLION = (896, 4864, 24, 14, 2, 151936, 494_000_000, True)
_BILLION = (2048, 5632, 22, 32, 4, 32000, 1_100_000_000, False)


@pytest.mark.parametrize(
    ("shape", "options", "measured"),
    [
        (_HALF_BILLION, QuantizeOptions(calibration="none"), 2_618_064_896),
        (_HALF_BILLION, QuantizeOptions(samples=2, seqlen=128), 2_779_185_152),
        (_HALF_BILLION, QuantizeOptions(samples=4, seqlen=256), 3_097_362_432),
        (_BILLION, QuantizeOptions(samples=2, seqlen=128), 5_456_355_328),
        (_HALF_BILLION, QuantizeOptions(method="autoround", samples=4, seqlen=256), 3_640_430_592),
    ],
)
def test_memory_without_a_gpu_is_predicted_as_it_was_measured(shape, options: QuantizeOptions, measured: int) -> None:
    """The most that the process of the tool took (docs/results): never too little by more than a hundredth."""
    hidden, inner, layers, heads, kv_heads, vocabulary, parameters, is_tied = shape
    artifact = dataclasses.replace(
        internlm_7b(architecture="LlamaForCausalLM"),
        hidden_size=hidden,
        intermediate_size=inner,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=hidden // heads,
        vocab_size=vocabulary,
        parameters=parameters,
        tied_embeddings=is_tied,
    )

    predicted = memory.ram_bytes(sizes_of(artifact), options, hidden, "cpu")

    assert 0.99 < predicted / measured < 1.2


def test_a_gpu_for_autoround_is_as_large_as_its_own_estimate() -> None:
    """Of one layer of 202 million weights 4 x 2 bytes each, what its seven linear layers give for 8 x 2048 tokens, four
    times, the hidden states of 32 windows twice, a GiB for the rest, and CUDA's 600 MiB."""
    sizes = sizes_of(internlm_7b(architecture="LlamaForCausalLM"))

    found = memory.gpu_bytes(sizes, QuantizeOptions(method="autoround", samples=32), 4096)

    outputs = 4 * 4096 + 2 * 11008 + 4096
    states = 32 * 2048 * 4096 * 2
    by_hand = 4 * 404_750_336 + 4 * 8 * 2048 * outputs * 2 + 2 * states + 2**30 + 600 * 2**20
    assert found == pytest.approx(by_hand, rel=0.01)


def test_too_little_gpu_memory_names_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_ram", lambda: 64 * 2**30)
    gpu = Gpu("T4", 8 * 2**30, 0, (7, 5), None, used_bytes=0, is_here=True)

    with pytest.raises(QuantizeError, match=r"GiB of GPU memory are needed, 8.0 GiB") as caught:
        memory.require_memory(internlm_7b(), QuantizeOptions(samples=128), "cuda", [gpu])

    # 0.6 GiB of CUDA, 0.8 of embeddings, and 11 x 0.5 GiB for 32 windows, twice that for 64: 6.9 and 12.4 GiB.
    assert caught.value.hint.startswith("--samples 32")


def test_too_little_memory_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_ram", lambda: 8 * 2**30)

    with pytest.raises(QuantizeError, match=r"about 3\d\.\d GiB of memory are needed, 8.0 GiB are free"):
        memory.require_memory(internlm_7b(), QuantizeOptions(calibration="none"), "cpu", [])


def test_too_small_a_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 2**20

    monkeypatch.setattr(memory.shutil, "disk_usage", lambda _: Usage)

    with pytest.raises(QuantizeError, match="has 1 MiB left, about") as of_awq:
        memory.require_disk(internlm_7b(), tmp_path / "not" / "there")
    with pytest.raises(QuantizeError, match="has 1 MiB left, about") as of_autoround:
        memory.require_disk(internlm_7b(), tmp_path / "not" / "there", "autoround")

    asked = [int(re.findall(r"about (\d+) MiB", str(one.value))[0]) for one in (of_awq, of_autoround)]
    # Two embeddings of 103168 x 4096 in 32 bits instead of 16: 4 x 103168 x 4096 bytes = 1612 MiB, and the norms.
    assert asked[1] - asked[0] == pytest.approx(1612, abs=3)


def test_a_gpu_that_is_not_there_is_bad_usage() -> None:
    with pytest.raises(UsageError, match="no GPU here"):
        memory.choose_device("cuda", tool(has_cuda=True), [])
    gpu = Gpu("T4", 2**34, 0, (7, 5), None, used_bytes=0, is_here=True)
    with pytest.raises(UsageError, match="knows no CUDA"):
        memory.choose_device("cuda", tool(), [gpu])
    assert memory.choose_device("auto", tool(), [gpu]) == "cpu"
    assert memory.choose_device("auto", tool(has_cuda=True), [gpu]) == "cuda"


# --- texts


def test_texts_are_taken_from_files_of_every_kind(tmp_path: Path) -> None:
    chat = {"messages": [{"role": "user", "content": "你好"}, {"role": "assistant", "content": "Hello"}], "more": 1}
    (tmp_path / "a.jsonl").write_text(f'{{"text": "one"}}\n\n{json.dumps(chat)}\n')
    (tmp_path / "b.txt").write_text("two")
    (tmp_path / "c.json").write_text('["three", {"text": "four"}]')
    (tmp_path / "d.csv").write_text("left out")

    found = [json.loads(one) for one in read_texts(tmp_path, "mine").records]

    assert found == [
        {"text": "one"},
        {"messages": chat["messages"]},
        {"text": "two"},
        {"text": "three"},
        {"text": "four"},
    ]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jsonl", b'{"text": "one"}\n{"prompt": "two"}\n', "line 2 has neither text nor messages"),
        ("a.jsonl", b'{"text": "one"}\n{"text"', "line 2 is not JSON"),
        ("a.jsonl", b'{"messages": [{"role": "user"}]}', "neither text nor messages"),
        ("a.jsonl", b'{"text": "\\ud800"}', "halves of characters"),
        ("a.json", b"[" * 100_000, "is not JSON"),
        ("a.txt", b"\xff\xfe\x00", "not text in UTF-8"),
        ("a.txt", b"  \n", "has no text"),
    ],
)
def test_texts_that_are_none_are_named(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(UsageError, match=says):
        calibration_texts(str(tmp_path / name))


def test_texts_that_make_no_window_are_refused_at_once(tmp_path: Path, quantizer: Stub) -> None:
    (tmp_path / "a.txt").write_text("too short")

    with pytest.raises(UsageError, match="less than one window of 2048"):
        quantized(TINY, tmp_path / "model", QuantizeOptions(calibration=str(tmp_path / "a.txt")))

    assert quantizer.calls == 0


def test_the_texts_that_ship_are_english_chinese_code_and_chats_and_measure_on_others() -> None:
    texts, held_out = calibration_texts(None), measured_text(None)
    assert texts is not None

    records = [json.loads(one) for one in texts.records]
    together = "".join(texts.records)
    assert sum("messages" in one for one in records) >= 10
    assert "def " in together
    assert sum("一" <= c <= "鿿" for c in together) > 5000
    assert not set(texts.records) & set(held_out.records)


class Words:
    """A tokenizer: a token for each word."""

    chat_template: str | None = "yes"

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        assert not add_special_tokens
        return {"input_ids": [len(word) for word in text.split()]}

    def apply_chat_template(self, messages, tokenize: bool) -> str:
        if messages[0]["role"] == "system":
            raise ValueError("no system here")
        return " ".join(f"<{one['role']}> {one['content']}" for one in messages)


def test_texts_are_joined_to_full_windows_and_the_rest_is_left_out() -> None:
    records = [{"text": "a bb ccc"}, {"text": "dddd eeeee"}, {"text": "ffffff"}]

    assert make_windows(records, Words(), 2, 10) == [[1, 2], [3, 4], [5, 6]]
    assert make_windows(records, Words(), 4, 10) == [[1, 2, 3, 4]]
    assert make_windows(records, Words(), 2, 1) == [[1, 2]]
    with pytest.raises(NoWindowError, match="6 tokens together, a window has 7"):
        make_windows(records, Words(), 7, 10)


def test_a_chat_is_written_by_the_models_template_or_else_as_its_turns() -> None:
    chat = {"messages": [{"role": "user", "content": "a"}, {"role": "x", "content": "bb"}]}
    refused = {"messages": [{"role": "system", "content": "a"}, {"role": "x", "content": "bb"}]}

    assert make_windows([chat], Words(), 4, 1) == [[6, 1, 3, 2]]
    assert make_windows([refused], Words(), 2, 1) == [[1, 2]]


def test_nothing_of_the_environment_is_left_open(tmp_path: Path, quantizer: Stub) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))

    quantized(TINY, tmp_path / "model")

    assert len(list(Path("/proc/self/fd").iterdir())) <= before
    with pytest.raises((UsageError, ArtifactError)):
        quantized(tmp_path / "nowhere", tmp_path / "other")
