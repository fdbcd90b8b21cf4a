"""The report as one HTML file: tables, and charts as SVG. It loads nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from deploytk.base.json import shown
from deploytk.hardware.catalogue import MIB
from deploytk.smoke.charts import Bar, line, spread, stacked, svg, text
from deploytk.smoke.memory import VramReport
from deploytk.smoke.report import Report
from deploytk.smoke.statistics import Summary

Rows = Sequence[tuple[str, str]]

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 68rem; padding: 0 1rem; color: #1c1c1e }
h1 span { padding: 0 .6rem; border-radius: .4rem; color: #fff }
.pass { background: #1a7f37 } .fail { background: #cf222e } .inconclusive { background: #9a6700 }
table { border-collapse: collapse; margin: 1rem 0 } td, th { border-bottom: 1px solid #ddd; padding: .3rem .8rem }
td, th { text-align: left; vertical-align: top } .scroll { overflow-x: auto }
td + td.figure, th.figure { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
.key { white-space: nowrap }
svg { max-width: 100%; height: auto; display: block; margin: .6rem 0 } svg text { font-size: 12px; fill: #1c1c1e }
@media (prefers-color-scheme: dark) { body { background: #1c1c1e; color: #eee } svg text { fill: #eee } }
"""
_HIGH = 220
_NO_FIGURES = 99


def page(title: str, heading: str, parts: Iterable[str]) -> str:
    """A whole page; `heading` and `parts` are HTML."""
    start = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width'>",
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        f"<h1>{heading}</h1>",
    ]
    return "\n".join([*start, *(part for part in parts if part)]) + "\n</html>\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], figures_from: int = _NO_FIGURES) -> str:
    """The columns from `figures_from` on hold figures."""

    def kind(at: int) -> str:
        return " class=figure" if at >= figures_from else " class=key" if figures_from < _NO_FIGURES else ""

    titles = "<tr>" + "".join(f"<th{kind(at)}>{escape(name)}" for at, name in enumerate(head)) if any(head) else ""
    lines = ("<tr>" + "".join(f"<td{kind(at)}>{escape(value)}" for at, value in enumerate(row)) for row in rows)
    return f"<div class=scroll><table>{titles}{''.join(lines)}</table></div>"


def html(report: Report, rows: Rows, machine: Rows, baseline: Report | None = None) -> str:
    """`rows` and `machine` are what a person wants to know first; with what changed since `baseline`."""
    verdict = report.verdict
    notes = dict.fromkeys([*verdict.reasons, *verdict.inconclusive])
    parts = [
        "<ul>" + "".join(f"<li>{escape(note)}" for note in notes) + "</ul>" if notes else "",
        table(("", ""), rows),
        "<h2>Measured on</h2>",
        table(("", ""), machine),
    ]
    if report.checks:
        budget = [(c.metric, f"{c.op} {c.limit:g}", shown(c.value), c.status) for c in report.checks]
        parts += ["<h2>Budget</h2>", table(("metric", "limit", "measured", ""), budget)]
    if baseline:
        parts += ["<h2>Against the baseline</h2>", _against(report, baseline)]
    parts += _latency(report)
    if report.vram:
        parts += ["<h2>VRAM, MiB</h2>", *_memory(report.vram), _over_time(report.vram.sampling.series)]
    heading = f"Smoke test <span class={verdict.status}>{verdict.status}</span>"
    return page(f"Smoke test of {report.identity.model}", heading, parts)


def _latency(report: Report) -> list[str]:
    """Every distribution on an axis of its own: a first token and a gap differ a hundredfold."""
    summaries = (
        ("time to first token", report.latency.ttft_ms),
        ("time per output token", report.latency.tpot_ms),
        ("gap between pieces of text", report.latency.chunk_gap_ms),
        ("whole answer", report.latency.e2e_ms),
    )
    parts = ["<h2>Latency, ms</h2>", _latency_table(summaries)]
    for name, summary in summaries:
        fields = ("min", "p50", "p90", "p95", "p99", "max")
        points = {
            field: value
            for field in fields
            if field not in summary.uncertified and (value := getattr(summary, field)) is not None
        }
        if len(points) > 1:
            parts += [f"<h3>{escape(name)}</h3>", spread(f"{name}, ms", "ms", points)]
    return parts


def _latency_table(summaries: Sequence[tuple[str, Summary]]) -> str:
    names = ("n", "min", "p50", "p90", "p95", "p99", "max")
    rows = []
    for name, summary in summaries:
        values = [str(summary.n), *(shown(getattr(summary, field)) for field in names[1:])]
        marked = [f"{v} ?" if field in summary.uncertified else v for field, v in zip(names, values, strict=True)]
        rows.append([name, *marked])
    note = "<p>? marks percentiles with too few samples to be believed; the charts leave them out.</p>"
    return table(("", *names), rows, 1) + note


