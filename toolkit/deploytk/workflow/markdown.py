"""The summary as Markdown: whatever a model or a hub says stays in its cell."""

from __future__ import annotations

from collections.abc import Iterator

from deploytk.smoke.render import cell
from deploytk.workflow.value import Finding, Step, Summary

_MARKS = {"done": "✅", "failed": "❌", "inconclusive": "❔"}
_WORDS = {"error": "Error", "warning": "Warning", "notice": "Note"}


def markdown(summary: Summary) -> str:
    """One table for the commands, then what is wrong, then the smoke test's report."""
    lines = ["## deploytk", "", "| | | |", "|---|---|---|"]
    lines += [f"| {_MARKS[step.status]} | {step.command} | {_cells(step)} |" for step in summary.steps]
    findings = [line for step in summary.steps for line in _findings(step)]
    details = [step.detail for step in summary.steps if step.detail]
    return "\n".join([*lines, "", *findings, *[""] * bool(findings), *details])


def _cells(step: Step) -> str:
    rows = [f"{name}: {cell(value)}" for name, value in step.rows]
    return "<br>".join(rows) or ("see below" if step.detail or step.findings else "")


def _findings(step: Step) -> Iterator[str]:
    if step.detail:  # the report names them
        return
    for one in step.findings:
        yield f"- **{_WORDS[one.level]}**, {step.command}: {_sentence(one)}"


def _sentence(finding: Finding) -> str:
    return cell(f"{finding.message} ({finding.hint})" if finding.hint else finding.message)
