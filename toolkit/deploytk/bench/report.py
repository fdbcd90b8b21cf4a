"""Writes the results of a bench: JSON, CSV, Markdown, and plots where matplotlib is installed."""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
import io
from collections.abc import Sequence
from pathlib import Path

from deploytk.base.files import write_text
from deploytk.base.json import plain, to_json
from deploytk.base.progress import Progress
from deploytk.bench.recommend import Row
from deploytk.bench.sections import Table, costs, head, lists, remarks, tables
from deploytk.bench.table import Result, read_reports

SCHEMA = "deploytk.bench/1"


def write_results(result: Result, out: Path, progress: Progress) -> None:
    """results.json, results.csv, report.html, report.md and, with matplotlib, plots/*.svg below `out`."""
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
    if result.rows:
        from deploytk.bench.html import html

        write_text(out / "report.html", html(result, read_reports(out)))


def markdown(result: Result, plots: Sequence[str] = ()) -> str:
    """Recommendation, the table of memory, the table of speed, and what was left out."""
    lines = ["# Benchmark", "", *([head(result), ""] if result.identity else [])]
    for title, text in remarks(result):
        lines += [f"**{title}:** {text}" if title else text, ""]
    for table in (*tables(result.rows), *costs(result.before_after)):
        lines += [f"## {table.title}", "", *_markdown(table), ""]
    lines += [f"![{Path(plot).stem}]({plot})" for plot in plots] + [""] * bool(plots)
    for title, items in lists(result):
        lines += [f"## {title}", "", *(f"- {item}" for item in items), ""]
    return "\n".join(lines)


def _markdown(table: Table) -> list[str]:
    lines = [table.columns, tuple("---" for _ in table.columns), *table.rows]
    return [f"| {' | '.join(line)} |" for line in lines]


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
