"""One row per cell, out of the raw data of its repetitions."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deploytk.base.digits import whole_number
from deploytk.base.errors import UsageError
from deploytk.bench.before_after import BeforeAfter, before_and_after
from deploytk.bench.cells import read_judged_cells
from deploytk.bench.matrix import Skipped
from deploytk.bench.recommend import Recommendation, Row, recommend
from deploytk.bench.slo import in_words
from deploytk.hardware.catalogue import MIB, Gpu
from deploytk.smoke import Budget, Report, judge
from deploytk.smoke.report import Identity
from deploytk.smoke.statistics import mean_interval

_LEAST_REPETITIONS = 3  # of two, the interval is wider than anything it could tell


@dataclass(frozen=True, slots=True)
class Failed:
    """A deployment that did not start or did not last."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Result:
    """What a directory of results holds."""

    path: Path
    identity: Identity | None  # of the first cell: machine, GPU, versions; None when there is none
    rows: tuple[Row, ...]
    recommendation: Recommendation | None  # None when nothing that was measured fits
    skipped: tuple[Skipped, ...] = ()
    failed: tuple[Failed, ...] = ()
    before_after: tuple[BeforeAfter, ...] = ()  # quantized models beside those that they were made of
    slo: str = ""  # what goodput counts, in words; "" without objectives, and where cells had different ones


def read_reports(out: Path, slo: Budget | None = None) -> dict[str, list[Report]]:
    """Cell -> reports of its repetitions, computed from the raw data; raises UsageError where there are none.

    Goodput is by `slo`, or else by the objectives that were measured with.
    """
    return {
        cell: [judge(one, slo or kept) for one, kept in found.values()]
        for cell, found in read_judged_cells(out).items()
    }


def best_report(out: Path, model: str) -> Report:
    """Of the cells of `model` in `out`, the one with most tokens per second and no doubts: its middle repetition.

    Raises UsageError when there is none: a card shows figures that can be believed.
    """
    cells = [reports for reports in read_reports(out).values() if reports[0].identity.model == model]
    good = [reports for reports in cells if not to_row(reports).doubts and to_row(reports).output_tps is not None]
    if not good:
        raise UsageError(f"{out} holds no sure results of {model}", hint="measure it with: deploytk bench MODEL -o DIR")
    best = max(good, key=lambda reports: to_row(reports).output_tps or 0.0)
    return sorted(best, key=lambda report: report.throughput.output_tps or 0.0)[len(best) // 2]


def read_result(
    out: Path, gpu: Gpu | None, objective: Literal["throughput", "latency"], slo: Budget | None = None
) -> Result:
    """The rows of `out`, and what they recommend for `gpu`; raises UsageError where there are none."""
    reports = read_reports(out, slo)
    cells = sorted(((to_row(cell), cell) for cell in reports.values()), key=lambda found: _order(found[0]))
    rows = tuple(row for row, _ in cells)
    identity = next(iter(reports.values()))[0].identity
    measured_on = identity.gpu.name if identity.gpu else ""
    recommended = recommend(rows, gpu, objective, measured_on)
    return Result(out, identity, rows, recommended, before_after=before_and_after(cells), slo=_slo(reports))


def _slo(reports: Mapping[str, Sequence[Report]]) -> str:
    said = {in_words(report.budget) for cell in reports.values() for report in cell}
    return said.pop() if len(said) == 1 else ""


def to_row(reports: Sequence[Report]) -> Row:
    """The medians over the repetitions of one cell."""
    first, identity = reports[0], reports[0].identity
    speeds = [report.throughput.output_tps for report in reports if report.throughput.output_tps is not None]
    vram = [report.vram for report in reports if report.vram]
    predicted = [one.predicted for one in vram if one.predicted]
    doubts = dict.fromkeys(doubt for report in reports for doubt in report.verdict.inconclusive)
    failed = sum(report.counts.failed for report in reports)
    if failed:
        doubts[f"{failed} requests failed: {', '.join(reports[0].counts.errors)}"] = None
    return Row(
        model=identity.model,
        weights=identity.weights or "",
        engine=identity.engine or "",
        kv_policy=identity.kv_policy or "none",
        input_tokens=first.workload.input_tokens or 0,
        output_tokens=first.workload.output_tokens,
        concurrency=first.workload.concurrency,
        repetitions=len(reports),
        output_tps=_median(speeds),
        output_tps_ci95=mean_interval(speeds) if len(speeds) >= _LEAST_REPETITIONS else None,
        decode_tps=_median(report.throughput.decode_tps_p50 for report in reports),
        chars_per_s=_median(report.throughput.chars_per_s for report in reports),
        ttft_ms=_median(report.latency.ttft_ms.p50 for report in reports),
        tpot_ms=_median(report.latency.tpot_ms.p50 for report in reports),
        seconds=_median(report.latency.e2e_ms.p50 and report.latency.e2e_ms.p50 / 1000 for report in reports),
        load_s=_median(report.load_s for report in reports),
        vram_mib=_mib(one.ready_of_ours for one in vram),
        vram_peak_mib=_mib(one.peak_of_ours for one in vram),
        weights_mib=_mib(one.components.weights_bytes for one in vram),
        kv_pool_mib=_mib(one.components.kv_pool_bytes for one in vram),
        overhead_mib=_mib(one.components.overhead_bytes for one in vram),
        planned_mib=_mib(one.total_bytes for one in predicted),
        planned_error_pct=_median(one.error_pct for one in predicted),
        doubts=tuple(doubts),
        gpus=_ranks(identity),
        bound_tps=_median(report.bound.tokens_per_s for report in reports if report.bound),
        bound_share=_median(report.bound_share for report in reports),
        goodput_rps=_median(report.throughput.goodput_rps for report in reports),
        goodput_fraction=_median(report.throughput.goodput_fraction for report in reports),
    )


def _ranks(identity: Identity) -> int:
    return whole_number(identity.settings.get("tensor_parallel")) or 1


def _order(row: Row) -> tuple[object, ...]:
    engines = ("turbomind", "pytorch", "huggingface", "cpu")
    kv = ("none", "int8", "int4")
    place = engines.index(row.engine) if row.engine in engines else len(engines)
    return (row.input_tokens, row.output_tokens, row.concurrency, place, row.model, kv.index(row.kv_policy))


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _mib(values: Iterable[int | None]) -> float | None:
    middle = _median(values)
    return middle / MIB if middle is not None else None
