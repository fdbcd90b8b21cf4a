"""What 4 bits cost, as the model's record says it, in the reports of `smoke` and `bench`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import MODELS
from quantizers import Stub, quantizer
from test_smoke_report import EVIDENCE, IDENTITY, VRAM

from deploytk.artifact import CalibrationData, QuantizationCost, QuantizedBy, read_artifact
from deploytk.base.progress import Silent
from deploytk.bench import Result, read_result
from deploytk.bench.report import markdown, write_results
from deploytk.bench.sections import costs, remarks
from deploytk.bundle import BundleOptions, carried_manifest, render_bundle
from deploytk.hardware.catalogue import MIB
from deploytk.plan import PlanRequest, plan_serving
from deploytk.quantize import QuantizeOptions, quantize
from deploytk.smoke import Budget, Evidence, judge, write_raw, write_report
from deploytk.smoke.render import markdown as report_markdown
from deploytk.smoke.render import read_any

__all__ = ["quantizer"]  # a fixture

TINY = MODELS / "hf-fp16"
# 5.2 / 5 is 4 % more.
COST = QuantizationCost("deploytk", f"sha256:{'0' * 64}", 2, 2048, 5.0, 5.2, 0.0123, 0.954, 8, 8, 7)
BY = QuantizedBy(
    "awq",
    "lmdeploy",
    "0.18.0",
    "0.1.0",
    ("search-scale", "device cuda"),
    "float16",
    CalibrationData("deploytk", f"sha256:{'1' * 64}", 32, 2048),
    COST,
    created="2026-11-27T10:00:00+00:00",
    source="internlm",
)


def _said(by: QuantizedBy | None) -> str:
    """The Markdown of a report, without the signs that keep it in its cells."""
    evidence = replace(EVIDENCE, identity=replace(IDENTITY, weights="awq 4 bit", quantized_by=by))
    return report_markdown(judge(evidence, Budget())).replace("\\", "")


def test_a_smoke_report_says_what_4_bits_cost_when_and_what_that_does_not_show() -> None:
    said = _said(BY)

    assert "| quantized by | lmdeploy 0.18.0 (awq, search-scale, device cuda), 2026-11-27 |" in said
    assert "perplexity 5.000 → 5.200 (+4.00 %), KL 0.0123 nats, 95.4% of likeliest tokens the same" in said
    assert "on 2 × 2048 tokens; 7 of 8 known answers, 8 before" in said
    assert "measured when it was quantized, not here; says nothing about long answers" in said


def test_a_cost_that_was_not_measured_is_said_and_nothing_where_there_is_no_record() -> None:
    assert "| cost of 4 bits | not measured: compare its answers with the original's |" in _said(
        replace(BY, cost=None, created=None)
    )
    assert "quantized by" not in _said(None)
    assert "cost of 4 bits" not in _said(None)


@pytest.mark.parametrize("name", ["report.json", "report.html", "raw.jsonl"])
def test_every_form_of_a_report_has_it(tmp_path: Path, name: str) -> None:
    evidence = replace(EVIDENCE, identity=replace(IDENTITY, quantized_by=BY))
    path = tmp_path / name
    if name == "raw.jsonl":
        write_raw(evidence, Budget(), path)
    else:
        write_report(judge(evidence, Budget()), path)

    if name == "report.html":
        assert "not here; says nothing about long answers" in path.read_text()
        assert "2026-11-27" in path.read_text()
    else:
        assert read_any(path).identity.quantized_by == BY


def test_a_report_of_a_model_served_from_a_bundle_or_an_image_has_the_record(tmp_path: Path, quantizer: Stub) -> None:
    quantize(read_artifact(TINY), tmp_path / "made", QuantizeOptions(samples=4, seqlen=64, measures=False), Silent())
    artifact = read_artifact(tmp_path / "made")
    plan = plan_serving(artifact, PlanRequest())
    render_bundle(artifact, plan, BundleOptions("made"), tmp_path / "bundle", Silent())

    manifest = carried_manifest((tmp_path / "bundle" / "deploytk.json").read_bytes())

    assert manifest is not None
    assert manifest.model.quantized_by == artifact.quantized_by
    assert manifest.model.quantized_by is not None
    assert manifest.model.quantized_by.source == "hf-fp16"
    assert carried_manifest(b"[]") is None


def test_a_record_of_before_it_had_a_date_is_read(tmp_path: Path, quantizer: Stub) -> None:
    quantize(read_artifact(TINY), tmp_path / "made", QuantizeOptions(samples=4, seqlen=64, measures=False), Silent())
    path = tmp_path / "made" / "deploytk_quantization.json"
    record = json.loads(path.read_text())
    assert record["quantized_by"].pop("created").endswith("+00:00")
    assert record["quantized_by"].pop("source") == "hf-fp16"
    path.write_text(json.dumps(record))

    found = read_artifact(tmp_path / "made").quantized_by

    assert found is not None
    assert (found.created, found.source) == (None, None)


def test_names_that_a_record_cannot_have_are_kept_as_far_as_they_can(tmp_path: Path, quantizer: Stub) -> None:
    texts = tmp_path / "texts (v2) [中文].txt"
    texts.write_text("a text of mine " * 100)
    options = QuantizeOptions(calibration=str(texts), samples=4, seqlen=64, measures=False)

    quantize(read_artifact(TINY), tmp_path / "made", options, Silent())

    found = read_artifact(tmp_path / "made").quantized_by
    assert found is not None
    assert found.calibration.name == "texts -v2- -中文-.txt"


def _cell(out: Path, model: str, weights: str, by: QuantizedBy | None, ready_mib: int, file: str) -> None:
    vram = replace(VRAM, ready_bytes=ready_mib * MIB, baseline_bytes=0)
    identity = replace(IDENTITY, model=model, weights=weights, quantized_by=by)
    evidence: Evidence = replace(EVIDENCE, kind="bench", identity=identity, vram=vram)
    write_raw(evidence, Budget(), out / "cells" / f"{file}.r0.jsonl")


def _bench(out: Path, *more: tuple[str, str, QuantizedBy | None, int]) -> Result:
    """Of a model in 16 bits and what 4 bits of it, and of others."""
    (out / "cells").mkdir()
    cells = [("internlm", "fp16", None, 16000), *more]
    for number, (model, weights, by, ready_mib) in enumerate(cells):
        _cell(out, model, weights, by, ready_mib, f"{model}.turbomind.kv-none.c1.i0.o{number}")
    return read_result(out, None, "throughput")


def test_bench_says_speed_memory_and_loss_of_before_and_after_in_one_table(tmp_path: Path) -> None:
    result = _bench(tmp_path, ("mine-awq", "awq 4 bit", BY, 8000))

    [table] = costs(result.before_after)
    [line] = table.rows
    found = dict(zip(table.columns, line, strict=True))
    assert found["before and after"] == (
        "internlm (fp16), turbomind, KV none → mine-awq (awq 4 bit), turbomind, KV none"
    )
    assert found["VRAM, MiB"] == "16,000 → 8,000 (-50 %)"
    # Both have the same raw data: 12 answers of 5 tokens in 1.161 s, 51.7 tokens/s.
    assert found["tokens/s"] == "51.7 → 51.7 (+0 %)"
    assert (found["perplexity"], found["KL, nats"]) == ("5.000 → 5.200 (+4.00 %)", "0.0123")
    assert (found["same token"], found["known answers"]) == ("95.4%", "8 → 7 of 8")
    assert "measured when it was quantized (2026-11-27), not here" in dict(remarks(result))["Before and after"]
    write_results(result, tmp_path, Silent())
    assert "## Before and after quantization" in markdown(result)
    assert "Before and after quantization" in (tmp_path / "report.html").read_text()
    [pair] = json.loads((tmp_path / "results.json").read_text())["before_after"]
    assert (pair["vram_mib"], pair["quantized_by"]["cost"]["golden_after"]) == ({"before": 16000, "after": 8000}, 7)


def test_a_quantized_model_is_set_beside_the_one_it_was_made_of(tmp_path: Path) -> None:
    other = ("other", "fp16", None, 9000)
    stranger = ("stranger", "awq 4 bit", replace(BY, source="away"), 5000)
    unsaid = ("unsaid", "awq 4 bit", None, 5000)

    result = _bench(tmp_path, other, ("mine-awq", "awq 4 bit", BY, 8000), stranger, unsaid)

    # Two models in 16 bits: without a record nobody knows which of them it was.
    assert [(pair.before.split()[0], pair.after.split()[0]) for pair in result.before_after] == [
        ("internlm", "mine-awq")
    ]


def test_without_a_record_the_only_model_in_16_bits_is_the_one_before(tmp_path: Path) -> None:
    result = _bench(tmp_path, ("by-hand", "awq 4 bit", None, 8000))

    [table] = costs(result.before_after)
    assert table.columns[-1] == "VRAM, MiB"
    assert "was not recorded" in dict(remarks(result))["Before and after"]
