"""GitHub's own parser (its language service, on npm) takes every workflow and the action, and finds what is wrong."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from steps import ROOT
from test_clients import PROGRAMS
from test_foreign_verifiers import installed
from test_workflow_files import ALL

pytestmark = pytest.mark.services


def _said(files: list[Path]) -> dict[str, list[str]]:
    """By the name of the file, what is wrong with it: errors and warnings."""
    program = installed("vercel") / "workflows_reader.mjs"  # Node looks for packages beside the program
    program.write_bytes((PROGRAMS / program.name).read_bytes())
    done = subprocess.run(["node", program, *files], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return {Path(name).name: found for name, found in json.loads(done.stdout).items()}


def test_github_finds_nothing_wrong_in_workflows_and_action() -> None:
    said = _said([ROOT / name for name in ALL])

    assert len(said) == len(ALL)
    assert not any(said.values()), said


def test_github_would_find_it(tmp_path: Path) -> None:
    """A context and a job that are not there; a key, a reference and a kind of action that are none."""
    mistakes = {
        ".github/workflows/publish-model.yml": ("job.workflow_sha", "job.workflow_hash"),
        ".github/workflows/release.yml": ("needs: attest\n", "needs: attested\n"),
        ".github/workflows/check.yml": ("runs-on: ubuntu-24.04", "runs_on: ubuntu-24.04"),
        "examples/model-repository/.github/workflows/publish.yml": ("publish-model.yml@", "publish-model@"),
        "action.yml": ("using: composite", "using: composition"),
    }
    files = []
    for name, (right, wrong) in mistakes.items():
        text = (ROOT / name).read_text()
        assert right in text
        files.append(tmp_path / Path(name).name)
        files[-1].write_text(text.replace(right, wrong))

    said = _said(files)

    assert all(said.values()), said
