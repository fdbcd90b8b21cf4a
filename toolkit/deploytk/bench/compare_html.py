"""What changed between two benches as one HTML file: the verdict, every ratio with its interval, memory, doubts."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from deploytk.base.errors import UsageError
from deploytk.base.files import disk_errors, write_text
from deploytk.bench.compare import LEAST_EFFECT, Change, Comparison
from deploytk.smoke.charts import Interval, intervals
from deploytk.smoke.html import page, table

_METRICS = {"ttft_ms": "time to first token", "tpot_ms": "time per output token"}
_COLOURS = {"faster": "pass", "same": "pass", "slower": "fail", "inconclusive": "inconclusive"}


def write_comparison(comparison: Comparison, a: Path, b: Path, out: Path) -> None:
    """Raises UsageError when that cannot be written."""
    with disk_errors(out, UsageError):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, html(comparison, str(a), str(b)))


def html(comparison: Comparison, a: str, b: str) -> str:
    """`a` is the baseline, `b` what is judged: their names."""
    band = f"{1 / LEAST_EFFECT:.2f} to {LEAST_EFFECT:.2f}"
    parts = [
        (
            f"<p>B is {escape(b)}, A is {escape(a)}, the baseline. Ratios are of times: less than 1 is faster. "
            f"A change is one outside {band} whose interval leaves out 1.</p>"
        ),
        "<h2>B / A</h2>",
        table(("cell", "", "rounds", "B / A", "95 %", ""), [_row(one) for one in comparison.changes], 2),
        *_charts(comparison.changes),
    ]
    memory = [one for one in comparison.memory if one.mib is not None]
    if memory:
        rows = [(one.cell, f"{one.mib:+,.0f}", "more" if one.is_more else "same") for one in memory]
        parts += ["<h2>VRAM when ready, B less A, MiB</h2>", table(("cell", "MiB", ""), rows, 1)]
    for title, items in (
        ("Requests that failed", comparison.failures),
        ("Only in one of them", comparison.only_in_one),
        ("Left out", comparison.doubts),
    ):
        parts += [f"<h2>{title}</h2>", f"<ul>{''.join(f'<li>{escape(one)}' for one in items)}</ul>"] if items else []
    colour = _COLOURS[comparison.status]
    return page("Benchmarks compared", f"B against A <span class={colour}>{comparison.status}</span>", parts)


def _row(change: Change) -> tuple[str, ...]:
    ratio = "-" if change.ratio is None else f"{change.ratio:.3f}"
    interval = "-" if change.low is None else f"{change.low:.3f} to {change.high:.3f}"
    return change.cell, _METRICS[change.metric], str(change.rounds), ratio, interval, change.judgement


def _charts(changes: Sequence[Change]) -> list[str]:
    """One of each metric, all cells on one axis."""
    found = []
    for metric, words in _METRICS.items():
        drawn = [
            Interval(f"{one.cell}: {one.ratio:.3f}, {one.judgement}", one.low, one.ratio, one.high)
            for one in changes
            if one.metric == metric and one.ratio and one.low and one.high
        ]
        if drawn:
            found += [f"<h3>{words}</h3>", intervals(f"{words}, B / A", drawn, LEAST_EFFECT)]
    return found
