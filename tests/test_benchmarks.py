"""The benchmarks: that each can be run from a fresh clone, and that each figure in the results has one."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHARED = {"floors", "hub", "timing"}  # what several of them need
NAMES = sorted({path.stem for path in (ROOT / "benchmarks").glob("[a-z]*.py")} - SHARED)


@pytest.fixture(autouse=True)
def from_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


def test_no_benchmark_has_the_name_of_a_module_of_python() -> None:
    gpu = {path.stem for path in (ROOT / "benchmarks" / "gpu").glob("*.py")}

    assert not {*NAMES, *SHARED, *gpu} & sys.stdlib_module_names


def test_make_bench_runs_every_benchmark() -> None:
    from benchmarks.__main__ import NEEDS

    assert {*NEEDS} == {*NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_is_a_program_that_says_how_it_is_called(name: str) -> None:
    text = (ROOT / "benchmarks" / f"{name}.py").read_text()

    assert f"python -m benchmarks.{name}" in text
    assert 'if __name__ == "__main__":' in text
    assert "IS_SHORT" in text or "rounds_of(" in text


def test_every_script_that_the_results_name_is_there() -> None:
    named = set(re.findall(r"benchmarks/[\w/]+\.(?:py|sh)", (ROOT / "docs" / "results" / "README.md").read_text()))

    assert [path for path in named if not (ROOT / path).is_file()] == []


def test_what_a_machine_lacks_is_said_and_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks import __main__ as runner

    monkeypatch.setattr(runner, "NEEDS", {"push": ("no-such-program", "NO_SUCH_VARIABLE", "json")})
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--short"])

    assert runner.main() == 1  # nothing could be measured
    assert "push: left out, there is no no-such-program and no NO_SUCH_VARIABLE here" in capsys.readouterr().out
