"""A plugin of pytest that notes which lines each test runs, and how long each took."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import coverage
import pytest

_PLACE = Path(os.environ["MUTANTS_WATCH"])
os.environ["MUTANTS_SEEN"] = str(_PLACE)  # for the processes that tests start: see sitecustomize.py
_PACKAGE = "/toolkit/deploytk/"

_seconds: defaultdict[str, float] = defaultdict(float)
_missing: dict[str, str] = {}  # why a test is skipped, or a file of them
_coverage = coverage.Coverage(data_file=None, config_file=False, include=[f"*{_PACKAGE}*"])
_coverage.start()


def _tell(item: pytest.Item, phase: str) -> Iterator[None]:
    _coverage.switch_context(f"{item.nodeid} ({phase})")
    yield
    _coverage.switch_context("")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    yield from _tell(item, "setup")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    yield from _tell(item, "call")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    yield from _tell(item, "teardown")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _seconds[report.nodeid] += report.duration
    _note_skipped(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    _note_skipped(report)


def _note_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and isinstance(report.longrepr, tuple):
        _missing[report.nodeid] = report.longrepr[2].removeprefix("Skipped: ")


def pytest_sessionfinish() -> None:
    _coverage.stop()
    data, rows = _coverage.get_data(), list[str]()
    for path in data.measured_files():
        module = path.rpartition(_PACKAGE)[2]
        for line, tests in data.contexts_by_lineno(path).items():
            rows += [row for test in tests for row in (f"= {test}", f"{line} {module}")]
    (_PLACE / "tests").write_text("\n".join(rows))
    run = {test: seconds for test, seconds in _seconds.items() if test not in _missing}
    (_PLACE / "seconds.json").write_text(json.dumps(run))
    (_PLACE / "missing.json").write_text(json.dumps(sorted(set(_missing.values()))))
