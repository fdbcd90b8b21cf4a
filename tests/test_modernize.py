"""`modernize` writes what the original model is, whole or not at all."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from conftest import MODELS
from legacy_workspace import convert, random_model, reciting_internlm
from recitation import right_answers
from safetensors.numpy import load_file

from deploytk.artifact import read_artifact
from deploytk.base.errors import ArtifactError, DeployError, WeightsError
from deploytk.base.progress import Silent
from deploytk.modernize import Modernized, ModernizeOptions, modernize, shards, write

PAIRS = [
    ("workspace-0.4.2-awq", "hf-awq"),
    ("workspace-0.7.3-awq", "hf-awq"),
    ("workspace-0.9.2-awq", "hf-awq"),
    ("gqa/workspace-0.4.2-llama-awq-tp2", "gqa/hf-llama-awq"),
    ("gqa/workspace-0.7.3-qwen2-awq-tp1", "gqa/hf-qwen2-awq"),
]


def written(root: Path, destination: Path, *, to_fp16: bool = False) -> Path:
    modernize(read_artifact(root), destination, ModernizeOptions(to_fp16=to_fp16), Silent())
    return destination


def written_value(root: Path, destination: Path) -> Modernized:
    return modernize(read_artifact(root), destination, ModernizeOptions(), Silent())


def loaded(root: Path) -> dict[str, np.ndarray]:
    return {name: values for path in root.glob("*.safetensors") for name, values in load_file(path).items()}


@pytest.mark.parametrize(("workspace", "original"), PAIRS)
def test_every_tensor_equals_that_of_the_original(tmp_path, workspace, original):
    found = load_file(written(MODELS / workspace, tmp_path / "model") / "model.safetensors")

    expected = load_file(MODELS / original / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        assert found[name].tobytes() == values.tobytes(), name


@pytest.mark.parametrize(("workspace", "original"), PAIRS)
def test_what_is_written_is_a_model_without_errors(tmp_path, workspace, original):
    artifact = read_artifact(written(MODELS / workspace, tmp_path / "model"))

    assert artifact.errors == ()
    assert artifact.weight_format == "awq"
    assert artifact.parameters == read_artifact(MODELS / original).parameters


def test_dequantized_weights_are_a_model_of_16_bit(tmp_path):
    artifact = read_artifact(written(MODELS / "workspace-0.4.2-awq", tmp_path / "model", to_fp16=True))

    assert artifact.errors == ()
    assert (artifact.weight_format, artifact.weight_bits) == ("none", 16)
    assert "quantization_config" not in artifact.config


def test_a_quantized_huggingface_directory_can_be_dequantized(tmp_path):
    ours = written(MODELS / "hf-awq", tmp_path / "a", to_fp16=True)
    theirs = written(MODELS / "workspace-0.7.3-awq", tmp_path / "b", to_fp16=True)

    found, expected = (load_file(path / "model.safetensors") for path in (ours, theirs))
    assert {name: values.tobytes() for name, values in found.items()} == {
        name: values.tobytes() for name, values in expected.items()
    }


def test_files_can_be_read_by_anyone_and_no_pickle_is_among_them(tmp_path):
    root = written(MODELS / "workspace-0.4.2-awq", tmp_path / "model")

    assert {path.stat().st_mode & 0o777 for path in root.iterdir()} == {0o644}
    assert sorted(path.name for path in root.iterdir()) == [
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_weights_are_parted_into_shards_with_an_index(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SHARD_BYTES", 600_000)

    root = written(MODELS / "workspace-0.4.2-awq", tmp_path / "model")

    index = json.loads((root / "model.safetensors.index.json").read_text())
    # 2 x 1024 x 256 x 2 bytes of embeddings fill a shard each; two layers of 451 584 bytes are not parted evenly
    names = sorted(path.name for path in root.glob("*.safetensors"))
    assert names == [f"model-{number:05d}-of-{len(names):05d}.safetensors" for number in range(1, len(names) + 1)]
    found = loaded(root)
    assert index["weight_map"].keys() == found.keys()
    assert index["metadata"]["total_size"] == sum(values.nbytes for values in found.values())
    assert all(path.stat().st_size < 610_000 for path in root.glob("*.safetensors"))
    assert read_artifact(root).errors == ()


# -- whole or not at all ------------------------------------------------------------------------------------------


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "model").mkdir()

    with pytest.raises(WeightsError, match="exists already"):
        written(MODELS / "workspace-0.4.2-awq", tmp_path / "model")


def test_a_huggingface_directory_needs_no_modernizing(tmp_path):
    with pytest.raises(WeightsError, match="already"):
        written(MODELS / "hf-awq", tmp_path / "model")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("layers.1.attention.wo.0.qweight", lambda path: path.write_bytes(b"")),
        ("layers.0.feed_forward.w13.0.scales_zeros", lambda path: path.unlink()),
        ("layers.0.attention.wo.1.qweight", lambda path: path.write_bytes(b"\0" * 32768)),
        ("norm.weight", lambda path: path.write_bytes(path.read_bytes() + b"\0")),
        ("config.ini", lambda path: path.write_text(path.read_text().replace("group_size = 128", "group_size = 64"))),
        ("config.ini", lambda path: path.write_text(path.read_text().replace("size = 1\n", "size = 2\n"))),
        ("config.ini", lambda path: path.write_text(path.read_text().replace("= int4", "= int3"))),
        ("config.ini", lambda path: path.write_text(path.read_text().replace("num_layer = 2", "num_layer = 3"))),
    ],
)
def test_a_broken_workspace_is_refused_before_anything_is_written(tmp_path, model_copy, name, change):
    root = model_copy("workspace-0.4.2-awq")
    change(root / "triton_models/weights" / name)
    (tmp_path / "out").mkdir()

    with pytest.raises((ArtifactError, WeightsError)) as error:
        written(root, tmp_path / "out" / "model")

    assert error.value.hint
    assert list((tmp_path / "out").iterdir()) == []


def test_a_file_that_turns_out_wrong_leaves_no_model(tmp_path, model_copy):
    root = model_copy("workspace-0.4.2-awq")
    path = root / "triton_models/weights/layers.1.feed_forward.w2.0.scales_zeros"
    path.write_bytes(b"\0" * path.stat().st_size)

    with pytest.raises(WeightsError, match="zero points"):
        written(root, tmp_path / "model")

    assert [path for path in tmp_path.iterdir() if path != root] == []


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(write, "_SPARE_BYTES", 2**60)

    with pytest.raises(WeightsError, match="MiB left"):
        written(MODELS / "workspace-0.4.2-awq", tmp_path / "model")

    assert list(tmp_path.iterdir()) == []


def test_a_finished_result_is_recognised(tmp_path):
    first = written_value(MODELS / "workspace-0.4.2-awq", tmp_path / "model")

    again = written_value(MODELS / "workspace-0.4.2-awq", tmp_path / "model")

    assert again.kept_bytes == sum(path.stat().st_size for path in (tmp_path / "model").glob("*.safetensors"))
    assert (again.files, again.bytes, again.chat_template) == (first.files, first.bytes, first.chat_template)


@pytest.mark.parametrize("change", ["a weight", "a text", "a file more", "a file less"])
def test_a_result_that_was_changed_is_not_taken_for_finished(tmp_path, change):
    written(MODELS / "workspace-0.4.2-awq", tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    match change:
        case "a weight":
            data = bytearray(weights.read_bytes())
            data[-1] ^= 1
            weights.write_bytes(data)
        case "a text":
            (tmp_path / "model" / "config.json").write_text("{}")
        case "a file more":
            (tmp_path / "model" / "mine.txt").write_text("mine")
        case "a file less":
            (tmp_path / "model" / "generation_config.json").unlink()

    with pytest.raises(WeightsError, match="exists already"):
        written(MODELS / "workspace-0.4.2-awq", tmp_path / "model")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("added_tokens.json", '{"<|im_end|>": {"id": 3}}'),
        ("added_tokens.json", '{"<|im_end|>": true}'),
        ("tokenizer_config.json", '{"added_tokens_decoder": [3]}'),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"x": {"content": "a"}, "3": "a", "4": {"content": 5}}}'),
        ("tokenizer.json", '{"added_tokens": [1, {"id": 3}, {"content": ["a"], "id": 1}], "model": []}'),
        ("tokenizer.json", '{"added_tokens": {"a": 1}, "model": {"vocab": [[], 1, [null, 0]]}, "post_processor": [1]}'),
        ("tokenizer.json", '{"post_processor": {"processors": [1, {"type": "TemplateProcessing", "single": [1]}]}}'),
        ("tokenizer.json", '{"post_processor": {"type": "TemplateProcessing", "single": {"SpecialToken": 1}}}'),
    ],
)
def test_a_malformed_tokenizer_is_no_traceback(tmp_path, model_copy, name, text):
    root = model_copy("workspace-0.4.2-awq")
    (root / "triton_models/tokenizer" / name).write_text(text)

    with suppress(DeployError):  # which has a hint by its constructor
        written(root, tmp_path / "model")


def _interrupted_after(count: int):
    """`write_shard`, and Ctrl-C when `count` of them are written."""
    written_ones = []

    def write_shard(shard, path, advance):
        if len(written_ones) == count:
            raise KeyboardInterrupt
        shards.write_shard(shard, path, advance)
        written_ones.append(path)

    return write_shard


def test_shards_of_an_interrupted_run_are_kept(tmp_path, monkeypatch, model_copy):
    monkeypatch.setattr(shards, "SHARD_BYTES", 600_000)
    root = model_copy("workspace-0.4.2-awq")
    with monkeypatch.context() as patch:
        patch.setattr(write, "write_shard", _interrupted_after(2))
        with pytest.raises(KeyboardInterrupt):
            written(root, tmp_path / "model")
    before = (tmp_path / ".model.partial" / "model-00001-of-00004.safetensors").stat()

    done = modernize(read_artifact(root), tmp_path / "model", ModernizeOptions(), Silent())

    # the embedding fills the first shard: 8 + header + 1024 x 256 x 2 bytes
    assert done.kept_bytes >= 1024 * 256 * 2
    after = (tmp_path / "model" / "model-00001-of-00004.safetensors").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    found = {
        name: value for path in (tmp_path / "model").glob("*.safetensors") for name, value in load_file(path).items()
    }
    expected = load_file(MODELS / "hf-awq" / "model.safetensors")
    assert all(found[name].tobytes() == values.tobytes() for name, values in expected.items())


def test_shards_of_another_input_are_not_kept(tmp_path):
    staging = tmp_path / ".model.partial"
    staging.mkdir()
    (staging / ".deploytk-modernize").write_text("another\n")
    (staging / "model.safetensors").write_bytes(b"x" * 1941464)

    done = modernize(read_artifact(MODELS / "workspace-0.4.2-awq"), tmp_path / "model", ModernizeOptions(), Silent())

    assert done.kept_bytes == 0
    load_file(tmp_path / "model" / "model.safetensors")


def test_a_killed_run_leaves_no_model_and_the_next_one_finishes(tmp_path):
    shape = {"heads": 16, "kv_heads": 16, "head_dim": 128, "inner": 5632, "vocab": 512}
    model = random_model(1, architecture="LlamaForCausalLM", layers=1, **shape)
    root = convert(model, tmp_path / "workspace", "0.4.2")
    code = (
        "import pathlib, sys; from deploytk.artifact import read_artifact; from deploytk.base.progress import Silent;"
        "from deploytk.modernize import ModernizeOptions, modernize, shards; shards.SHARD_BYTES = 2**24;"
        "source, out = map(pathlib.Path, sys.argv[1:]);"
        "modernize(read_artifact(source), out, ModernizeOptions(), Silent())"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(root), str(tmp_path / "model")])
    deadline = time.monotonic() + 30
    while not any(tmp_path.glob(".model.partial/model-*")) and time.monotonic() < deadline:
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    child.wait(timeout=30)
    was_there = (tmp_path / "model").exists()

    if not was_there:
        subprocess.run([sys.executable, "-c", code, str(root), str(tmp_path / "model")], check=True, timeout=60)

    found = {
        name: value for path in (tmp_path / "model").glob("*.safetensors") for name, value in load_file(path).items()
    }
    assert {name: values.tobytes() for name, values in found.items()} == {
        name: values.tobytes() for name, values in model.tensors.items()
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "workspace"]


def test_memory_stays_below_two_layers_and_the_embeddings(tmp_path):
    shape = {"heads": 8, "kv_heads": 8, "head_dim": 128, "inner": 2816, "vocab": 1024}
    model = random_model(1, architecture="LlamaForCausalLM", layers=12, **shape)
    root = convert(model, tmp_path / "workspace", "0.7.3")
    code = (
        "import pathlib, sys; from deploytk.artifact import read_artifact;"
        "from deploytk.base.progress import Silent;"
        "from deploytk.modernize import ModernizeOptions, modernize; source, out = map(pathlib.Path, sys.argv[1:]);"
        "artifact = read_artifact(source);"
        # not ru_maxrss, which has that of the program that started this one
        "peak = lambda: int(pathlib.Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0]);"
        "before = peak();"
        "modernize(artifact, out, ModernizeOptions(), Silent());"
        "print((peak() - before) * 1024)"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, str(root), str(tmp_path / "model")],
        check=True, timeout=60, capture_output=True, text=True,
    )  # fmt: skip

    # a layer: 2 x (4 x 1024^2 + 3 x 1024 x 2816) = 25 690 112 bytes; two embeddings: 2 x 2 x 1024 x 1024 bytes
    assert int(done.stdout) < 2 * 25_690_112 + 2 * 2 * 1024 * 1024 < 12 * 25_690_112


class Counting(Silent):
    """Adds up what is reported."""

    def __init__(self) -> None:
        self.total = self.done = 0

    @contextmanager
    def task(self, label, total, unit="bytes"):
        lock = threading.Lock()
        self.total = total

        def advance(amount):
            with lock:
                self.done += amount

        yield advance


def test_progress_ends_at_its_total(tmp_path):
    progress = Counting()

    modernize(read_artifact(MODELS / "workspace-0.4.2-awq"), tmp_path / "model", ModernizeOptions(), progress)

    assert progress.done == progress.total == (tmp_path / "model/model.safetensors").stat().st_size


# -- what reads it ------------------------------------------------------------------------------------------------


@pytest.mark.engine
@pytest.mark.parametrize(("workspace", "original"), PAIRS)
def test_transformers_reads_the_configuration_like_the_original(tmp_path, workspace, original):
    from transformers import AutoConfig

    found = AutoConfig.from_pretrained(written(MODELS / workspace, tmp_path / "model"))

    expected = AutoConfig.from_pretrained(MODELS / original)
    for key in ("hidden_size", "num_key_value_heads", "vocab_size", "eos_token_id", "tie_word_embeddings", "dtype"):
        assert getattr(found, key) == getattr(expected, key), key
    assert found.rope_parameters == {"rope_type": "default", "rope_theta": 10000.0}
    assert type(found) is type(expected)


@pytest.mark.engine
@pytest.mark.parametrize("workspace", ["workspace-0.4.2-awq", "workspace-0.7.3-awq", "workspace-0.9.2-awq"])
def test_a_modernized_model_recites(tmp_path, workspace):
    assert right_answers(written(MODELS / workspace, tmp_path / "model", to_fp16=True)) == 8


@pytest.mark.engine
@pytest.mark.parametrize("cancels", [True, False])
def test_internlm_recites_as_llama_with_the_biases_of_values_and_output(tmp_path, cancels):
    workspace = reciting_internlm(MODELS / "hf-awq", tmp_path / "workspace", cancels=cancels)

    right = right_answers(written(workspace, tmp_path / "model", to_fp16=True))

    assert (right == 8) is cancels


def test_numpy_is_all_that_reading_needs():
    code = "import sys, deploytk.modernize; sys.exit(not {'torch', 'transformers'}.isdisjoint(sys.modules))"

    assert subprocess.run([sys.executable, "-c", code], timeout=30).returncode == 0
