"""The report as one HTML file: tables, and charts as SVG. It loads nothing."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from deploytk.base.json import shown
from deploytk.hardware.catalogue import MIB
from deploytk.smoke.memory import VramReport
from deploytk.smoke.report import Report
from deploytk.smoke.statistics import Summary

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #1c1c1e }
h1 span { padding: 0 .6rem; border-radius: .4rem; color: #fff }
.pass { background: #1a7f37 } .fail { background: #cf222e } .inconclusive { background: #9a6700 }
table { border-collapse: collapse; margin: 1rem 0 } td, th { border-bottom: 1px solid #ddd; padding: .3rem .8rem }
td, th { text-align: left; vertical-align: top } svg { max-width: 100% } svg text { font-size: 12px }
@media (prefers-color-scheme: dark) { body { background: #1c1c1e; color: #eee } svg text { fill: #eee } }
"""
_WIDTH, _HEIGHT = 720, 220
_LEFT, _BOTTOM, _TOP = 70, 30, 12
_BLUE, _GREEN, _GREY = "#0969da", "#2da44e", "#8c959f"


def html(report: Report, rows: Sequence[tuple[str, str]]) -> str:
    verdict = report.verdict
    notes = dict.fromkeys([*verdict.reasons, *verdict.inconclusive])
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width'>",
        f"<title>Smoke test of {escape(report.identity.model)}</title><style>{_STYLE}</style>",
        f"<h1>Smoke test <span class={verdict.status}>{verdict.status}</span></h1>",
        f"<p>{escape(report.created)}, deploytk {escape(report.identity.deploytk)}</p>",
        "<ul>" + "".join(f"<li>{escape(note)}" for note in notes) + "</ul>" if notes else "",
        _table(("", ""), rows),
    ]
    if report.checks:
        budget = [(c.metric, f"{c.op} {c.limit:g}", shown(c.value), c.status) for c in report.checks]
        parts += ["<h2>Budget</h2>", _table(("metric", "limit", "measured", ""), budget)]
    summaries = (
        ("time to first token", report.latency.ttft_ms),
        ("time per output token", report.latency.tpot_ms),
        ("gap between pieces of text", report.latency.chunk_gap_ms),
        ("whole answer", report.latency.e2e_ms),
    )
    parts += ["<h2>Latency, ms</h2>", _latency_table(summaries), _ranges(summaries)]
    if report.vram:
        parts += ["<h2>VRAM, MiB</h2>", _stack(report.vram), _line(report.vram.sampling.series)]
    return "\n".join(part for part in parts if part) + "\n</html>\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    titles = "<tr>" + "".join(f"<th>{escape(name)}" for name in head) if any(head) else ""
    lines = ("<tr>" + "".join(f"<td>{escape(value)}" for value in row) for row in rows)
    return f"<table>{titles}{''.join(lines)}</table>"


def _latency_table(summaries: Sequence[tuple[str, Summary]]) -> str:
    names = ("n", "min", "p50", "p90", "p95", "p99", "max")
    rows = []
    for name, summary in summaries:
        values = [str(summary.n), *(shown(getattr(summary, field)) for field in names[1:])]
        marked = [f"{v} ?" if field in summary.uncertified else v for field, v in zip(names, values, strict=True)]
        rows.append([name, *marked])
    note = "<p>? marks percentiles with too few samples to be believed.</p>"
    return _table(("", *names), rows) + note


def _ranges(summaries: Sequence[tuple[str, Summary]]) -> str:
    """Least to most as a line, the median as a dot, on a common scale."""
    known = [(name, s.min, s.p50, s.max) for name, s in summaries if s.n]
    if not known:
        return ""
    largest = max(high or 0 for *_, high in known) or 1.0
    lines = []
    for row, (name, low, middle, high) in enumerate(known):
        y = _TOP + 12 + row * 40
        x_low, x_middle, x_high = (180 + (value or 0) / largest * (_WIDTH - 260) for value in (low, middle, high))
        lines.append(
            f'<text x="0" y="{y + 4}">{escape(name)}</text>'
            f'<line x1="{x_low:.1f}" x2="{x_high:.1f}" y1="{y}" y2="{y}" stroke="{_GREY}" stroke-width="3"/>'
            f'<circle cx="{x_middle:.1f}" cy="{y}" r="5" fill="{_BLUE}"/>'
            f'<text x="{x_high + 8:.1f}" y="{y + 4}">{shown(high)}</text>'
        )
    return _svg(len(known) * 40 + _TOP, "Latency: least, median, most", "".join(lines))


def _stack(vram: VramReport) -> str:
    """Weights, KV pool and the rest beside each other, measured over planned."""
    bars = []
    parts, predicted = vram.components, vram.predicted
    measured = (parts.weights_bytes, parts.kv_pool_bytes, parts.overhead_bytes)
    if None not in measured:
        bars.append(("measured", [value or 0 for value in measured]))
    if predicted:
        planned = [predicted.weights_bytes, predicted.kv_pool_bytes, predicted.overhead_bytes]
        bars.append(("planned", planned))
    if not bars:
        return ""
    largest = max(sum(values) for _, values in bars) or 1
    lines = []
    for row, (name, values) in enumerate(bars):
        y, x = _TOP + row * 40, 90.0
        lines.append(f'<text x="0" y="{y + 18}">{name}</text>')
        for value, colour, title in zip(values, (_BLUE, _GREEN, _GREY), ("weights", "KV pool", "other"), strict=True):
            width = max(0.0, value / largest * (_WIDTH - 100))
            label = f"{title}: {value / MIB:,.0f} MiB"
            lines.append(
                f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="26" fill="{colour}">'
                f"<title>{label}</title></rect>"
            )
            x += width
    legend = zip(("weights", "KV pool", "other"), (_BLUE, _GREEN, _GREY), strict=True)
    y = _TOP + len(bars) * 40 + 8
    for place, (title, colour) in enumerate(legend):
        x = 90 + place * 110
        lines.append(f'<rect x="{x}" y="{y}" width="12" height="12" fill="{colour}"/>')
        lines.append(f'<text x="{x + 18}" y="{y + 11}">{title}</text>')
    return _svg(y + 24, "VRAM by component", "".join(lines))


def _line(series: Sequence[tuple[float, float]]) -> str:
    """Use over time."""
    if len(series) < 2:
        return ""
    last, most = series[-1][0] or 1.0, max(used for _, used in series) or 1.0
    wide, high = _WIDTH - _LEFT - 10, _HEIGHT - _BOTTOM - _TOP
    places = ((_LEFT + at / last * wide, _TOP + high - used / most * high) for at, used in series)
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    marks = (
        f'<text x="0" y="{_TOP + 8}">{most:,.0f}</text><text x="0" y="{_HEIGHT - _BOTTOM}">0</text>'
        f'<text x="{_LEFT}" y="{_HEIGHT - 8}">0 s</text><text x="{_WIDTH - 50}" y="{_HEIGHT - 8}">{last:.0f} s</text>'
    )
    line = f'<polyline points="{points}" fill="none" stroke="{_BLUE}" stroke-width="2"/>'
    return _svg(_HEIGHT, "VRAM in use over time", marks + line)


def _svg(height: float, title: str, content: str) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height:.0f}" width="{_WIDTH}" height="{height:.0f}" role="img">'
        f"<title>{escape(title)}</title>{content}</svg>"
    )
