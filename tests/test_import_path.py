"""The working directory may be a model's: it is on no path of imports, ours or that of a Python which we start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploytk.base.import_path import leave_working_directory, python_environment


@pytest.mark.parametrize("entry", ["", ".", "here", "./", "link"])
def test_the_working_directory_is_left_however_it_is_written(
    entry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, other = tmp_path / "here", tmp_path / "other"
    here.mkdir()
    other.mkdir()
    (tmp_path / "link").symlink_to(here)
    monkeypatch.chdir(here)
    written = {"here": str(here), "link": str(tmp_path / "link")}.get(entry, entry)
    monkeypatch.setattr(sys, "path", [str(other), written, str(tmp_path)])

    leave_working_directory()

    assert sys.path == [str(other), str(tmp_path)]


def test_a_python_that_is_started_looks_only_where_it_was_told_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["other", str(tmp_path), "", ".", str(tmp_path / "other")]))

    environment = python_environment(MORE="1")

    # "other" would be another directory for a child that starts elsewhere; tmp_path is the working directory.
    assert environment["PYTHONPATH"] == str(tmp_path / "other")
    assert (environment["PYTHONSAFEPATH"], environment["MORE"]) == ("1", "1")


@pytest.mark.parametrize("how", [["-m", "deploytk"], ["-c", "from deploytk.__main__ import run; run()"]])
def test_the_command_imports_nothing_of_the_directory_that_it_is_started_in(how: list[str], tmp_path: Path) -> None:
    """Both put the working directory first; what Python itself loads before us is out of our reach."""
    names = ("typer", "rich", "yaml", "pydantic", "httpx", "json5", "numpy", "click", "typing_extensions")
    for name in names:
        (tmp_path / f"{name}.py").write_text("raise SystemExit('owned')\n")
    (tmp_path / "config.json").write_text("{}")

    done = subprocess.run([sys.executable, *how, "plan", "."], cwd=tmp_path, capture_output=True, text=True, timeout=60)

    assert "owned" not in done.stdout + done.stderr
    assert done.stderr.startswith("error: "), done.stderr
