"""Runs the steps of a composite action as a runner of GitHub does: expressions, `if`, environment, outputs, bash."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
BASH = ("bash", "--noprofile", "--norc", "-e", "-o", "pipefail")  # what `shell: bash` means
_EXPRESSION = re.compile(r"\$\{\{\s*(.+?)\s*\}\}")


def load(path: str) -> Any:
    """A YAML file of this repository; `on` stays a word."""
    return yaml.load((ROOT / path).read_text(encoding="utf-8"), Loader=yaml.BaseLoader)


def blocks() -> Iterator[tuple[str, str]]:
    """Every `run` block of the action and of all workflows, with a name for it."""
    files = ["action.yml", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / ".github/workflows").glob("*.yml"))]
    for file in files:
        content = load(file)
        jobs = content["jobs"].values() if "jobs" in content else [content["runs"]]
        for number, step in enumerate(step for job in jobs for step in job.get("steps", ())):
            if "run" in step:
                yield f"{file}:{step.get('name', number)}", step["run"]


def outputs_in(file: Path) -> dict[str, str]:
    """As the runner reads them: NAME<<MARK, lines, MARK; or NAME=VALUE."""
    lines: Iterator[str] = iter(file.read_text().splitlines())
    found = {}
    for line in lines:
        name, mark = line.split("<<", 1) if "<<" in line else (line.split("=", 1)[0], "")
        found[name] = "\n".join(iter(lambda: next(lines), mark)) if mark else line.split("=", 1)[1]
    return found


@dataclass
class Runner:
    """A job in which the action of this repository is a step."""

    place: Path
    inputs: Mapping[str, str]
    environment: Mapping[str, str] = field(default_factory=dict)  # of the step that uses the action
    values: dict[str, str] = field(default_factory=dict)  # of other contexts: "steps.prepare.outputs.report"
    log: str = ""
    codes: dict[str, int] = field(default_factory=dict)  # step -> exit code

    def __post_init__(self) -> None:
        self.action = load("action.yml")
        declared = {name: one.get("default", "") for name, one in self.action["inputs"].items()}
        assert {*self.inputs} <= {*declared}
        self.values |= {f"inputs.{name}": value for name, value in {**declared, **self.inputs}.items()}
        self.values["github.action_path"] = str(ROOT)

    def run(self, *, skipping: tuple[str, ...] = ()) -> Runner:
        """All steps with a script whose `if` holds; those after a failure only with always()."""
        for step in self.action["runs"]["steps"]:
            name, is_unhurt = step.get("name", step.get("uses")), not any(self.codes.values())
            if "run" in step and name not in skipping and self._holds(step.get("if", ""), is_unhurt=is_unhurt):
                self.codes[name] = self._script(step)
        return self

    def outputs(self) -> dict[str, str]:
        declared = self.action["outputs"].items()
        found = {name: self._expanded(one["value"]) for name, one in declared}
        return {name: value for name, value in found.items() if value}

    def page(self) -> str:
        path = self.place / "page"
        return path.read_text() if path.is_file() else ""

    def _script(self, step: Mapping[str, Any]) -> int:
        script, output = self.place / "script", self.place / "output"
        script.write_text(step["run"])
        output.write_text("")
        own = {name: self._expanded(value) for name, value in step.get("env", {}).items()}
        files = {"GITHUB_OUTPUT": str(output), "GITHUB_STEP_SUMMARY": str(self.place / "page")}
        runner = {"RUNNER_TEMP": str(self.place), **files}
        done = subprocess.run(
            [*BASH, str(script)],
            cwd=self.place,
            env={**os.environ, **self.environment, **own, **runner},
            capture_output=True,
            text=True,
            timeout=1800,
        )
        self.log += done.stdout + done.stderr
        if "id" in step:
            self.values |= {f"steps.{step['id']}.outputs.{name}": text for name, text in outputs_in(output).items()}
            self.values[f"steps.{step['id']}.outcome"] = "failure" if done.returncode else "success"
        return done.returncode

    def _expanded(self, text: str) -> str:
        return _EXPRESSION.sub(lambda found: self.values.get(found[1], ""), text)

    def _holds(self, condition: str, *, is_unhurt: bool) -> bool:
        """`a == 'b' && always()`: all that the action uses; without always() only as long as nothing has failed."""
        terms = [term.strip() for term in (_EXPRESSION.sub(r"\1", condition)).split("&&") if term.strip()]
        return (is_unhurt or "always()" in terms) and all(self._is_true(term) for term in terms)

    def _is_true(self, term: str) -> bool:
        if term == "always()":
            return True
        left, sign, right = term.split(" ")
        is_equal = self.values.get(left, "") == right.strip("'")
        assert sign in ("==", "!=")
        return is_equal is (sign == "==")
