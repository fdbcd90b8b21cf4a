"""Real quantizers on the CPU, LMDeploy's auto_awq and AutoRound, each in its own environment. Needs a package index."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import platformdirs
import pytest
from conftest import MODELS, one_at_a_time

from deploytk import lmdeploy
from deploytk.artifact import QuantizationCost, read_artifact
from deploytk.base.progress import Silent
from deploytk.bundle import read_golden
from deploytk.quantize import Method, QuantizeOptions, Tool, find_tool, quantize
from deploytk.quantize.calibration import measured_text
from deploytk.quantize.cost import measure_cost

pytestmark = [pytest.mark.services, pytest.mark.timeout(1200)]

TINY = MODELS / "hf-fp16"
OPTIONS = QuantizeOptions(samples=8, seqlen=256, iterations=2, golden=read_golden(MODELS / "dialogs.json"))

# AutoRound again, into the formats of others.
_EXPORT = """
import sys, torch
from auto_round import AutoRound
model, out, form, symmetric = sys.argv[1:]
windows = [torch.randint(3, 1000, (1, 128), generator=torch.Generator().manual_seed(at)) for at in range(4)]
tuner = AutoRound(model, scheme="W4A16", sym=symmetric == "yes", iters=1, seqlen=128, nsamples=4, batch_size=4,
                  dataset=windows, device_map="cpu", trust_remote_code=False, disable_model_free=True)
tuner.quantize_and_save(out, format=form)
"""


@pytest.fixture
def _kept_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environments of the quantizers, kept between runs of the tests."""
    monkeypatch.setenv("DEPLOYTK_CACHE_DIR", str(platformdirs.user_cache_path("deploytk-tests")))


def _tool(method: Method) -> Tool:
    with one_at_a_time(f"quantizer-{method}"):
        return find_tool(method, None, Silent())


@pytest.mark.usefixtures("_kept_environments")
@pytest.mark.parametrize(
    ("method", "change"),
    [("awq", {}), ("awq", {"calibration": "none"}), ("awq", {"search_scale": True}), ("autoround", {})],
    ids=["awq", "awq-without-texts", "awq-search-scale", "autoround"],
)
def test_what_a_real_quantizer_makes_answers_all_eight_dialogs(tmp_path: Path, method: Method, change: dict) -> None:
    tool = _tool(method)

    done = quantize(read_artifact(TINY), tmp_path / "made", replace(OPTIONS, method=method, **change), Silent())

    cost = done.quantized_by.cost
    assert cost is not None
    assert (cost.golden, cost.golden_before, cost.golden_after) == (8, 8, 8)
    assert 0 < cost.kl_mean < 0.5
    assert cost.top1_agreement > 0.6
    assert (done.quantized_by.tool, done.quantized_by.tool_version) == (tool.package, tool.version)
    assert ("search-scale" in done.quantized_by.arguments) == ("search_scale" in change)
    artifact = read_artifact(tmp_path / "made")
    assert (artifact.weight_format, artifact.lmdeploy.pin, artifact.errors) == ("awq", lmdeploy.NEWEST, ())
    assert all(problem.level == "info" for problem in artifact.problems)
    assert done.memory.ram is not None
    assert done.memory.ram < 2 * done.memory.predicted_ram
    assert not [path for path in (tmp_path / "made").iterdir() if path.suffix == ".pth"]


@pytest.mark.usefixtures("_kept_environments")
def test_what_the_real_lmdeploy_can_do_is_read_from_its_sources() -> None:
    tool = _tool("awq")

    assert tool.version == lmdeploy.NEWEST
    assert tool.takes_no_texts
    assert {"LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "InternLM2ForCausalLM"} <= tool.smoothed
    assert tool.architectures is not None
    # They have no entry in one of the two maps, and calibrating them would end in a KeyError.
    assert {"Qwen3MoeForCausalLM", "Qwen3_5ForConditionalGeneration"} <= tool.architectures - tool.smoothed
    assert "InternLMForCausalLM" not in tool.architectures  # dropped in 0.18; it is read as a Llama


@pytest.mark.usefixtures("_kept_environments")
def test_a_real_run_that_is_killed_goes_on_after_the_calibration(tmp_path: Path) -> None:
    _tool("awq")
    words = [sys.executable, "-m", "deploytk", "quantize", str(TINY), "-o", str(tmp_path / "made"), "--no-measure"]
    words += ["--samples", "8", "--seqlen", "256"]
    mark = tmp_path / ".made.partial" / ".work" / "output" / "calibrated"
    first = subprocess.Popen(words, env=os.environ, stderr=subprocess.PIPE)
    while first.poll() is None and not mark.exists():
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert not (tmp_path / "made").exists()

    second = subprocess.run([*words, "--json"], env=os.environ, capture_output=True, text=True, check=True)

    assert "an interrupted run had" in second.stderr
    assert json.loads(second.stdout)["quantized_by"]["calibration"]["windows"] == 8
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def _compressed_tensors() -> Path:
    """What AutoRound packs with for the format of llm-compressor; kept between runs of the tests."""
    place = platformdirs.user_cache_path("deploytk-tests") / "compressed-tensors-0.20.0"
    with one_at_a_time("compressed-tensors"):
        if not place.is_dir():
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(place)]
            subprocess.run([*pip, "compressed-tensors==0.20.0", "loguru==0.7.3"], check=True)
    return place


@pytest.mark.usefixtures("_kept_environments")
@pytest.mark.parametrize(
    ("form", "symmetric", "weight_format"),
    [
        ("auto_gptq", "yes", "gptq"),
        ("llm_compressor", "yes", "compressed-tensors"),
        ("llm_compressor", "no", "compressed-tensors"),
    ],
)
def test_what_autoround_packs_as_others_do_is_read_by_the_cpu_engine(
    tmp_path: Path, form: str, symmetric: str, weight_format: str
) -> None:
    tool = _tool("autoround")
    export = [str(tool.python), "-c", _EXPORT, str(TINY), str(tmp_path / "out"), form, symmetric]
    subprocess.run(export, check=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(_compressed_tensors())})
    [config] = (tmp_path / "out").rglob("config.json")
    artifact = read_artifact(config.parent)

    cost, why_not = measure_cost(
        read_artifact(TINY), config.parent, measured_text(None), OPTIONS, (tool, "cpu", tmp_path), Silent()
    )

    assert artifact.weight_format == weight_format
    assert isinstance(cost, QuantizationCost), why_not
    assert cost.golden_after == 8
    assert cost.kl_mean < 0.5
