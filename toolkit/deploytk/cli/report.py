"""The command that computes every figure again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from deploytk.cli.command import command
from deploytk.cli.defaults import source_argument
from deploytk.cli.options import ReportFile
from deploytk.cli.session import show, unused


@command("deploytk report raw.jsonl -o report.html")
def report(
    source: Annotated[Path, source_argument("FILE|DIR", "Raw data or a report of smoke, or bench's DIR.")],
    output: ReportFile = None,
) -> None:
    """Compute every figure again from raw data, and show it."""
    from deploytk.smoke import write_report
    from deploytk.smoke.render import check_path, read_any

    if source.is_dir():
        from deploytk.bench import read_result

        unused("output", because=f"{source} is a directory of bench, which has its reports in it")
        show(read_result(source, gpu=None, objective="throughput"), "show_bench")
        return
    if output:
        check_path(output)
    found = read_any(source)
    if output:
        write_report(found, output)
    show(found, "show_report")
