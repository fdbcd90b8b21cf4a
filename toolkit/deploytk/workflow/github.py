"""What GitHub wants of a summary: the job's page, the step's outputs, annotations.

https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path

from deploytk.base.errors import UsageError
from deploytk.base.files import disk_errors
from deploytk.base.terminal import one_line
from deploytk.workflow.markdown import markdown
from deploytk.workflow.value import Summary

_LONGEST = 1000  # characters of an annotation


def tell_github(summary: Summary, environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Write the job's page and the step's outputs where GitHub looks for them; the annotations are the answer.

    Raises UsageError outside of a step.
    """
    page, outputs = (_file(environment, name) for name in ("GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT"))
    _append(page, markdown(summary) + "\n")
    _append(outputs, "".join(_assignment(name, value) for name, value in summary.outputs.items()))
    return tuple(_annotations(summary))


def _file(environment: Mapping[str, str], name: str) -> Path:
    value = environment.get(name)
    if not value:
        raise UsageError(f"{name} is not set: this is no step of GitHub Actions", hint="leave out --github")
    return Path(value)


def _append(path: Path, text: str) -> None:
    with disk_errors(path, UsageError), path.open("a", encoding="utf-8") as file:
        file.write(text)


def _assignment(name: str, value: str) -> str:
    """A value on one line, behind a mark that nobody can know beforehand: no value becomes another output."""
    mark = f"deploytk-{secrets.token_hex(16)}"
    return f"{name}<<{mark}\n{one_line(value, 4 * _LONGEST)}\n{mark}\n"


def _annotations(summary: Summary) -> Iterator[str]:
    for step in summary.steps:
        for one in step.findings:
            text = f"{one.message} ({one.hint})" if one.hint else one.message
            title = _escaped(f"deploytk {step.command}").replace(":", "%3A").replace(",", "%2C")
            yield f"::{one.level} title={title}::{_escaped(one_line(text, _LONGEST))}"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
