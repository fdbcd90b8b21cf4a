"""Owner of matplotlib: draws results as SVG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

from matplotlib.figure import Figure

from deploytk.bench.recommend import Row
from deploytk.bench.table import Result, read_reports

_PARTS = (
    ("weights_mib", "weights", "#0969da"),
    ("kv_pool_mib", "KV pool", "#2da44e"),
    ("overhead_mib", "other", "#8c959f"),
)


def draw(result: Result, directory: Path) -> list[str]:
    """Write the plots that the rows have figures for; returns their paths, relative to the parent of `directory`."""
    directory.mkdir(exist_ok=True)
    drawn = {"vram": _vram(result), "throughput": _throughput(result), "latency": _latency(result)}
    written = []
    # The same figures give the same bytes.
    with mpl.rc_context({"svg.hashsalt": "deploytk", "font.size": 9}):
        for name, figure in drawn.items():
            if figure is not None:
                figure.savefig(directory / f"{name}.svg", metadata={"Date": None}, bbox_inches="tight")
                written.append(f"{directory.name}/{name}.svg")
    return written


def _vram(result: Result) -> Figure | None:
    """A bar per deployment, stacked."""
    rows = list({row.setting: row for row in reversed(result.rows) if row.kv_pool_mib is not None}.values())
    if not rows:
        return None
    figure, axes = _figure("VRAM when ready, MiB", len(rows))
    left = [0.0] * len(rows)
    for name, label, colour in _PARTS:
        values = [getattr(row, name) or 0.0 for row in rows]
        axes.barh([row.setting for row in rows], values, left=left, label=label, color=colour)
        left = [a + b for a, b in zip(left, values, strict=True)]
    axes.legend()
    return figure


def _throughput(result: Result) -> Figure | None:
    """Tokens per second against requests at once, a line per deployment."""
    if not any(row.output_tps for row in result.rows):
        return None
    figure, axes = _figure("Output of all streams, tokens/s", 5)
    for setting, rows in _by_setting(result).items():
        points = [(row.concurrency, row.output_tps) for row in rows if row.output_tps]
        axes.plot(*zip(*points, strict=True), marker="o", label=setting)
    axes.set_xlabel("requests at once")
    axes.set_xscale("log", base=2)
    places = sorted({row.concurrency for row in result.rows})
    axes.set_xticks(places, [str(place) for place in places])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.legend()
    return figure


def _latency(result: Result) -> Figure | None:
    """How long tokens took: the distribution over requests, a box per cell."""
    cells = {name: reports[0] for name, reports in read_reports(result.path).items()}
    known = [(name, report.latency.tpot_ms) for name, report in cells.items() if report.latency.tpot_ms.n]
    if not known:
        return None
    figure, axes = _figure("Time per output token, ms: least, median, 90 %, most", len(known))
    for place, (_, summary) in enumerate(known):
        axes.plot([summary.min, summary.max], [place, place], color="#8c959f")
        axes.plot([summary.p50, summary.p90], [place, place], "o", color="#0969da")
    axes.set_yticks(range(len(known)), [name for name, _ in known])
    axes.set_xlim(left=0)
    return figure


def _by_setting(result: Result) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in sorted(result.rows, key=lambda row: row.concurrency):
        if row.output_tps:
            found.setdefault(row.setting, []).append(row)
    return found


def _figure(title: str, lines: int) -> tuple[Figure, Any]:
    figure = Figure(figsize=(7, 1.2 + 0.5 * max(lines, 3)))
    axes = figure.subplots()
    axes.set_title(title)
    return figure, axes
