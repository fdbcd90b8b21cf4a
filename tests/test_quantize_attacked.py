"""`quantize` when it is interrupted, has no room, is called twice, or is given what nobody should trust."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from commands import Done, run
from conftest import MODELS
from fake_quantizers import STAGES, Quantizers
from quantizers import Stub, quantizer, tool
from safetensors.numpy import load_file, save_file

from deploytk.artifact import read_artifact
from deploytk.base.errors import QuantizeError, TrustError, UsageError
from deploytk.base.progress import Silent
from deploytk.quantize import QuantizeOptions, calibration, cost, quantize
from deploytk.quantize.calibration import calibration_texts
from deploytk.quantize.checks import check_wish
from deploytk.quantize.finish import check_tensors, entries_in

__all__ = ["quantizer"]  # a fixture

TINY = MODELS / "hf-fp16"
QUICK = QuantizeOptions(samples=4, seqlen=64, measures=False)
WITHIN_S = 60.0


@pytest.fixture
def quantizers(tmp_path: Path) -> Quantizers:
    return Quantizers(tmp_path / "environment")


def _words(quantizers: Quantizers, method: str, made: Path) -> list[str]:
    words = ["quantize", str(TINY), "-o", str(made), "--method", method, "--no-measure", "--device", "cpu", "-q"]
    return [*words, "--samples", "4", "--seqlen", "64", "--python", str(quantizers.python)]


def _wait_until(what) -> None:
    until = time.monotonic() + WITHIN_S
    while not what():
        assert time.monotonic() < until
        time.sleep(0.02)


# One of each signal and stage in the fast suite; the others start thirty processes more.
_FAST = {("awq", "smoothing", "SIGKILL"), ("awq", "saving", "SIGINT"), ("autoround", "tuning", "SIGTERM")}
_ALL = [(m, stage, name) for m in STAGES for stage in STAGES[m] for name in ("SIGINT", "SIGTERM", "SIGKILL")]


@pytest.mark.parametrize(
    ("method", "stage", "name"),
    [pytest.param(*one, marks=[] if one in _FAST else [pytest.mark.services]) for one in _ALL],
    ids=["-".join(one) for one in _ALL],
)
def test_a_run_that_is_ended_leaves_no_process_and_no_directory_and_the_next_one_makes_it(
    tmp_path: Path, quantizers: Quantizers, method: str, stage: str, name: str
) -> None:
    words = [sys.executable, "-m", "deploytk", *_words(quantizers, method, tmp_path / "out" / "made")]
    quantizers.told(hold=stage)
    first = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    _wait_until(lambda: quantizers.held.exists() or first.poll() is not None)

    first.send_signal(signal.Signals[name])
    _, said = first.communicate(timeout=WITHIN_S)

    assert first.returncode == {"SIGINT": 130, "SIGTERM": 143, "SIGKILL": -9}[name]
    assert "Traceback" not in said
    _wait_until(lambda: not quantizers.is_running())
    assert not (tmp_path / "out" / "made").exists()
    quantizers.told()
    second = run(*[word for word in words[3:] if word != "-q"])
    assert second.code == 0, second.stderr
    goes_on = method == "awq" and stage != "calibrating"
    assert ("an interrupted run had calibrated" in second.stderr) == goes_on
    assert ("this one starts anew" in second.stderr) == (not goes_on)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["made"]
    assert not [path for path in (tmp_path / "out" / "made").rglob("*") if path.suffix in (".pth", ".pt", ".bin")]


def test_two_at_once_into_one_place_the_second_is_told_to_wait(tmp_path: Path, quantizers: Quantizers) -> None:
    words = _words(quantizers, "awq", tmp_path / "made")
    quantizers.told(hold="smoothing")
    first = subprocess.Popen([sys.executable, "-m", "deploytk", *words], stderr=subprocess.DEVNULL)
    try:
        _wait_until(quantizers.held.exists)

        second = run(*words)
    finally:
        first.terminate()
        first.wait()

    assert (second.code, "is in use by another deploytk" in second.stderr) == (75, True)


@pytest.mark.parametrize(("method", "stage"), [("awq", "saving"), ("autoround", "tuning")])
def test_a_disk_that_is_full_for_the_tool_is_said_so(
    tmp_path: Path, quantizers: Quantizers, method: str, stage: str
) -> None:
    quantizers.told(**{stage: "[Errno 28] No space left on device: '/somewhere/model.safetensors'"})

    done = run(*_words(quantizers, method, tmp_path / "made"))

    _is_one_sentence(done, 1, "found the disk full", "free some space and run again")
    assert not (tmp_path / "made").exists()


def test_what_a_tool_raises_is_one_sentence_and_names_its_log(tmp_path: Path, quantizers: Quantizers) -> None:
    quantizers.told(tuning="no such luck\nat all")

    done = run(*_words(quantizers, "autoround", tmp_path / "made"))

    _is_one_sentence(done, 1, "auto-round 0.16.1 failed: OSError: no such luck at all", "log.txt")


def _is_one_sentence(done: Done, code: int, *says: str) -> None:
    assert done.code == code, done.stderr
    assert all(one in " ".join(done.stderr.split()) for one in says), done.stderr
    assert "Traceback" not in done.stderr
    assert "hint:" in done.stderr


# --- places


@pytest.mark.parametrize("place", ["made", "made/deeper", "."])
def test_a_place_in_the_model_itself_is_refused(quantizer: Stub, model_copy, place: str) -> None:
    model = model_copy("hf-fp16")

    with pytest.raises(UsageError, match=r"inside the model directory|exists already"):
        quantize(read_artifact(model), model / place, QUICK, Silent())

    assert quantizer.calls == 0


def test_a_place_that_is_a_file_an_empty_directory_or_a_link_to_nothing_is_left_alone(
    tmp_path: Path, quantizer: Stub
) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("nowhere")

    for name in ("file", "empty", "link"):
        with pytest.raises(UsageError, match="exists already"):
            quantize(read_artifact(TINY), tmp_path / name, QUICK, Silent())

    assert quantizer.calls == 0


def test_a_place_with_spaces_and_in_any_script_is_made_with_all_above_it(tmp_path: Path, quantizer: Stub) -> None:
    place = tmp_path / "not there yet" / "模型 (4 bit)"

    assert quantize(read_artifact(TINY), place, QUICK, Silent()).path == place
    assert read_artifact(place).quantized_by is not None


# --- models


def test_a_model_without_a_tokenizer_is_refused_before_anything_is_loaded(quantizer: Stub, model_copy) -> None:
    model = model_copy("hf-fp16")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (model / name).unlink()

    done = run("quantize", str(model), "-o", f"{model}-awq", "--samples", "4", "--seqlen", "64")

    _is_one_sentence(done, 1, "tokenizer")
    assert quantizer.calls == 0


@pytest.mark.parametrize(
    "settings",
    [
        {"do_sample": False, "num_return_sequences": 2},
        {"max_new_tokens": 0},
        {"cache_implementation": "nonsense"},
        {"temperature": 0.7},
    ],
)
def test_whatever_a_generation_config_sets_the_tool_sees_what_can_be_saved(
    tmp_path: Path, quantizer: Stub, model_copy, settings: dict
) -> None:
    """Each of these transformers 5.24 refuses to save, or warns of, at the very end."""
    model = model_copy("hf-fp16")
    own = json.dumps({**settings, "eos_token_id": [4, 5]})
    (model / "generation_config.json").write_text(own)
    seen = "json.loads((Path(job['model']) / 'generation_config.json').read_text())"
    kept = {name: value for name, value in settings.items() if name == "do_sample"} | {"eos_token_id": [4, 5]}
    quantizer.does(after=f"assert {seen} == {kept!r}")

    quantize(read_artifact(model), tmp_path / "made", QUICK, Silent())

    assert (tmp_path / "made" / "generation_config.json").read_text() == own


def test_a_generation_config_that_is_no_json_is_one_sentence(tmp_path: Path, quantizer: Stub, model_copy) -> None:
    model = model_copy("hf-fp16")
    (model / "generation_config.json").write_text("[")

    done = run("quantize", str(model), "-o", str(tmp_path / "made"), "--samples", "4", "--seqlen", "64")

    _is_one_sentence(done, 1, "generation_config.json")
    assert quantizer.calls == 0


def test_a_value_of_bf16_that_halves_do_not_hold_is_named(tmp_path: Path) -> None:
    """2^16 is one more than float16 can tell from infinity; bf16 has it as 0x4780."""
    source, written = tmp_path / "source", tmp_path / "written"
    source.mkdir()
    shutil.copytree(MODELS / "hf-awq", written)
    tensors = load_file(TINY / "model.safetensors")
    save_file({name: value.astype(np.float32) for name, value in tensors.items()}, source / "model.safetensors")
    check_tensors(entries_in(written), entries_in(source), ())
    made = load_file(written / "model.safetensors")
    made["model.norm.weight"][0] = np.inf
    save_file(made, written / "model.safetensors")

    with pytest.raises(QuantizeError, match=r"model\.norm\.weight has values that 16 bits \(float16\) do not hold"):
        check_tensors(entries_in(written), entries_in(source), ())


def test_code_of_a_tokenizer_is_not_run_by_a_version_that_asks_nobody(model_copy) -> None:
    model = model_copy("hf-fp16")
    settings = json.loads((model / "tokenizer_config.json").read_text())
    settings["auto_map"] = {"AutoTokenizer": ["tokenization_evil.Evil", None]}
    (model / "tokenizer_config.json").write_text(json.dumps(settings))
    artifact = read_artifact(model)

    check_wish(artifact, QUICK, tool())
    with pytest.raises(TrustError, match="names code"):
        check_wish(artifact, QUICK, tool(runs_code=True))


def test_weights_in_a_pickle_that_runs_something_are_refused(tmp_path: Path, quantizer: Stub, model_copy) -> None:
    model = model_copy("hf-fp16")
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(b"cposix\nsystem\n(S'touch ran'\ntR.")

    done = run("quantize", str(model), "-o", str(tmp_path / "made"))

    assert done.code == 1
    assert "Traceback" not in done.stderr
    assert quantizer.calls == 0


def _measured(monkeypatch: pytest.MonkeyPatch, **figures: float) -> None:
    """What the process that measures says."""
    found = {"windows": 1, "perplexity_before": 5.0, "perplexity_after": 5.2, "kl_mean": 0.01, "top1_agreement": 0.9}
    found |= {"golden": 0, "golden_before": 0, "golden_after": 0, **figures}

    @contextmanager
    def running(argv: list[str], **_: object):
        Path(json.loads(Path(argv[-1]).read_text())["result"]).write_text(json.dumps(found))
        yield mock.Mock(returncode=0)

    monkeypatch.setattr(cost, "running", running)


@pytest.mark.parametrize(
    "figures", [{"perplexity_after": math.nan}, {"perplexity_after": math.inf}, {"kl_mean": math.nan}]
)
def test_a_model_that_computes_no_numbers_never_appears(
    tmp_path: Path, quantizer: Stub, monkeypatch: pytest.MonkeyPatch, figures: dict
) -> None:
    _measured(monkeypatch, **figures)

    with pytest.raises(QuantizeError, match="computes no numbers"):
        quantize(read_artifact(TINY), tmp_path / "made", replace(QUICK, measures=True), Silent())

    assert not (tmp_path / "made").exists()


def test_a_model_that_computed_no_numbers_before_is_not_measured(
    tmp_path: Path, quantizer: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    _measured(monkeypatch, perplexity_before=math.inf)

    done = quantize(read_artifact(TINY), tmp_path / "made", replace(QUICK, measures=True), Silent())

    assert done.quantized_by.cost is None
    assert "perplexity of the model in 16 bits is inf, no number" in done.notes[-1]


# --- texts


def test_more_texts_than_anybody_calibrates_with_are_refused_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "_LARGEST_BYTES", 1000)
    for number in range(30):
        (tmp_path / f"{number}.txt").write_text("x" * 100)

    with pytest.raises(UsageError, match="0 MiB of texts in 30 files"):
        calibration_texts(str(tmp_path))


def test_thousands_of_small_files_are_texts_in_the_order_of_their_names(tmp_path: Path) -> None:
    for number in range(2000):
        (tmp_path / f"{number:04}.txt").write_text(f"text {number}")

    found = calibration_texts(str(tmp_path))

    assert found is not None
    assert [json.loads(one)["text"] for one in found.records] == [f"text {number}" for number in range(2000)]


def test_a_pipe_and_a_directory_without_texts_are_no_texts(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")

    with pytest.raises(UsageError, match="it is no file"):
        calibration_texts(str(tmp_path / "pipe.txt"))
    with pytest.raises(UsageError, match=r"no file of \.txt"):
        calibration_texts(str(tmp_path))


def test_more_windows_than_the_texts_make_are_said(tmp_path: Path, quantizers: Quantizers) -> None:
    texts = tmp_path / "mine.txt"
    texts.write_text("x" * 200)  # and two line ends: three windows of 64
    words = [word for word in _words(quantizers, "awq", tmp_path / "made") if word != "-q"]
    words[words.index("--samples") + 1] = "128"

    done = run(*words, "--calib", str(texts), "--json")

    assert (done.code, "make 3 windows of 64 tokens: more are better" in done.stderr) == (0, True), done.stderr
    assert json.loads(done.stdout)["quantized_by"]["calibration"]["windows"] == 3
