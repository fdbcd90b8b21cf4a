"""Shows the values of the stages to a person, on stdout."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from deploytk.gpus import MIB
from deploytk.values import plain

if TYPE_CHECKING:
    from deploytk.artifact import Artifact
    from deploytk.bench import Comparison, Result
    from deploytk.bundle import Bundle
    from deploytk.demo import Demo
    from deploytk.doctor import Checkup
    from deploytk.image.value import Image
    from deploytk.plan import ServingPlan
    from deploytk.preflight import Preflight
    from deploytk.preview import Endpoint
    from deploytk.release import Change, Release, ReleasePlan
    from deploytk.smoke import Report

_VISIBILITY = {True: "private", False: "public", None: "as the target is"}
_LEVEL_STYLE = {"error": "bold red", "warning": "yellow", "info": "cyan"}


def show_fields(value: object) -> None:
    """Any value as a two-column table, a row per field."""
    fields = plain(value)
    rows = fields.items() if isinstance(fields, dict) else [("value", fields)]
    _show_rows((name.replace("_", " "), _amount(name, item)) for name, item in rows)


def show_artifact(artifact: Artifact) -> None:
    quantized = f"{artifact.weight_format}, {artifact.weight_bits} bit, group {artifact.group_size}"
    attention = f"{artifact.heads} heads of {artifact.head_dim}, {artifact.kv_heads} for keys and values"
    versions = artifact.lmdeploy
    served = f"{versions.min} to {versions.max}, best {versions.pin}" if versions.pin else "none"
    _show_rows(
        [
            ("directory", str(artifact.root)),
            ("layout", f"{artifact.layout}, made by {artifact.made_by}"),
            ("architecture", artifact.architecture),
            ("weights", quantized if artifact.is_quantized else artifact.weight_dtype),
            ("size on disk", f"{_mib(artifact.weights_bytes)}, {artifact.parameters / 1e6:,.1f} million parameters"),
            ("shape", f"{artifact.layers} layers, hidden {artifact.hidden_size}, {attention}"),
            ("vocabulary", f"{artifact.vocab_size:,}"),
            ("session length", f"{artifact.session_len:,} tokens"),
            ("KV cache", "not quantized" if artifact.kv_policy == "none" else artifact.kv_policy),
            ("tensor parallel", str(artifact.tensor_parallel)),
            ("chat template", artifact.chat_template or "none"),
            ("LMDeploy", served),
            ("", versions.reason),
        ]
    )
    for problem in artifact.problems:
        text = Text.assemble((f"{problem.level}: ", _LEVEL_STYLE[problem.level]), problem.message)
        _console().print(text)
        _console().print(Text(f"  {problem.hint}", style="dim"))


def show_plan(plan: ServingPlan) -> None:
    vram = plan.vram
    where = f" on {plan.gpu.name} ({_mib(plan.gpu.total_bytes)})" if plan.gpu else ""
    verdict = {True: f"fits{where}", False: f"does not fit{where}", None: "not judged: no --gpu given"}[plan.fits]
    policy = "not quantized" if plan.kv_policy == "none" else f"{plan.kv_policy} (quant_policy {plan.quant_policy})"
    _show_rows(
        [
            ("engine", f"{plan.engine}, LMDeploy {plan.lmdeploy}" if plan.lmdeploy else plan.engine),
            ("sessions", f"{plan.max_batch_size} at once, {plan.session_len:,} tokens each"),
            ("KV cache", f"{policy}, {plan.kv_bytes_per_token:,} bytes per token"),
            ("KV capacity", f"{plan.kv_capacity_tokens:,} tokens, cache_max_entry_count {plan.cache_max_entry_count}"),
            ("VRAM: weights", _mib(vram.weights_bytes)),
            ("VRAM: KV pool", _mib(vram.kv_pool_bytes)),
            ("VRAM: overhead", _mib(vram.overhead_bytes)),
            ("VRAM: total", _mib(vram.total_bytes)),
            ("verdict", verdict),
            ("largest session", f"{plan.largest_session_len:,} tokens" if plan.largest_session_len else "-"),
            ("largest batch", str(plan.largest_batch or "-")),
            *((f"config.ini: {key}", value) for key, value in plan.config_ini),
        ]
    )
    _show_notes(plan.notes)
    _console().print("\nStart it with:", style="dim")
    _plain_line(_shell(plan.argv))


def show_bundle(bundle: Bundle) -> None:
    weights = sum(file.size for file in bundle.files if file.kind == "weights")
    _show_rows(
        [
            ("bundle", str(bundle.path)),
            ("digest", bundle.digest),
            ("files", f"{len(bundle.files)}, {_mib(bundle.bytes)}, {_mib(weights)} of it weights"),
            ("copied", _mib(bundle.copied_bytes) if bundle.copied_bytes else "no weight: they are hard links"),
        ]
    )
    _console().print("\nNext:", style="dim")
    _plain_line(f"deploytk serve {bundle.path}")
    _plain_line(f"deploytk publish {bundle.path} --target local --plan")


def show_release_plan(plan: ReleasePlan) -> None:
    _show_changes(plan.changes)
    _show_rows(
        [
            ("target", f"{plan.target}, {plan.repo}"),
            ("visibility", _VISIBILITY[plan.is_private]),
            ("to send", _mib(plan.upload_bytes)),
            ("credentials", plan.permissions),
        ]
    )
    if plan.app:
        _console().print()
        _show_changes(plan.app.changes)
        _show_rows(
            [
                ("app", plan.app.place),
                ("runs with", f"{plan.app.sdk}, {plan.app.hardware or 'no hardware is ordered'}"),
                ("visibility", _VISIBILITY[plan.app.is_private]),
                ("secrets", ", ".join(plan.app.secrets) or "none"),
                ("to send", _mib(plan.app.upload_bytes)),
            ]
        )
        _show_notes([plan.app.doubt] if plan.app.doubt else [])


def _show_changes(changes: Sequence[Change]) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("status")
    table.add_column("file")
    table.add_column("to send", justify="right")
    for change in changes:
        table.add_row(change.status, Text(change.path), _mib(change.bytes) if change.bytes else "")
    _print_whole(table, len("changed  " + "  1,000,000.0 MiB"), (change.path for change in changes))


def show_release(release: Release) -> None:
    _show_rows(
        [
            ("target", f"{release.target}, {release.repo}"),
            ("revision", release.revision),
            ("url", release.url),
            ("sent", f"{release.uploaded_files} files, {_mib(release.uploaded_bytes)}"),
            ("unchanged", f"{release.unchanged_files} files"),
            ("verified", f"by {release.verified_by}" if release.verified else "no"),
        ]
    )
    for number, step in enumerate(release.steps_left, 1):
        _console().print(Text(f"{number}. {step}"))


def _show_rows(rows: Iterable[tuple[str, str]]) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    shown = list(rows)
    for name, value in shown:
        table.add_row(name, Text(value))
    names = max((len(name) for name, _ in shown), default=0)
    _print_whole(table, names + 3, (word for _, value in shown for word in value.split()))


def _print_whole(table: Table, beside: int, words: Iterable[str]) -> None:
    """Print a table with none of these words broken: digests and paths are there to be copied."""
    console = _console()
    console.width = max(console.width, beside + max(map(len, words), default=0))
    console.print(table)


def _show_notes(notes: Iterable[str]) -> None:
    for note in notes:
        _console().print(Text(f"note: {note}", style="yellow"))


def _plain_line(text: str) -> None:
    """A line to copy: never wrapped, never styled."""
    _console().print(Text(text), soft_wrap=True)


def _shell(argv: Iterable[str]) -> str:
    from shlex import join

    return join(argv)


def _console() -> Console:
    return Console(highlight=False)


def _amount(name: str, item: Any) -> str:
    if isinstance(item, Path):
        return str(item)
    if name.endswith("bytes") and isinstance(item, int):
        return _mib(item)
    if isinstance(item, float):
        return f"{item:,.2f}"
    return str(item)


def _mib(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB"


def show_checkup(checkup: Checkup) -> None:
    style = {"ok": "green", "missing": "yellow", "broken": "bold red"}
    table = Table(box=None, pad_edge=False)
    for column in ("", "status", "found", "needed for"):
        table.add_column(column, overflow="fold")
    for check in checkup.checks:
        table.add_row(check.name, Text(check.status, style=style[check.status]), Text(check.detail), check.needed_for)
    _console().print(table)
    for check in checkup.checks:
        if check.hint:
            _console().print(Text(f"{check.name}: {check.hint}", style="dim"))
    _console().print("\nWorks here:")
    for command in checkup.can:
        _plain_line(f"  {command}")


def show_endpoint(endpoint: Endpoint) -> None:
    _show_rows(
        [
            ("page and API", endpoint.url),
            ("model", endpoint.model),
            ("engine", f"{endpoint.engine}, its output is in {endpoint.engine_log}"),
            ("stop", "Ctrl-C"),
        ]
    )
    body = json.dumps({"model": endpoint.model, "messages": [{"role": "user", "content": "Hello"}]})
    _console().print("\nTry:", style="dim")
    _plain_line(f"curl {endpoint.url}/v1/chat/completions -H 'Content-Type: application/json' -d '{body}'")


def show_report(report: Report) -> None:
    from deploytk.smoke.render import rows

    style = {"pass": "bold green", "fail": "bold red", "inconclusive": "bold yellow"}[report.verdict.status]
    _console().print(Text(f"smoke test: {report.verdict.status}", style=style))
    for reason in report.verdict.reasons:
        _console().print(Text(f"  {reason}", style=style.removeprefix("bold ")))
    _show_rows(rows(report))
    for check in report.checks:
        value = "-" if check.value is None else f"{check.value:,.1f}"
        _console().print(Text(f"{check.status}: {check.metric} {value}, {check.op} {check.limit:g}"))


def show_preflight(found: Preflight) -> None:
    for finding in found.findings:
        style = "bold red" if finding.level == "error" else "yellow"
        _console().print(Text(f"{finding.level}: {finding.message}", style=style))
        _console().print(Text(f"  {finding.hint}", style="dim"))
    answer = "none" if found.first_answer_s is None else f"after {found.first_answer_s:.1f} s"
    asked = "" if found.resolved_by_pip else "; --network lets pip resolve the requirements"
    _show_rows(
        [
            ("first answer", answer),
            ("listens on", ", ".join(found.listens_on) or "nothing"),
            ("ran", "; ".join(found.ran) or "no slow program"),
            ("Python", f"{found.python_here} here, {found.python_there} on {found.platform}{asked}"),
            ("pre-flight", "passed" if found.passed else "not passed"),
        ]
    )


def show_image(image: Image) -> None:
    table = Table("layer", "kind", "MiB", "", box=None)
    for layer in image.layers:
        was = "there already" if layer.reused else "sent"
        table.add_row(layer.digest.removeprefix("sha256:")[:12], layer.kind, f"{layer.size / MIB:,.1f}", was)
    _console().print(table)
    where = {"daemon": "in Docker", "registry": "in the registry"}.get(image.output, f"in {image.output}")
    _show_rows(
        [
            ("image", f"{image.tag}, {where}"),
            ("image ID", image.image_id),
            ("digest", image.digest),
            ("sent", f"{image.sent_bytes / MIB:,.1f} MiB in {image.seconds:.1f} s"),
        ]
    )


def show_bench(result: Result) -> None:
    from rich.markdown import Markdown

    from deploytk.bench.report import markdown

    _console().print(Markdown(markdown(result)))


def show_comparison(comparison: Comparison) -> None:
    table = Table("cell", "metric", "B / A", "95 %", "", box=None)
    for change in comparison.changes:
        ratio = "-" if change.ratio is None else f"{change.ratio:.3f}"
        interval = "-" if change.low is None else f"{change.low:.3f} to {change.high:.3f}"
        table.add_row(change.cell, change.metric, ratio, interval, change.judgement)
    for memory in comparison.memory:
        if memory.mib is not None:
            judgement = "more" if memory.is_more else "same"
            table.add_row(memory.cell, "VRAM", f"{memory.mib:+,.0f} MiB", "", judgement)
    _console().print(Text(f"B against A: {comparison.status}", style="bold"))
    _console().print(table)
    for cell in comparison.only_in_one:
        _console().print(Text(f"only in one of them: {cell}"))
    for line in comparison.failures:
        _console().print(Text(line))
    for line in comparison.doubts:
        _console().print(Text(f"left out: {line}"))


def show_demo(demo: Demo) -> None:
    show_report(demo.report)
    _console().print()
    _show_rows(
        [
            ("legacy workspace", f"published and verified, revision {demo.workspace_release.revision[:12]}"),
            ("AWQ model", f"published and verified, revision {demo.release.revision[:12]}, served and judged"),
            ("everything", str(demo.directory)),
            ("models", str(demo.directory / "models")),
            ("bundles", str(demo.directory / "bundles")),
            ("hub", str(demo.directory / "hub")),
            ("report", str(demo.report_path)),
        ]
    )
    _console().print("\nNext:", style="dim")
    _plain_line(f"deploytk serve {demo.directory / 'bundles' / 'hf-awq'} --engine cpu")
    _plain_line("deploytk inspect YOUR-MODEL")
