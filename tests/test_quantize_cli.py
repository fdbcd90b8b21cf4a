"""`quantize` and `publish --quantize` as a person calls them: exit codes, words, the card, what is not done twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import run
from conftest import MODELS
from quantizers import Stub, quantizer

from deploytk.artifact import QuantizationCost, read_artifact
from deploytk.bundle import BundleOptions
from deploytk.bundle.card import render_card
from deploytk.plan import PlanRequest, plan_serving
from deploytk.quantize import write

__all__ = ["quantizer"]  # a fixture

TINY = str(MODELS / "hf-fp16")
QUICK = ["--samples", "4", "--seqlen", "64", "-q"]
# 5.2 / 5 is 4 % more.
COST = QuantizationCost("deploytk", f"sha256:{'0' * 64}", 2, 2048, 5.0, 5.2, 0.0123, 0.954, 8, 8, 7)


@pytest.fixture
def cost(monkeypatch: pytest.MonkeyPatch, quantizer: Stub) -> list[int]:
    """What it costs, without a process that measures it; how often that was asked."""
    asked: list[int] = []

    def measured(*_: object) -> tuple[QuantizationCost, str]:
        asked.append(1)
        return COST, ""

    monkeypatch.setattr(write, "measure_cost", measured)
    return asked


def test_the_value_has_what_was_made_and_what_it_cost(tmp_path: Path, cost: list[int]) -> None:
    done = run("quantize", TINY, "-o", str(tmp_path / "made"), *QUICK, "--json")

    found = json.loads(done.stdout)
    assert (done.code, found["is_within_budget"], found["device"]) == (0, None, "cpu")
    assert found["quantized_by"]["cost"]["golden_after"] == 7
    assert json.loads(run("inspect", str(tmp_path / "made"), "--json").stdout)["quantized_by"] == found["quantized_by"]


@pytest.mark.parametrize(("limit", "code"), [("3.9", 3), ("4.1", 0)])
def test_a_rise_of_perplexity_above_the_limit_ends_with_3(
    tmp_path: Path, cost: list[int], limit: str, code: int
) -> None:
    done = run("quantize", TINY, "-o", str(tmp_path / "made"), *QUICK, "--max-ppl-increase", limit)

    assert done.code == code
    assert "budget" in done.stdout
    assert read_artifact(tmp_path / "made").quantized_by is not None


def test_what_it_cost_and_what_that_does_not_show_are_shown(tmp_path: Path, cost: list[int]) -> None:
    done = run("quantize", TINY, "-o", str(tmp_path / "made"), *QUICK)

    for words in ("5.000 before, 5.200 after (+4.00 %)", "0.0123 nats", "95.4%", "8 of 8 right before, 7 after"):
        assert words in " ".join(done.stdout.split())
    assert "says nothing about long answers" in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--iters", "5"], "--iters does nothing here: it is an option of --method autoround"),
        (["--method", "autoround", "--search-scale"], "--search-scale does nothing here"),
        (["--method", "autoround", "--calib", "none"], "autoround learns from texts"),
        (["--calib", "none", "--samples", "4"], "--samples does nothing here: --calib none looks at no texts"),
        (["--no-measure", "--max-ppl-increase", "3"], "--max-ppl-increase does nothing here"),
        (["--calib", "/nowhere/at/all"], "/nowhere/at/all does not exist"),
    ],
)
def test_an_option_that_would_do_nothing_is_bad_usage(tmp_path: Path, options: list[str], says: str) -> None:
    done = run("quantize", TINY, "-o", str(tmp_path / "made"), *options)

    assert (done.code, says in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "made").exists()


def test_it_is_not_measured_on_what_it_was_calibrated_with(tmp_path: Path, quantizer: Stub) -> None:
    texts = tmp_path / "mine.txt"
    texts.write_text("a text of mine " * 100)

    same = ["--calib", str(texts), "--measure-on", str(texts)]
    done = run("quantize", TINY, "-o", str(tmp_path / "made"), *QUICK, *same)

    assert (done.code, "is measured on others" in done.stderr) == (2, True)
    assert quantizer.calls == 0


def test_one_line_leads_from_16_bits_to_a_hub_and_quantizes_once(
    tmp_path: Path, cost: list[int], quantizer: Stub
) -> None:
    hub = str(tmp_path / "hub")
    line = [
        "publish",
        TINY,
        "--quantize",
        "awq",
        "--target",
        "local",
        "--repo",
        hub,
        "--license",
        "apache-2.0",
        "--json",
    ]

    first, second = run(*line), run(*line)

    assert (first.code, second.code) == (0, 0), first.stderr
    assert (quantizer.calls, cost) == (1, [1])
    release = json.loads(first.stdout)
    assert release["revision"] == json.loads(second.stdout)["revision"]
    published = Path(release["url"].removeprefix("file://"))
    manifest = json.loads((published / "deploytk.json").read_text())
    assert manifest["model"]["quantized_by"]["tool"] == "lmdeploy"
    assert manifest["name"] == "hf-fp16-awq"
    card = (published / "README.md").read_text()
    assert "perplexity 5.000 → 5.200" in card


def test_what_costs_too_much_is_not_published(tmp_path: Path, cost: list[int]) -> None:
    hub = tmp_path / "hub"
    line = ["publish", TINY, "--quantize", "awq", "--target", "local", "--repo", str(hub), "--max-ppl-increase", "1"]

    first, second = run(*line), run(*line)

    assert (first.code, second.code, hub.exists()) == (3, 3, False)
    assert "nothing is published" in first.stderr


def test_options_of_quantizing_without_it_and_a_bundle_with_it_are_bad_usage(tmp_path: Path) -> None:
    to = ["--target", "local", "--repo", str(tmp_path / "hub")]
    alone = run("publish", TINY, *to, "--calib", "none")
    run("package", str(MODELS / "hf-awq"), "-o", str(tmp_path / "bundle"), "-q")
    bundle = run("publish", str(tmp_path / "bundle"), *to, "--quantize", "awq")

    assert (alone.code, "--calib does nothing here" in alone.stderr) == (2, True)
    assert (bundle.code, "--quantize does nothing here" in bundle.stderr) == (2, True), bundle.stderr


def test_the_card_says_in_both_languages_how_it_was_quantized_and_what_figures_do_not_show(
    tmp_path: Path, cost: list[int]
) -> None:
    run("quantize", TINY, "-o", str(tmp_path / "made"), *QUICK)
    artifact = read_artifact(tmp_path / "made")

    plan = plan_serving(artifact, PlanRequest(gpu="T4", model_name="made"))
    cards = render_card(artifact, plan, BundleOptions("made"))

    english, chinese = cards["README.md"], cards["README_zh.md"]
    assert "the texts of deploytk, 4 × 64 tokens, sha256:" in english
    assert "7 of 8 known answers, 8 before; says nothing of long answers" in english
    assert "已知答案 7/8，量化前 8；不说明长回答" in chinese
    assert not any(claim in english.lower() for claim in ("no loss", "lossless", "without loss"))
