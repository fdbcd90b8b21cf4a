"""Measured figures on the model card: taken from a smoke report, in both languages, for readers and for hubs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from bundles import make_bundle
from conftest import MODELS

from deploytk.base.errors import UsageError
from deploytk.bench import Result, Row
from deploytk.bundle import Bundle, BundleOptions, measured_in, read_measured

Report = dict[str, Any]


def _report() -> Report:
    """As `deploytk smoke -o report.json` writes it, with the keys that a card needs."""
    return {
        "schema": "deploytk.report/1",
        "created": "2026-11-23T15:50:51+00:00",
        "verdict": {"status": "pass"},
        "identity": {
            "deploytk": "0.1.0",
            "engine": "turbomind",
            "lmdeploy": "0.18.0",
            "kv_policy": "int8",
            "gpu": {"name": "NVIDIA H200", "driver": "580.1"},
        },
        "vram": {"ready_bytes": 3 * 2**30, "peak_bytes": 4 * 2**30, "baseline_bytes": 2**30},
        "workload": {"requests": 30, "output_tokens": 128, "concurrency": 8},
        "latency": {"ttft_ms": {"p50": 12.345, "p95": 45.6}, "tpot_ms": {"p50": 7.0}},
        "throughput": {"output_tps": 1234.5, "decode_tps_p50": 142.9},
        "correctness": [{"status": "pass"}, {"status": "warn"}, {"status": "not run"}],
    }


def _packaged(report: Report, place: Path) -> Bundle:
    (place / "report.json").write_text(json.dumps(report))
    options = BundleOptions(name="tiny", license="mit", measured=read_measured(place / "report.json"))
    return make_bundle(MODELS / "hf-awq", place / "bundle", options)


def test_the_figures_are_in_the_tables_of_both_languages(tmp_path: Path) -> None:
    bundle = _packaged(_report(), tmp_path)

    english = (bundle.path / "README.md").read_text()
    chinese = (bundle.path / "README_zh.md").read_text()
    assert "| Time to first token, median | 12.3 ms |" in english
    assert "| GPU memory in use when ready | 2,048 MiB |" in english  # 3 GiB, of which 1 was in use before
    assert "| Checks of the answers passed | 1 of 1, 1 more not run |" in english  # a warning fails nothing
    assert "| 通过的回答检查 | 1 / 1，另有 1 项未运行 |" in chinese
    assert "30 requests of at most 128 tokens, 8 at once" in english
    assert "| 全部请求每秒输出 token 数 | 1,234 |" in chinese
    assert "KV 缓存 int8" in chinese


def test_hubs_find_the_figures_in_the_model_index(tmp_path: Path) -> None:
    bundle = _packaged(_report(), tmp_path)

    front = yaml.safe_load((bundle.path / "README.md").read_text().split("---\n")[1])
    results = front["model-index"][0]["results"][0]
    assert front["model-index"][0]["name"] == "tiny"
    assert results["task"] == {"type": "text-generation"}
    assert {metric["type"]: metric["value"] for metric in results["metrics"]} == {
        "ttft_p50_ms": 12.345,
        "ttft_p95_ms": 45.6,
        "tpot_p50_ms": 7.0,
        "output_tps": 1234.5,
        "vram_ready_mib": 2048.0,
        "vram_peak_mib": 3072.0,
    }


def test_the_hubs_own_reader_takes_the_model_index(tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    card = ModelCard.load(_packaged(_report(), tmp_path).path / "README.md")

    assert [result.metric_type for result in card.data.eval_results][:1] == ["ttft_p50_ms"]


def test_the_same_report_gives_the_same_bundle(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()

    assert _packaged(_report(), tmp_path / "a").digest == _packaged(_report(), tmp_path / "b").digest


def test_figures_that_were_not_measured_are_left_out(tmp_path: Path) -> None:
    report = _report() | {"vram": None, "correctness": []}
    report["identity"] |= {"gpu": None, "lmdeploy": None}
    report["latency"]["tpot_ms"]["p50"] = None

    text = (_packaged(report, tmp_path).path / "README.md").read_text()

    assert "On CPU, engine turbomind" in text
    assert "GPU memory in use" not in text
    assert "Time per output token" not in text


def test_nothing_in_a_report_is_markup(tmp_path: Path) -> None:
    report = _report()
    report["identity"]["gpu"]["name"] = "<script>|x|\n# Title [a](b)"
    report["created"] = "<b>2026-1"

    text = (_packaged(report, tmp_path).path / "README.md").read_text().split("---\n", 2)[2]

    assert "<script>" not in text
    assert "<b>" not in text
    assert "\n# Title" not in text


def _set(*path: str, value: Any) -> Callable[[Report], None]:
    def change(report: Report) -> None:
        for key in path[:-1]:
            report = report[key]
        report[path[-1]] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        _set("schema", value="other/1"),
        _set("latency", value=None),
        _set("latency", "ttft_ms", "p50", value="fast"),
        _set("latency", "ttft_ms", "p50", value=-1),
        _set("throughput", "output_tps", value=float("inf")),
        _set("identity", "lmdeploy", value="\ud800"),
        _set("workload", "requests", value="many"),
        _set("verdict", "status", value="fail"),
    ],
)
def test_what_is_no_report_of_a_good_smoke_test_is_refused(tmp_path: Path, change: Callable[[Report], None]) -> None:
    report = _report()
    change(report)
    (tmp_path / "report.json").write_text(json.dumps(report))

    with pytest.raises(UsageError) as caught:
        read_measured(tmp_path / "report.json")
    assert caught.value.hint


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "[" * 100_000])
def test_a_file_that_is_no_report_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "report.json").write_text(text)

    with pytest.raises(UsageError, match="is no report"):
        read_measured(tmp_path / "report.json")


SPREAD = {"min": 9.0, "p50": 12.345, "p95": 45.6, "max": 60.0}


def test_a_chart_is_on_the_card_with_its_figures_in_words(tmp_path: Path) -> None:
    from deploytk.bench.card_chart import chart_of_report  # matplotlib

    chart = chart_of_report({"latency": {"ttft_ms": SPREAD, "tpot_ms": {"p50": 7.0}}})
    assert chart
    measured = dataclasses.replace(measured_in(_report(), "it"), chart=chart)
    options = BundleOptions(name="tiny", license="mit", measured=measured)

    with_chart = make_bundle(MODELS / "hf-awq", tmp_path / "with", options)
    again = make_bundle(MODELS / "hf-awq", tmp_path / "again", options)
    without = make_bundle(MODELS / "hf-awq", tmp_path / "with", dataclasses.replace(options, measured=None))

    assert with_chart.digest == again.digest
    assert {file.path: file.kind for file in again.files}["measured.png"] == "card"
    assert (again.path / "measured.png").read_bytes().startswith(b"\x89PNG")
    for card in ("README.md", "README_zh.md"):
        [image] = [line for line in (again.path / card).read_text().splitlines() if line.startswith("![")]
        assert image.endswith("](measured.png)")
        assert "time to first token, ms: 9.0 / 12.3 / 45.6 / 60.0" in image
        assert "time per output token" not in image  # of which least and most are not known
    assert not (without.path / "measured.png").exists()


def test_a_chart_of_a_bench_shows_what_is_beyond_doubt(tmp_path: Path) -> None:
    from deploytk.bench.card_chart import chart_of_bench

    rows = (*_rows("awq", 1, 8), *_rows("awq", 1, 8, kv_policy="int4"), *_rows("fp16", 1, 8), *_rows("lone", 1))
    doubted = dataclasses.replace(rows[0], kv_policy="int8", doubts=("another process used the GPU",))

    chart = chart_of_bench(Result(tmp_path, None, (*rows, doubted), None), "awq")

    assert chart
    assert chart.figures == (
        "awq (awq 4 bit), turbomind, KV none: 1 × → 100.0 tokens/s, 8 × → 800.0 tokens/s",
        "awq (awq 4 bit), turbomind, KV int4: 1 × → 100.0 tokens/s, 8 × → 800.0 tokens/s",
        "fp16 (awq 4 bit), turbomind, KV none: 1 × → 100.0 tokens/s, 8 × → 800.0 tokens/s",
    )
    assert chart_of_bench(Result(tmp_path, None, _rows("lone", 1), None), "lone") is None


def _rows(model: str, *loads: int, kv_policy: str = "none") -> tuple[Row, ...]:
    """A row per load, 100 tokens per second for every request at once."""
    empty = dict.fromkeys((field.name for field in dataclasses.fields(Row)), None)
    known = {"model": model, "weights": "awq 4 bit", "engine": "turbomind", "kv_policy": kv_policy, "doubts": ()}
    known |= {"input_tokens": 128, "output_tokens": 128, "repetitions": 3, "ttft_ms": 10.0}
    return tuple(Row(**empty | known | {"concurrency": load, "output_tps": 100.0 * load}) for load in loads)  # type: ignore[arg-type]