def _memory(vram: VramReport) -> list[str]:
    """Weights, KV pool and the rest: measured, planned and how far apart."""
    parts, predicted = vram.components, vram.predicted
    measured = (parts.weights_bytes, parts.kv_pool_bytes, parts.overhead_bytes)
    planned = (predicted.weights_bytes, predicted.kv_pool_bytes, predicted.overhead_bytes) if predicted else (None,) * 3
    terms = ("weights", "KV pool", "everything else")
    rows = [_term(name, m, p) for name, m, p in zip(terms, measured, planned, strict=True)]
    rows += _overhead(vram)
    rows.append(_term("all", vram.ready_of_ours, predicted.total_bytes if predicted else None))
    bars = [_bar("measured", terms, measured), _bar("planned", terms, planned)]
    drawn = [bar for bar in bars if bar]
    beside = [Bar("measured", (("everything else", parts.overhead_bytes / MIB),))] if parts.overhead_bytes else []
    named = tuple(predicted.term_mib.items()) if predicted else ()
    beside += [Bar("planned", named)] if named else []
    return [
        table(("", "measured", "planned", "off by"), rows, 1),
        stacked("VRAM by term", drawn, "MiB"),
        *(["<h3>Everything else, by term</h3>", stacked("Everything else, by term", beside, "MiB")] if named else []),
    ]


def _overhead(vram: VramReport) -> list[tuple[str, ...]]:
    """What the rest is made of: measured as far as the engine's log tells it apart, planned by its named terms."""
    predicted, weights = vram.predicted, vram.components.weights_bytes
    if predicted is None or predicted.before_pool_bytes is None or not predicted.term_mib:
        return []
    before, rest = vram.used_before_pool_bytes, vram.components.overhead_bytes
    measured = None if before is None or weights is None else before - weights
    planned = predicted.before_pool_bytes - predicted.weights_bytes
    after = None if measured is None or rest is None else rest - measured
    rows = [
        _term("of it before the pool", measured, planned),
        _term("of it after the pool", after, predicted.overhead_bytes - planned),
    ]
    return rows + [(f"of it {name}", "-", f"{mib:,.0f}", "-") for name, mib in predicted.term_mib.items()]


def _term(name: str, measured: int | None, planned: int | None) -> tuple[str, ...]:
    figures = [None if value is None else value / MIB for value in (measured, planned)]
    off = "-" if measured is None or planned is None else f"{round((measured - planned) / MIB):+,}"
    return name, *(shown(value, 0) for value in figures), off


def _bar(name: str, terms: Sequence[str], values: Sequence[int | None]) -> Bar | None:
    known = [value for value in values if value is not None]
    if len(known) != len(values):
        return None
    return Bar(name, tuple((term, value / MIB) for term, value in zip(terms, known, strict=True)))


def _against(report: Report, baseline: Report) -> str:
    pairs = (
        ("time to first token, median, ms", report.latency.ttft_ms.p50, baseline.latency.ttft_ms.p50),
        ("time per output token, median, ms", report.latency.tpot_ms.p50, baseline.latency.tpot_ms.p50),
        ("output, tokens/s", report.throughput.output_tps, baseline.throughput.output_tps),
        ("VRAM when ready, MiB", _ready_mib(report), _ready_mib(baseline)),
        ("VRAM at the peak, MiB", _peak_mib(report), _peak_mib(baseline)),
    )
    rows = [(name, shown(before), shown(now), _change(before, now)) for name, now, before in pairs]
    same = report.identity.baseline_key == baseline.identity.baseline_key
    note = "" if same else "<p>Another machine, server, model or workload: the two cannot be compared.</p>"
    return f"<p>Baseline of {escape(baseline.created)}.</p>{note}{table(('', 'baseline', 'now', 'change'), rows, 1)}"


def _change(before: float | None, now: float | None) -> str:
    return "-" if before is None or now is None or not before else f"{100 * (now / before - 1):+.1f} %"


def _ready_mib(report: Report) -> float | None:
    return report.vram.ready_of_ours / MIB if report.vram else None


def _peak_mib(report: Report) -> float | None:
    return report.vram.peak_of_ours / MIB if report.vram else None


def _over_time(series: Sequence[tuple[float, float]]) -> str:
    """Use over time."""
    if len(series) < 2:
        return ""
    last, most = series[-1][0] or 1.0, max(used for _, used in series) or 1.0
    left, bottom, wide, high = 70, _HIGH - 30, 680, _HIGH - 42
    places = ((left + at / last * wide, bottom - used / most * high) for at, used in series)
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    marks = [
        line(left, bottom, left + wide, bottom),
        text(left - 6, bottom - high + 8, f"{most:,.0f}", "end"),
        text(left - 6, bottom + 4, "0", "end"),
        text(left, bottom + 20, "0 s"),
        text(left + wide, bottom + 20, f"{last:.0f} s", "end"),
        f'<polyline points="{points}" fill="none" stroke="#0969da" stroke-width="2"/>',
    ]
    return f"<h3>in use over time</h3>{svg(_HIGH, 'VRAM in use over time, MiB', marks)}"
