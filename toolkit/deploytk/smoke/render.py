"""Writes a report for others to read: JSON, or Markdown for a pull request."""

from __future__ import annotations

import json
from pathlib import Path

from deploytk.atomic import write_text
from deploytk.errors import UsageError
from deploytk.gpus import MIB
from deploytk.smoke.report import Report
from deploytk.smoke.statistics import Summary
from deploytk.values import plain


def write_report(report: Report, path: Path) -> None:
    """Write the report as what the ending of `path` says: .json or .md."""
    check_path(path)
    text = markdown(report) if path.suffix == ".md" else json.dumps(plain(report), ensure_ascii=False, indent=2) + "\n"
    write_text(path, text)


def check_path(path: Path) -> None:
    """Raises UsageError when a report cannot be written to `path`; to be called before it is measured."""
    if path.suffix not in (".json", ".md"):
        raise UsageError(f"{path} does not end in .json or .md", hint="the ending chooses the format of the report")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"{path.parent} is not a directory", hint="make it first")


def markdown(report: Report) -> str:
    """The report as Markdown: verdict, figures, checks."""
    lines = [f"## Smoke test: {report.verdict.status}", ""]
    lines += [f"- {reason}" for reason in report.verdict.reasons] + [""] * bool(report.verdict.reasons)
    lines += ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows(report)), ""]
    if report.checks:
        lines += ["| Budget | Limit | Measured | |", "|---|---|---|---|"]
        lines += [f"| {c.metric} | {c.op} {c.limit:g} | {_number(c.value)} | {c.status} |" for c in report.checks]
        lines.append("")
    return "\n".join(lines)


def rows(report: Report) -> list[tuple[str, str]]:
    """What a person wants to know first, as names and values."""
    throughput, vram = report.throughput, report.vram
    found = [
        ("model", report.identity.model),
        ("engine", report.identity.engine or "does not say"),
        ("requests", f"{report.counts.success} of {report.counts.issued} answered"),
        ("time to first token", _distribution(report.latency.ttft_ms, "ms")),
        ("time per output token", _distribution(report.latency.tpot_ms, "ms")),
        ("output", f"{_number(throughput.output_tps)} tokens/s, {_number(throughput.chars_per_s)} characters/s"),
        ("VRAM", f"{(vram.peak_bytes - vram.baseline_bytes) / MIB:,.0f} MiB at the peak" if vram else "not measured"),
    ]
    return found + [(finding.check, f"{finding.status}: {finding.detail}") for finding in report.correctness]


def _distribution(summary: Summary, unit: str) -> str:
    return f"median {_number(summary.p50)} {unit}, {_number(summary.min)} to {_number(summary.max)}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}"
