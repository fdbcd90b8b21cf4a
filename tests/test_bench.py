"""The matrix, the rows, and what is recommended; and a whole bench on the CPU."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from commands import run
from conftest import MODELS
from test_smoke_report import EVIDENCE, GPU, IDENTITY, VRAM

from deploytk.base.errors import PlanError, UsageError
from deploytk.base.json import plain
from deploytk.base.progress import Silent
from deploytk.bench import (
    BenchOptions,
    Matrix,
    Result,
    Row,
    best_report,
    engines,
    make_matrix,
    parse_slo,
    read_matrix,
    read_result,
    recommend,
    run_bench,
)
from deploytk.bench import run as bench_run
from deploytk.bench.compare import Change, Comparison, MemoryChange
from deploytk.bench.matrix import Load, expand
from deploytk.bench.report import markdown, write_results
from deploytk.bench.sections import tables
from deploytk.bench.table import to_row
from deploytk.bundle import measured_in
from deploytk.display import show_bench, show_comparison
from deploytk.hardware.catalogue import Gpu, find_gpu
from deploytk.plan import DecodeBound, PlanRequest
from deploytk.smoke import Budget, judge, write_raw

ROW = Row(
    model="internlm",
    weights="fp16",
    engine="turbomind",
    kv_policy="none",
    input_tokens=128,
    output_tokens=256,
    concurrency=1,
    repetitions=3,
    output_tps=190.0,
    output_tps_ci95=(189.0, 191.0),
    decode_tps=193.0,
    chars_per_s=700.0,
    ttft_ms=12.8,
    tpot_ms=5.2,
    seconds=1.3,
    load_s=15.0,
    vram_mib=15500.0,
    vram_peak_mib=16300.0,
    weights_mib=13965.0,
    kv_pool_mib=269.0,
    overhead_mib=1266.0,
    planned_mib=15513.0,
    planned_error_pct=0.1,
    doubts=(),
)
W4 = replace(
    ROW, weights="awq 4 bit", output_tps=139.0, output_tps_ci95=(138.0, 140.0), decode_tps=141.0, vram_peak_mib=8889.0
)


def test_loads_are_all_combinations() -> None:
    matrix = Matrix(concurrency=(1, 8), input_tokens=(64, 128), output_tokens=(32,))

    assert matrix.loads() == (Load(64, 32, 1), Load(64, 32, 8), Load(128, 32, 1), Load(128, 32, 8))
    assert matrix.tokens_per_session == 256  # 128 + 32 + 64 of slack = 224, in whole blocks of 64


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"engines": ["vllm"]}, "engines"),
        ({"concurrency": [0]}, "--concurrency: 0 is less than 1"),
        ({"engines": ["foo"]}, r"--engines: 'foo' is not one of turbomind, pytorch, huggingface, cpu"),
        ({"concurrency": ["x"]}, "--concurrency: 'x' is not a whole number"),
        ({"concurrency": []}, "empty"),
        ({"concurrency": ["many"]}, "concurrency"),
        ({"kv": ["int2"]}, "kv"),
        ({"colour": 1}, "colour"),
        ({"session_len": 100, "input_tokens": [64], "output_tokens": [64]}, "shorter"),
    ],
)
def test_a_matrix_that_makes_no_sense_is_refused(values: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make_matrix(values)


def test_a_matrix_comes_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "matrix.toml").write_text('engines = ["cpu"]\nconcurrency = [1, 4]\n')

    matrix = make_matrix(read_matrix(tmp_path / "matrix.toml") | {"concurrency": ("2",)})

    assert (matrix.engines, matrix.concurrency) == (("cpu",), (2,))


def test_what_is_not_possible_is_named_with_its_reason() -> None:
    matrix = Matrix(engines=("turbomind", "huggingface", "cpu"), kv=("none", "int8"))

    deployments, skipped = expand([MODELS / "hf-awq"], matrix)

    assert [deployment.name for deployment in deployments] == ["hf-awq.cpu.kv-none"]
    reasons = {one.name: one.reason for one in skipped}
    assert "no GPU is here" in reasons["hf-awq.turbomind.kv-none"]
    assert "dequantized" in reasons["hf-awq.huggingface.kv-none"]
    assert "does not quantize" in reasons["hf-awq.cpu.kv-int8"]


def test_a_bench_that_can_measure_nothing_has_failed_and_says_why(tmp_path: Path) -> None:
    asked = BenchOptions(Matrix(engines=("huggingface", "cpu"), kv=("int8",)))

    with pytest.raises(PlanError, match=r"nothing can be measured: .*needs quanto.*; .*does not quantize"):
        run_bench([MODELS / "hf-fp16"], asked, tmp_path / "out", Silent())

    assert not (tmp_path / "out").exists()


def test_the_whole_matrix_can_be_shared_among_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lmdeploy").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    here = tuple(replace(find_gpu("H100"), is_here=True) for _ in range(2))
    request = PlanRequest(here=here, tensor_parallel=2, cache_max_entry_count=0.25)

    deployments, skipped = expand([MODELS / "hf-fp16"], Matrix(engines=("turbomind", "cpu")), request)

    (found,) = deployments
    assert found.plan is not None
    assert (found.plan.tensor_parallel, found.plan.cache_max_entry_count) == (2, 0.25)
    assert found.name == "hf-fp16.turbomind.kv-none.tp2.pool0.25"
    assert engines._environment(found)["NCCL_WIN_ENABLE"] == "0"
    monkeypatch.setenv("NCCL_WIN_ENABLE", "1")
    assert engines._environment(found)["NCCL_WIN_ENABLE"] == "1"  # the user's word counts
    assert "does not share a model among GPUs" in skipped[0].reason


def test_two_models_of_one_name_are_refused(tmp_path: Path) -> None:
    shutil.copytree(MODELS / "hf-fp16", tmp_path / "hf-awq")

    with pytest.raises(UsageError, match="two models are called hf-awq"):
        expand([MODELS / "hf-awq", tmp_path / "hf-awq"], Matrix(engines=("cpu",)))


def test_the_fastest_is_recommended_even_where_it_is_not_quantized() -> None:
    found = recommend([ROW, W4], find_gpu("H200"), "latency")

    assert found is not None
    assert (found.weights, found.tokens_per_s) == ("fp16", 193)
    assert "141 (-27%)" in found.reason  # 141 / 193 - 1 = -26.9 %


def test_what_does_not_fit_is_not_recommended() -> None:
    found = recommend([ROW, W4], Gpu("12G", 12 * 2**30, 0, None), "latency")

    assert found is not None
    assert found.weights == "awq 4 bit"
    assert "would not fit" in found.reason


def test_nothing_is_recommended_where_nothing_fits_or_is_sure() -> None:
    assert recommend([ROW], Gpu("4G", 4 * 2**30, 0, None), "throughput") is None
    assert recommend([replace(ROW, doubts=("a foreign process",))], None, "throughput") is None
    assert recommend([], None, "latency") is None


def test_of_two_that_cannot_be_told_apart_the_smaller_wins() -> None:
    equal = replace(W4, output_tps=189.5, output_tps_ci95=(188.0, 191.0), decode_tps=192.0)

    found = recommend([ROW, equal], None, "throughput")

    assert found is not None
    assert found.weights == "awq 4 bit"
    assert "not measurably less" in found.reason


def test_throughput_looks_at_every_concurrency_and_latency_at_the_lowest() -> None:
    crowd = replace(W4, concurrency=32, output_tps=4000.0, output_tps_ci95=None, decode_tps=125.0)

    throughput, latency = recommend([ROW, crowd], None, "throughput"), recommend([ROW, crowd], None, "latency")

    assert throughput is not None
    assert latency is not None
    assert (throughput.concurrency, latency.concurrency) == (32, 1)


def _results(out: Path) -> None:
    """Three repetitions of one cell on a GPU, the times of each a little longer."""
    (out / "cells").mkdir(parents=True)
    for repetition in range(3):
        records = tuple(replace(one, done_ns=one.done_ns + repetition * 10**7) for one in EVIDENCE.records)
        vram = replace(VRAM, ready_bytes=VRAM.ready_bytes + repetition * 2**20)
        evidence = replace(EVIDENCE, identity=replace(IDENTITY, gpu=GPU), records=records, vram=vram)
        write_raw(evidence, Budget(), out / "cells" / f"m.turbomind.kv-none.c1.i0.o128.r{repetition}.jsonl")


def test_a_row_is_the_median_of_its_repetitions(tmp_path: Path) -> None:
    _results(tmp_path)

    (row,) = read_result(tmp_path, None, "throughput").rows

    assert row.repetitions == 3
    # 12 requests of 5 tokens from 0 to 1161, 1171 and 1181 ms
    assert row.output_tps == pytest.approx(60 / 1.171)
    assert row.vram_mib == 5001  # 5500 - 500 + (0, 1, 2)
    assert row.kv_pool_mib == 1000


def test_the_best_sure_cell_goes_on_the_card(tmp_path: Path) -> None:
    _results(tmp_path)
    slow = tuple(replace(one, done_ns=one.done_ns + 10**9) for one in EVIDENCE.records)
    evidence = replace(EVIDENCE, identity=replace(IDENTITY, gpu=GPU), records=slow)
    write_raw(evidence, Budget(), tmp_path / "cells" / "m.turbomind.kv-int8.c1.i0.o128.r0.jsonl")

    measured = measured_in(plain(best_report(tmp_path, "m")), "results")

    assert measured.output_tps == pytest.approx(60 / 1.171)  # the one in the middle of the faster three
    assert (measured.gpu, measured.vram_ready_bytes) == ("NVIDIA H200", 5001 * 2**20)
    with pytest.raises(UsageError, match="no sure results of other"):
        best_report(tmp_path, "other")


def test_results_are_written_for_people_and_programs(tmp_path: Path) -> None:
    _results(tmp_path)
    result = read_result(tmp_path, find_gpu("H200"), "throughput")

    write_results(result, tmp_path, Silent())

    found = json.loads((tmp_path / "results.json").read_text())
    with (tmp_path / "results.csv").open() as file:
        (line,) = csv.DictReader(file)
    text = (tmp_path / "report.md").read_text()
    assert found["schema"] == "deploytk.bench/1"
    assert found["rows"][0]["model"] == line["model"] == "m"
    assert "| m (fp16), turbomind, KV none | 3,000 | 1,000 | 1,000 | 5,001 | - | - | 5,500 |" in text
    assert "**Recommended for throughput:**" in text


def test_plots_are_the_same_for_the_same_results(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from deploytk.bench.plots import draw

    _results(tmp_path)
    result = read_result(tmp_path, None, "throughput")

    names = draw(result, tmp_path / "plots")
    first = [(tmp_path / name).read_bytes() for name in names]
    draw(result, tmp_path / "plots")

    assert names == ["plots/vram.svg", "plots/throughput.svg", "plots/latency.svg"]
    assert [(tmp_path / name).read_bytes() for name in names] == first


def test_requests_that_failed_make_a_row_doubtful() -> None:
    broken = replace(EVIDENCE.records[0], error="the answer broke off")

    row = to_row([judge(replace(EVIDENCE, records=(broken, *EVIDENCE.records[1:])), Budget())])

    assert row.doubts == ("1 requests failed: the answer broke off",)
    assert recommend([row], None, "throughput") is None


def test_a_bench_says_how_many_cells_are_done_and_how_long_the_others_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Notes(Silent):
        def note(self, text: str) -> None:
            said.append(text)

    said: list[str] = []
    clock_s = [1000.0]
    monkeypatch.setattr(bench_run.time, "monotonic", lambda: clock_s[0])

    def measured(*_: object) -> None:
        clock_s[0] += 240.0

    monkeypatch.setattr(bench_run, "_measure", measured)
    matrix = Matrix(engines=("cpu",), concurrency=(1, 2), input_tokens=(16,), output_tokens=(8,), repetitions=3)

    run_bench([MODELS / "hf-fp16"], BenchOptions(matrix), tmp_path / "results", Notes())

    # 6 cells, two a repetition: 240 s for 2 of them, so 4 more take 8 min, and 2 more 4
    assert [line.partition(": ")[2] for line in said if "repetition" in line] == [
        "0 of 6 cells done",
        "2 of 6 cells done, about 8 min left",
        "4 of 6 cells done, about 4 min left",
    ]


@pytest.mark.engine
def test_a_bench_resumes_and_refuses_to_mix_machines(tmp_path: Path) -> None:
    matrix = Matrix(engines=("cpu",), concurrency=(1, 2), input_tokens=(16,), output_tokens=(8,), repetitions=1)
    options = BenchOptions(matrix)
    out = tmp_path / "results"

    first = run_bench([MODELS / "hf-fp16"], options, out, Silent())
    cells = {path.name: path.stat().st_mtime_ns for path in (out / "cells").iterdir()}
    next(iter((out / "cells").glob("*.c2.*"))).unlink()
    again = run_bench([MODELS / "hf-fp16"], options, out, Silent())

    assert [(row.concurrency, row.engine) for row in first.rows] == [(1, "cpu"), (2, "cpu")]
    assert all(row.output_tps and row.output_tokens == 8 for row in again.rows)
    kept = next(name for name in cells if ".c1." in name)
    assert (out / "cells" / kept).stat().st_mtime_ns == cells[kept]  # not measured again
    assert "hf-fp16" in markdown(again)
    machine = json.loads((out / "machine.json").read_text())
    (out / "machine.json").write_text(json.dumps(machine | {"gpu": ["NVIDIA A10", "535"]}))
    with pytest.raises(UsageError, match="another gpu"):
        run_bench([MODELS / "hf-fp16"], options, out, Silent())


def test_a_directory_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")

    with pytest.raises(UsageError, match="not empty"):
        run_bench([MODELS / "hf-fp16"], BenchOptions(Matrix(engines=("cpu",))), tmp_path, Silent())


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("ttft=500ms,tpot=50ms", (500, 50)),
        ("tpot = 0.05s", (None, 50)),
        ("ttft=1.5s", (1500, None)),
    ],
)
def test_objectives_are_read(text: str, limits: tuple[float | None, float | None]) -> None:
    found = parse_slo(text)

    assert (found.max_ttft_ms, found.max_tpot_ms) == limits


@pytest.mark.parametrize("text", ["", "ttft", "ttft=500", "ttft=0ms", "e2e=1s", "ttft=1s,ttft=2s", "ttft=1s;tpot=1s"])
def test_what_is_no_objective_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_slo(text)


def test_goodput_is_what_kept_the_objectives(tmp_path: Path) -> None:
    _results(tmp_path)

    (kept,) = read_result(tmp_path, None, "throughput", parse_slo("ttft=20ms,tpot=10ms")).rows
    (missed,) = read_result(tmp_path, None, "throughput", parse_slo("ttft=20ms,tpot=9ms")).rows
    result = read_result(tmp_path, None, "throughput")

    # 12 requests of 20 ms to the first token and 10 per token, in 1161, 1171 and 1181 ms
    assert (kept.goodput_rps, kept.goodput_fraction) == (pytest.approx(12 / 1.171), 1)
    assert (missed.goodput_rps, missed.goodput_fraction) == (0, 0)
    assert (result.rows[0].goodput_rps, result.slo) == (None, "")


def test_one_stream_is_compared_with_what_the_memory_allows() -> None:
    # 10 GB/s: 8 MB of weights and 80 kB of KV cache per token. Each request has 50 tokens of input and 5 of output,
    # so 52.5 on average while it decodes: 10e9 / (8e6 + 52.5 * 80e3) = 819.7 tokens/s; 100 were measured.
    bound = DecodeBound(1250.0, 600.0, 8_000_000, 80_000, 10)

    row = to_row([judge(replace(EVIDENCE, bound=bound), Budget())])
    crowd = to_row(
        [judge(replace(EVIDENCE, bound=bound, workload=replace(EVIDENCE.workload, concurrency=2)), Budget())]
    )

    assert row.bound_share == pytest.approx(100 / 819.67, rel=1e-4)
    assert (row.bound_tps, crowd.bound_share) == (1250, None)


def _rows() -> tuple[Row, ...]:
    """Long names and large figures, with everything that a row can have."""
    full = replace(
        ROW,
        model="internlm2_5-20b-chat-with-a-long-name",
        output_tps=123456.7,
        output_tps_ci95=(123000.0, 124000.0),
        chars_per_s=3301234.5,
        gpus=2,
        bound_share=0.81,
        goodput_rps=1234.5,
        goodput_fraction=0.97,
        kv_pool_mib=123456.0,
    )
    return full, replace(W4, concurrency=32), ROW


@pytest.mark.parametrize("width", [40, 80, 100, 200])
def test_no_figure_is_cut_however_narrow_the_terminal_is(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    result = Result(Path(), IDENTITY, _rows(), None, slo="TTFT up to 500 ms")

    show_bench(result)

    shown = capsys.readouterr().out
    words = set(shown.split())
    figures = [cell for table in tables(result.rows) for row in table.rows for cell in row[1:]]
    assert "…" not in shown
    assert [cell for cell in figures if not set(cell.split()) <= words] == []
    if width >= 80:
        assert max(map(len, shown.splitlines())) <= width


@pytest.mark.parametrize("width", [60, 80])
def test_a_comparison_is_not_cut(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    cell = "internlm2_5-20b-chat-4bits.turbomind.kv-none.tp2.c32.i8192.o1024"
    changes = (Change(cell, "ttft_ms", 5, 1.2345, 1.1111, 1.3333, "inconclusive"),)

    show_comparison(Comparison("inconclusive", 4, changes, (MemoryChange(cell, -12345.6, is_more=False),), (), (), ()))

    shown = capsys.readouterr().out
    assert "…" not in shown
    assert all(figure in shown for figure in (cell, "1.234", "1.111 to 1.333", "inconclusive", "-12,346 MiB"))


def test_report_computes_figures_again(tmp_path: Path) -> None:
    write_raw(EVIDENCE, Budget(max_ttft_ms=19), tmp_path / "raw.jsonl")

    done = run("report", str(tmp_path / "raw.jsonl"), "--json")

    assert done.code == 0
    assert json.loads(done.stdout)["latency"]["ttft_ms"]["p50"] == 20


@pytest.mark.parametrize("name", ["missing.json", "empty.json", "empty.jsonl", "directory"])
def test_what_is_no_report_is_refused_in_two_lines(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty.json").write_text("{}")
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "directory").mkdir()

    done = run("report", str(tmp_path / name))

    assert done.code == 2
    assert [line.split(":")[0].strip() for line in done.stderr.splitlines()] == ["error", "hint"]
