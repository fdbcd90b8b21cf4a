"""Shows what runs and what works here."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from deploytk.base.terminal import console, quoted
from deploytk.display.measure import show_report
from deploytk.display.rows import plain_line, show_rows

if TYPE_CHECKING:
    from deploytk.artifact import Artifact
    from deploytk.demo import Demo
    from deploytk.doctor import Checkup
    from deploytk.serve import Endpoint


def show_checkup(checkup: Checkup) -> None:
    style = {"ok": "green", "missing": "yellow", "broken": "bold red"}
    table = Table(box=None, pad_edge=False)
    for column in ("", "status", "found", "needed for"):
        table.add_column(column, overflow="fold")
    for check in checkup.checks:
        table.add_row(check.name, Text(check.status, style=style[check.status]), Text(check.detail), check.needed_for)
    console().print(table)
    for check in checkup.checks:
        if check.hint:
            console().print(Text(f"{check.name}: {check.hint}", style="dim"))
    console().print("\nWorks here:")
    for command in checkup.can:
        plain_line(f"  {command}")


def show_endpoint(endpoint: Endpoint) -> None:
    show_rows(
        [
            ("page and API", endpoint.url),
            ("model", endpoint.model),
            ("engine", f"{endpoint.engine}, its output is in {endpoint.engine_log}"),
            ("stop", "Ctrl-C"),
        ]
    )
    body = json.dumps({"model": endpoint.model, "messages": [{"role": "user", "content": "Hello"}]})
    console().print("\nTry, in a second terminal:", style="dim")
    plain_line(f"deploytk chat {endpoint.url}")
    plain_line(f"deploytk smoke {endpoint.url}")
    plain_line(f"curl {endpoint.url}/v1/chat/completions -H 'Content-Type: application/json' -d '{body}'")


def show_demo(demo: Demo) -> None:
    if demo.report:
        show_report(demo.report)
        console().print()
    served = "served and judged" if demo.report else "not served: that takes the extra [cpu]"
    show_rows(
        [
            ("legacy workspace", f"{demo.inspected.made_by}, served by LMDeploy {_versions(demo.inspected)}"),
            ("", f"modernized for current LMDeploy: {demo.modernized.path}"),
            ("", f"published and verified, revision {demo.workspace_release.revision[:12]}"),
            ("AWQ model", f"published and verified, revision {demo.release.revision[:12]}, {served}"),
            *_quantized_rows(demo),
            ("everything", str(demo.directory)),
            ("models", str(demo.directory / "models")),
            ("bundles", str(demo.directory / "bundles")),
            ("hub", str(demo.directory / "hub")),
            *([("report", str(demo.report_path))] if demo.report else []),
        ]
    )
    console().print("\nNext:", style="dim")
    plain_line("deploytk inspect YOUR-MODEL")
    if demo.report:
        # The chat page; it blocks, so it stands last.
        plain_line(f"deploytk serve {quoted(demo.directory / 'models' / 'hf-awq')} --engine cpu --open")
    else:
        plain_line("uvx --from 'deploytk[cpu,ui]' deploytk demo      (or pip install 'deploytk[cpu,ui]')")


def _quantized_rows(demo: Demo) -> list[tuple[str, str]]:
    if demo.quantized is None:
        return []
    by = demo.quantized.quantized_by
    answers = f", {by.cost.golden_after} of {by.cost.golden} known answers right" if by.cost else ""
    return [
        (
            "quantized here",
            f"16 bits to 4 by {by.tool} {by.tool_version} in {demo.quantized.seconds.tool:.0f} s{answers}",
        )
    ]


def _versions(artifact: Artifact) -> str:
    versions = artifact.lmdeploy
    return f"{versions.min} to {versions.max} alone" if versions.min != versions.max else f"{versions.pin} alone"
