"""Writes the results of a bench: JSON, CSV, Markdown, and plots where matplotlib is installed."""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
import io
from collections.abc import Sequence
from pathlib import Path

from deploytk.base.files import write_text
from deploytk.base.json import plain, shown, to_json
from deploytk.base.progress import Progress
from deploytk.bench.recommend import Row
from deploytk.bench.table import Result

SCHEMA = "deploytk.bench/1"


def write_results(result: Result, out: Path, progress: Progress) -> None:
    """results.json, results.csv, report.md and, with matplotlib, plots/*.svg below `out`."""
    fields = {"schema": SCHEMA, **{name: value for name, value in _fields(result).items() if name != "path"}}
    write_text(out / "results.json", to_json(fields, indent=1) + "\n")
    write_text(out / "results.csv", _csv(result.rows))
    plots: list[str] = []
    if not result.rows:
        pass
    elif importlib.util.find_spec("matplotlib") is None:
        progress.note("no plots: pip install 'deploytk[bench]' for matplotlib")
    else:
        from deploytk.bench.plots import draw

        plots = draw(result, out / "plots")
    write_text(out / "report.md", markdown(result, plots))


def markdown(result: Result, plots: Sequence[str] = ()) -> str:
    """Recommendation, the table of memory, the table of speed, and what was left out."""
    lines = ["# Benchmark", "", *_head(result)]
    if result.recommendation:
        lines += [f"**Recommended for {result.recommendation.objective}:** {result.recommendation.reason}", ""]
    elif result.rows:
        lines += ["Nothing is recommended: no row is both beyond doubt and small enough for the GPU.", ""]
    lines += _memory(result.rows) + _speed(result.rows)
    lines += [f"![{Path(plot).stem}]({plot})" for plot in plots] + [""] * bool(plots)
    for title, items in (("Not possible", result.skipped), ("Failed", result.failed)):
        if items:
            lines += [f"## {title}", "", *(f"- {item.name}: {' '.join(item.reason.split())}" for item in items), ""]
    doubted = [row for row in result.rows if row.doubts]
    if doubted:
        lines += ["## Not to be relied on", ""]
        lines += [f"- {row.setting}, {row.concurrency} at once: {'; '.join(row.doubts)}" for row in doubted] + [""]
    return "\n".join(lines)


def _head(result: Result) -> list[str]:
    identity = result.identity
    if identity is None:
        return []
    where = f"{identity.gpu.name}, driver {identity.gpu.driver}" if identity.gpu else identity.client.cpu
    server = f", LMDeploy {identity.lmdeploy}" if identity.lmdeploy else ""
    counts = sorted({row.repetitions for row in result.rows})
    repetitions = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return [f"{where}{server}, deploytk {identity.deploytk}; medians of {repetitions} repetition(s).", ""]


def _memory(rows: Sequence[Row]) -> list[str]:
    """One line per deployment: what it takes, split, against the plan."""
    measured = [row for row in rows if row.vram_mib is not None]
    if not measured:
        return []
    first = {row.setting: row for row in reversed(measured)}
    lines = ["## VRAM, MiB", "", "| setting | weights | KV pool | other | ready | planned | error | peak |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for setting, row in sorted(first.items()):
        error = f"{row.planned_error_pct:+.1f} %" if row.planned_error_pct is not None else "-"
        cells = (row.weights_mib, row.kv_pool_mib, row.overhead_mib, row.vram_mib, row.planned_mib)
        figures = " | ".join(shown(value, 0) for value in cells)
        lines.append(f"| {setting} | {figures} | {error} | {shown(row.vram_peak_mib, 0)} |")
    return [*lines, ""]


def _speed(rows: Sequence[Row]) -> list[str]:
    if not rows:
        return []
    lines = [
        "## Speed",
        "",
        "| setting | in / out | at once | rounds | tokens/s | 95 % | chars/s | per stream | TTFT, ms | answer, s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        interval = f"{row.output_tps_ci95[0]:,.0f} to {row.output_tps_ci95[1]:,.0f}" if row.output_tps_ci95 else "-"
        speeds = (row.chars_per_s, row.decode_tps, row.ttft_ms, row.seconds)
        cells = (
            f"{row.setting}{' ?' * bool(row.doubts)}",
            f"{row.input_tokens} / {row.output_tokens}",
            str(row.concurrency),
            str(row.repetitions),
            shown(row.output_tps),
            interval,
            *map(shown, speeds),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _csv(rows: Sequence[Row]) -> str:
    names = [field.name for field in dataclasses.fields(Row)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow([_flat(getattr(row, name)) for name in names])
    return text.getvalue()


def _flat(value: object) -> object:
    return "; ".join(map(str, value)) if isinstance(value, tuple) else value


def _fields(result: Result) -> dict[str, object]:
    fields = plain(result)
    assert isinstance(fields, dict)  # noqa: S101 (a dataclass is)
    return fields
