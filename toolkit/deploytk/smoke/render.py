"""Writes a report for others to read: JSON, Markdown for a pull request, JUnit XML for CI, HTML in one file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

from deploytk.artifact import COST_SHOWS, cost_in_words
from deploytk.base.errors import UsageError
from deploytk.base.files import read_bounded, write_text
from deploytk.base.json import parse_plain, shown, to_json
from deploytk.base.terminal import one_line, printable
from deploytk.base.typed import type_adapter
from deploytk.base.validation import in_words
from deploytk.hardware.catalogue import MIB
from deploytk.plan import MeasuredOverhead
from deploytk.smoke.html import html
from deploytk.smoke.judge import judge
from deploytk.smoke.memory import VramReport
from deploytk.smoke.raw import read_raw
from deploytk.smoke.report import Identity, Report
from deploytk.smoke.statistics import Summary

_LARGEST_REPORT_BYTES = 2**26


def write_report(report: Report, path: Path, baseline: Report | None = None) -> None:
    """Write the report as what the ending of `path` says; HTML shows what changed since `baseline`."""
    check_path(path)
    write_text(path, _html(report, baseline) if path.suffix == ".html" else _FORMATS[path.suffix](report))


def check_path(path: Path) -> None:
    """Raises UsageError when a report cannot be written to `path`; to be called before it is measured."""
    if path.suffix not in _FORMATS:
        raise UsageError(
            f"{path} does not end in {', '.join(_FORMATS)}", hint="the ending chooses the format of the report"
        )
    if not path.absolute().parent.is_dir():
        raise UsageError(f"{path.parent} is not a directory", hint="make it first")


def read_any(path: Path) -> Report:
    """The report in `path`: written as JSON, or computed from raw data; raises UsageError for anything else."""
    if path.suffix == ".jsonl":
        return judge(*read_raw(path))
    return read_report(path)


def read_report(path: Path) -> Report:
    """A report that was written as JSON; raises UsageError for anything else."""
    from pydantic import ValidationError

    try:
        content = read_bounded(path, _LARGEST_REPORT_BYTES)
        return type_adapter(Report).validate_json(json.dumps(parse_plain(content)))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        what = f"{path} is no report that this deploytk reads: {place} {in_words(first, names_value=False)}"
        raise UsageError(what, hint="use the deploytk that wrote it, or compute it again from raw data") from error
    except (OSError, ValueError, RecursionError) as error:
        hint = "name a JSON file that smoke -o wrote, or a .jsonl file of smoke --raw"
        raise UsageError(f"{path} is no report: {one_line(str(error), 200)}", hint=hint) from error


def measured_in(path: Path) -> MeasuredOverhead:
    """What the report or raw data in `path` adds to what plans know; raises UsageError where it adds nothing."""
    report = read_any(path)
    if report.vram is not None and report.vram.measured is not None:
        return report.vram.measured
    why = "no VRAM was measured"
    if report.vram is not None:
        why = "its parts cannot be told apart: by the engine's log, of a server that smoke started, alone on its GPUs"
    raise UsageError(f"{path} says nothing for plans: {why}", hint="measure with: deploytk smoke MODEL -o REPORT")


def markdown(report: Report) -> str:
    """The report as Markdown: verdict, figures, checks."""
    lines = [f"## Smoke test: {report.verdict.status}", ""]
    notes = report.verdict.reasons + tuple(d for d in report.verdict.inconclusive if d not in report.verdict.reasons)
    lines += [f"- {cell(note)}" for note in notes] + [""] * bool(notes)
    lines += ["| | |", "|---|---|", *(f"| {cell(name)} | {cell(value)} |" for name, value in rows(report)), ""]
    if report.checks:
        lines += ["| Budget | Limit | Measured | |", "|---|---|---|---|"]
        lines += [f"| {c.metric} | {c.op} {c.limit:g} | {shown(c.value)} | {c.status} |" for c in report.checks]
        lines.append("")
    return "\n".join(lines)


def junit(report: Report) -> str:
    """The report as JUnit XML: a test case per check of correctness and per budget."""
    cases: list[tuple[str, str, str]] = [(f.check, f.status, f.detail) for f in report.correctness]
    cases += [(f"{c.metric} {c.op} {c.limit:g}", c.status, f"{c.metric} is {shown(c.value)}") for c in report.checks]
    failed = f"{report.counts.failed} of {report.counts.issued}: {', '.join(report.counts.errors)}"
    cases.append(("requests answered", "fail" if report.counts.failed else "pass", failed))
    if report.verdict.status == "inconclusive":
        cases.append(("verdict", "inconclusive", "; ".join(report.verdict.reasons)))
    took_s = f"{report.latency.window_s:.3f}"
    suites = ElementTree.Element("testsuites", name="deploytk", tests=str(len(cases)), time=took_s)
    suite = ElementTree.SubElement(suites, "testsuite", name="deploytk smoke", tests=str(len(cases)))
    suite.set("failures", str(sum(status == "fail" for _, status, _ in cases)))
    suite.set("errors", str(sum(status == "inconclusive" for _, status, _ in cases)))
    suite.set("skipped", str(sum(status == "not run" for _, status, _ in cases)))
    suite.set("time", took_s)
    suite.set("timestamp", report.created)
    for name in ("failures", "errors", "skipped"):
        suites.set(name, suite.get(name, "0"))
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in machine(report.identity, report.created):
        ElementTree.SubElement(properties, "property", name=name, value=_printable(value))
    for name, status, detail in cases:
        case = ElementTree.SubElement(suite, "testcase", classname="smoke", name=_printable(name))
        case.set("time", took_s if name == "requests answered" else "0")  # checks are of what was measured then
        tag = {"fail": "failure", "inconclusive": "error", "not run": "skipped"}.get(status)
        if tag:
            ElementTree.SubElement(case, tag, message=_printable(detail))
        else:
            ElementTree.SubElement(case, "system-out").text = _printable(detail)
    ElementTree.indent(suites)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(suites, encoding="unicode") + "\n"


def machine(identity: Identity, created: str = "") -> list[tuple[str, str]]:
    """What it was measured on, with what."""
    client, gpu = identity.client, identity.gpu
    found = [
        ("machine", f"{client.cpu}, {client.cores} cores"),
        ("GPU", f"{gpu.name}, {gpu.total_bytes / MIB:,.0f} MiB, driver {gpu.driver}" if gpu else "none was seen"),
        ("serving engine", identity.engine or "does not say"),
        ("LMDeploy", identity.lmdeploy or ""),
        ("deploytk", identity.deploytk),
        ("Python of the client", client.python),
        ("measured", created),
    ]
    return [(name, value) for name, value in found if value]


def rows(report: Report) -> list[tuple[str, str]]:
    """What a person wants to know first, as names and values."""
    identity, throughput = report.identity, report.throughput
    engine = " ".join(filter(None, [identity.engine, identity.lmdeploy and f"(LMDeploy {identity.lmdeploy})"]))
    found = [
        ("model", identity.model),
        ("engine", engine or "does not say"),
        ("weights, KV cache", f"{identity.weights}, {identity.kv_policy or 'none'}" if identity.weights else ""),
        *_quantized(identity),
        ("GPU", f"{identity.gpu.name}, driver {identity.gpu.driver}" if identity.gpu else ""),
        ("requests", f"{report.counts.success} of {report.counts.issued} answered, {_load(report)}"),
        ("time to first token", _distribution(report.latency.ttft_ms, "ms")),
        ("time per output token", _distribution(report.latency.tpot_ms, "ms")),
        ("output", f"{shown(throughput.output_tps)} tokens/s, {shown(throughput.chars_per_s)} characters/s"),
        ("share of the bound", _bound(report)),
        ("goodput", _goodput(report)),
        ("ready after", f"{report.load_s:.1f} s" if report.load_s is not None else ""),
        ("VRAM", _vram(report.vram) if report.vram else "not measured: no GPU, or not of this machine"),
        *(_per_gpu(report.vram) if report.vram else []),
        ("VRAM split", _split(report.vram) if report.vram else ""),
        ("VRAM planned", _planned(report.vram) if report.vram else ""),
    ]
    known = [(name, value) for name, value in found if value]
    return known + [(finding.check, f"{finding.status}: {finding.detail}") for finding in report.correctness]


def _quantized(identity: Identity) -> list[tuple[str, str]]:
    """Who made 4 bits of the model, and what it cost then: figures of its own record, not of this test."""
    by = identity.quantized_by
    if by is None:
        return []
    when = f", {by.created[:10]}" if by.created else ""
    made = f"{by.tool} {by.tool_version} ({', '.join((by.method, *by.arguments))}){when}"
    if by.cost is None:
        return [("quantized by", made), ("cost of 4 bits", "not measured: compare its answers with the original's")]
    words = f"{cost_in_words(by.cost)}; measured when it was quantized, not here; {COST_SHOWS}"
    return [("quantized by", made), ("cost of 4 bits", words)]


def _load(report: Report) -> str:
    workload = report.workload
    if workload.rate:
        return f"{workload.rate:g} per second"
    return "one at a time" if workload.concurrency == 1 else f"{workload.concurrency} at a time"


def _vram(vram: VramReport) -> str:
    return f"{vram.ready_of_ours / MIB:,.0f} MiB ready, {vram.peak_of_ours / MIB:,.0f} MiB at the peak"


def _per_gpu(vram: VramReport) -> list[tuple[str, str]]:
    """A row per GPU where several share the model."""
    rows = []
    for number, use in enumerate(vram.gpus if len(vram.gpus) > 1 else ()):
        error = "" if use.predicted_error_pct is None else f", planned {use.predicted_error_pct:+.1f} %"
        ready, peak = use.ready_of_ours / MIB, (use.peak_bytes - use.baseline_bytes) / MIB
        rows.append((f"VRAM of GPU {number}", f"{ready:,.0f} MiB ready, {peak:,.0f} MiB at the peak{error}"))
    return rows


def _bound(report: Report) -> str:
    if report.bound is None or report.bound_share is None:
        return ""
    speed = shown(report.throughput.decode_tps_p50)
    bound = f"of at most {report.bound.tokens_per_s:,.0f} that {report.bound.bandwidth_gb_s:,} GB/s allow"
    return f"{report.bound_share:.0%}: {speed} tokens/s {bound}"


def _goodput(report: Report) -> str:
    rate, share = report.throughput.goodput_rps, report.throughput.goodput_fraction
    return "" if rate is None or share is None else f"{shown(rate)} requests/s within the limits, {share:.0%} of all"


def _split(vram: VramReport) -> str:
    parts = vram.components
    if parts.kv_pool_bytes is None or parts.weights_bytes is None or parts.overhead_bytes is None:
        return ""
    weights, pool, rest = (value / MIB for value in (parts.weights_bytes, parts.kv_pool_bytes, parts.overhead_bytes))
    return f"{weights:,.0f} weights + {pool:,.0f} KV pool + {rest:,.0f} MiB other ({vram.method})"


def _planned(vram: VramReport) -> str:
    predicted = vram.predicted
    if predicted is None or predicted.error_pct is None:
        return ""
    source = f", overhead by {predicted.source}" if predicted.source else ""
    return f"{predicted.total_bytes / MIB:,.0f} MiB ({predicted.error_pct:+.1f} %){source}"


def _distribution(summary: Summary, unit: str) -> str:
    return f"median {shown(summary.p50)} {unit}, {shown(summary.min)} to {shown(summary.max)}"


def cell(text: str) -> str:
    """Text that stays in its cell: answers of a model can hold anything."""
    escaped = "".join(f"\\{letter}" if letter in "\\`*_[]<>|#" else letter for letter in _printable(text))
    return " ".join(escaped.split())


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _json(report: Report) -> str:
    return to_json(report, indent=2) + "\n"


def _html(report: Report, baseline: Report | None = None) -> str:
    found = (rows(report), machine(report.identity, report.created))
    first, where = ([(name, printable(value)) for name, value in one] for one in found)
    return html(report, first, where, baseline)


_FORMATS: dict[str, Callable[[Report], str]] = {".json": _json, ".md": markdown, ".xml": junit, ".html": _html}
