"""Shows what was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from deploytk.base.terminal import console
from deploytk.display.rows import show_figures, show_rows

if TYPE_CHECKING:
    from deploytk.bench import Comparison, Result
    from deploytk.smoke import Report


def show_report(report: Report) -> None:
    from deploytk.smoke.render import rows

    style = {"pass": "bold green", "fail": "bold red", "inconclusive": "bold yellow"}[report.verdict.status]
    console().print(Text(f"smoke test: {report.verdict.status}", style=style))
    for reason in report.verdict.reasons:
        console().print(Text(f"  {reason}", style=style.removeprefix("bold ")))
    show_rows(rows(report))
    for check in report.checks:
        value = "-" if check.value is None else f"{check.value:,.1f}"
        console().print(Text(f"{check.status}: {check.metric} {value}, {check.op} {check.limit:g}"))


def show_bench(result: Result) -> None:
    from deploytk.bench.sections import costs, head, lists, remarks, tables

    console().print(Text("Benchmark", style="bold"))
    console().print(Text(head(result)))
    for table in (*tables(result.rows), *costs(result.before_after)):
        console().print(Text(f"\n{table.title}", style="bold"))
        show_figures(table.keys, table.columns, table.rows)
    for title, text in remarks(result):
        console().print(Text(f"\n{title}: {text}" if title else f"\n{text}"))
    for title, items in lists(result):
        console().print(Text(f"\n{title}", style="bold"))
        for item in items:
            console().print(Text(f"  {item}"))


def show_comparison(comparison: Comparison) -> None:
    rows: list[tuple[str, ...]] = []
    for change in comparison.changes:
        ratio = "-" if change.ratio is None else f"{change.ratio:.3f}"
        interval = "-" if change.low is None else f"{change.low:.3f} to {change.high:.3f}"
        rows.append((change.cell, change.metric, ratio, interval, change.judgement))
    for memory in comparison.memory:
        if memory.mib is not None:
            judgement = "more" if memory.is_more else "same"
            rows.append((memory.cell, "VRAM", f"{memory.mib:+,.0f} MiB", "", judgement))
    console().print(Text(f"B against A: {comparison.status}", style="bold"))
    show_figures(2, ("cell", "metric", "B / A", "95 %", ""), rows)
    for cell in comparison.only_in_one:
        console().print(Text(f"only in one of them: {cell}"))
    for line in comparison.failures:
        console().print(Text(line))
    for line in comparison.doubts:
        console().print(Text(f"left out: {line}"))
