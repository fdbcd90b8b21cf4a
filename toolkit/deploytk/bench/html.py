"""The results of a bench as one HTML file: machine, recommendation, tables, and charts as SVG. It loads nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from deploytk.bench.recommend import Row
from deploytk.bench.sections import costs, head, lists, remarks, tables
from deploytk.bench.table import Result
from deploytk.smoke import Report
from deploytk.smoke.charts import Bar, lines, spread, stacked
from deploytk.smoke.html import page, table
from deploytk.smoke.render import machine


def html(result: Result, reports: Mapping[str, Sequence[Report]]) -> str:
    """`reports` are those of the repetitions, by cell."""
    parts = [f"<p>{escape(head(result))}</p>"]
    parts += [f"<p><b>{escape(title)}</b> {escape(words)}</p>" for title, words in remarks(result)]
    if result.identity:
        parts += ["<h2>Measured on</h2>", table(("", ""), machine(result.identity))]
    for one in tables(result.rows):
        parts += [f"<h2>{escape(one.title)}</h2>", table(one.columns, one.rows, one.keys)]
        parts += [_memory(result.rows)] if one.title.startswith("VRAM") else _speed(result.rows)
    for one in costs(result.before_after):
        parts += [f"<h2>{escape(one.title)}</h2>", table(one.columns, one.rows, one.keys)]
    parts += _latency(reports)
    for title, items in lists(result):
        parts += [f"<h2>{escape(title)}</h2>", "<ul>" + "".join(f"<li>{escape(item)}" for item in items) + "</ul>"]
    return page("Benchmark", "Benchmark", parts)


def _memory(rows: Sequence[Row]) -> str:
    first = {row.setting: row for row in reversed(rows) if row.kv_pool_mib is not None}
    bars = [
        Bar(
            setting,
            (
                ("weights", row.weights_mib or 0.0),
                ("KV pool", row.kv_pool_mib or 0.0),
                ("everything else", row.overhead_mib or 0.0),
            ),
        )
        for setting, row in sorted(first.items())
    ]
    return stacked("VRAM when ready, by term", bars, "MiB")


def _speed(rows: Sequence[Row]) -> list[str]:
    """A chart of each figure that depends on the load, where more than one load was measured."""
    charts = []
    for lengths in dict.fromkeys((row.input_tokens, row.output_tokens) for row in rows):
        mine = [row for row in rows if (row.input_tokens, row.output_tokens) == lengths]
        if len({row.concurrency for row in mine}) < 2:
            continue
        said = f"{lengths[0]} tokens in, {lengths[1]} out"
        for title, field in (("Output of all streams, tokens/s", "output_tps"), ("Time to first token, ms", "ttft_ms")):
            drawn = lines(title, "requests at once", _by_setting(mine, field))
            charts += [f"<h3>{escape(title)}: {said}</h3>", drawn] if drawn else []
    return charts


def _by_setting(rows: Sequence[Row], field: str) -> dict[str, list[tuple[float, float]]]:
    found: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        value = getattr(row, field)
        if value:
            found.setdefault(row.setting, []).append((row.concurrency, value))
    return found


def _latency(reports: Mapping[str, Sequence[Report]]) -> list[str]:
    """Of every cell, how long its tokens took, on an axis of its own."""
    parts = []
    for cell, found in reports.items():
        summary = found[0].latency.tpot_ms
        points = {name: getattr(summary, name) for name in ("min", "p50", "p90", "p95", "p99", "max")}
        sure = {name: v for name, v in points.items() if v is not None and name not in summary.uncertified}
        if len(sure) > 1:
            parts += [f"<h3>{escape(cell)}</h3>", spread(f"{cell}: time per output token, ms", "ms", sure)]
    return ["<h2>Time per output token, ms</h2>", *parts] if parts else []
