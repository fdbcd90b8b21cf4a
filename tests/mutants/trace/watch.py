"""A plugin of pytest that tells the recorder which test runs, and writes down how long each took."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from sitecustomize import recorder

_seconds: defaultdict[str, float] = defaultdict(float)


def _tell(item: pytest.Item, phase: str) -> Iterator[None]:
    if recorder is not None:
        recorder.test_is(f"{item.nodeid} ({phase})")
    yield
    if recorder is not None:
        recorder.test_is("")


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


def pytest_sessionfinish() -> None:
    Path(os.environ["MUTANTS_SEEN"], "seconds.json").write_text(json.dumps(_seconds))
