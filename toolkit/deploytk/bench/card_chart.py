"""The chart on a model card: what was measured, as one PNG, which every hub shows."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deploytk.base.json import shown
from deploytk.bench.recommend import Row
from deploytk.bench.table import Result
from deploytk.bundle import Chart

_WIDTH_INCHES, _DOTS_PER_INCH = 8, 140
_MOST_LINES = 6
# Colours that people tell apart whatever they see. Source: Okabe and Ito, jfly.uni-koeln.de/color.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_GREY = "#8c959f"
_SUMMARIES = {"ttft_ms": "time to first token, ms", "tpot_ms": "time per output token, ms"}


def chart_of_bench(result: Result, model: str) -> Chart | None:
    """Tokens per second and time to first token over the load: all deployments of `model`, dashed some of others.

    None where nothing was measured beyond doubt at two loads or more.
    """
    lines = _lines(result.rows, model)
    if not lines:
        return None
    loads_of_all = sorted({row.concurrency for _, rows in lines for row in rows})
    figure = Figure(figsize=(_WIDTH_INCHES, 3.2 + 0.2 * len(lines)), layout="constrained")
    speed, wait = figure.subplots(1, 2)
    for colour, (setting, rows) in zip(_COLOURS, lines, strict=False):
        loads = [row.concurrency for row in rows]
        style = "o-" if rows[0].model == model else "o--"
        speed.plot(loads, [row.output_tps for row in rows], style, color=colour, label=setting)
        wait.plot(loads, [row.ttft_ms for row in rows], style, color=colour)
    _label(speed, "output tokens per second, all together", loads_of_all)
    _label(wait, "time to first token, median, ms", loads_of_all)
    figure.legend(loc="outside lower center", frameon=False)
    figures = [
        f"{setting}: " + ", ".join(f"{row.concurrency} × → {shown(row.output_tps)} tokens/s" for row in rows)
        for setting, rows in lines
    ]
    return Chart(_png(figure), "load", tuple(figures))


def _lines(rows: Sequence[Row], model: str) -> list[tuple[str, list[Row]]]:
    """Deployment -> its rows by load, of the longest texts; of other models one KV cache per engine."""
    longest = max(((row.output_tokens, row.input_tokens) for row in rows), default=None)
    settings: dict[str, list[Row]] = {}
    shown_for: dict[tuple[str, str], str] = {}
    for row in sorted(rows, key=lambda row: (row.model != model, row.model, row.engine, row.concurrency)):
        if row.doubts or not row.output_tps or not row.ttft_ms or (row.output_tokens, row.input_tokens) != longest:
            continue
        if row.model == model or shown_for.setdefault((row.model, row.engine), row.kv_policy) == row.kv_policy:
            settings.setdefault(row.setting, []).append(row)
    return [(setting, found) for setting, found in settings.items() if len(found) > 1][:_MOST_LINES]


def chart_of_report(report: Mapping[str, Any]) -> Chart | None:
    """How far the requests of one smoke test lay apart: least, median, 95 % and most; None without figures."""
    latency = report.get("latency") or {}
    known = [
        (name, [latency[key][field] for field in ("min", "p50", "p95", "max")])
        for key, name in _SUMMARIES.items()
        if _is_whole(latency.get(key))
    ]
    if not known:
        return None
    figure = Figure(figsize=(_WIDTH_INCHES, 0.5 + 0.9 * len(known)), layout="constrained")
    for place, (axes, (name, (least, middle, most_of_them, most))) in enumerate(
        zip(figure.subplots(len(known), squeeze=False)[:, 0], known, strict=True)
    ):
        axes.plot([least, most], [0, 0], color=_GREY, linewidth=3, solid_capstyle="round", label="least to most")
        axes.plot([middle], [0], "o", color=_COLOURS[0], markersize=10, label="median")
        axes.plot([most_of_them], [0], "D", color=_COLOURS[1], markersize=8, label="95 %")
        axes.set_title(name, loc="left")
        axes.set_xlim(left=0)
        axes.set_yticks([])
        axes.spines[["left", "right", "top"]].set_visible(False)
        if not place:
            axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, frameon=False)
    figures = [f"{name}: {' / '.join(map(shown, values))}" for name, values in known]
    return Chart(_png(figure), "spread", tuple(figures))


def _is_whole(summary: object) -> bool:
    return isinstance(summary, Mapping) and all(
        isinstance(summary.get(field), (int, float)) for field in ("min", "p50", "p95", "max")
    )


def _label(axes: Axes, title: str, loads: Sequence[int]) -> None:
    axes.set_title(title, loc="left")
    axes.set_xlabel("requests at once")
    axes.set_xscale("log", base=2)
    axes.set_xticks(loads, [str(load) for load in loads])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color="#e5e7eb")
    axes.spines[["right", "top"]].set_visible(False)


def _png(figure: Figure) -> bytes:
    """The same figures give the same bytes, with the same matplotlib. White behind it: pages can be dark."""
    with mpl.rc_context({"font.size": 9, "axes.titlesize": 9}):
        image = io.BytesIO()
        figure.savefig(image, format="png", dpi=_DOTS_PER_INCH, facecolor="white", metadata={"Software": None})
    return image.getvalue()
