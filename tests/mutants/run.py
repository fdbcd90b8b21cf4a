"""Plants a mutant in the copy and runs the tests that may notice, in a child that has the large libraries already."""

from __future__ import annotations

import contextlib
import importlib
import os
import select
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

import pytest
from cosmic_ray.mutating import use_mutation
from cosmic_ray.plugins import get_operator

from tests.mutants.bed import Bed, place_of_tests
from tests.mutants.sample import Mutant

_LIBRARIES = ("docker", "fastapi", "httpx", "huggingface_hub", "hypothesis", "jinja2", "numpy", "openai", "pydantic")
_LIBRARIES += ("rich.progress", "safetensors.numpy", "typer", "uvicorn", "yaml")
# Plugins of pytest that are among the libraries.
_QUIETLY = ("-W", "ignore::pytest.PytestAssertRewriteWarning")
_LEAST_WITHIN_S = 120.0
_SLOWER = 10.0  # than without a mutant: then it does not end by itself


@dataclass(frozen=True, slots=True)
class Fate:
    """What the tests did about a mutant."""

    status: Literal["killed", "timeout", "survived", "unjudged"]
    killer: str  # the test that failed, "" when none did
    tests: int  # that could have
    missing: frozenset[str] = frozenset()  # why others could not be asked here, when none of these did

    @property
    def is_found(self) -> bool:
        return self.status in ("killed", "timeout")


def load_libraries() -> None:
    """What every child would have to load. Nothing of ours is among it."""
    for name in _LIBRARIES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def fate_of(mutant: Mutant, beds: Iterable[Bed]) -> Fate:
    """Asks the tests of one bed after the other. What none finds is not judged where some could not be asked."""
    operator = get_operator(mutant.operator)()
    asked, missing = 0, frozenset[str]()
    for bed, tests in _tests_of(mutant, beds):
        if tests:
            with use_mutation(bed.root / mutant.path, operator, mutant.occurrence):
                status, killer = _run(tests, bed)
            if status != "survived":
                return Fate(status, killer, len(tests))
        asked, missing = asked + len(tests), missing | bed.missing
    return Fate("unjudged" if missing else "survived", "", asked, missing)


def _tests_of(mutant: Mutant, beds: Iterable[Bed]) -> Iterator[tuple[Bed, tuple[str, ...]]]:
    """All there are when none is known to run the line: it may run in a process that could not be watched."""
    asked = []
    for bed in beds:
        asked.append((bed, bed.tests_of(mutant.path, mutant.line)))
        yield asked[-1]
    if not any(tests for _, tests in asked):
        yield from ((bed, bed.all_tests) for bed, _ in asked)


def _run(tests: tuple[str, ...], bed: Bed) -> tuple[Literal["killed", "timeout", "survived"], str]:
    within_s = max(_LEAST_WITHIN_S, _SLOWER * sum(bed.seconds[test] for test in tests))
    report = bed.root / "killer"
    report.write_text("")
    with _child(tests, report, bed) as pid:
        ending = os.pidfd_open(pid)
        has_ended, _, _ = select.select([ending], [], [], within_s)
        os.close(ending)
        if not has_ended:
            return "timeout", ""
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    killer = report.read_text()
    if bool(code) != bool(killer):
        raise RuntimeError(f"pytest ended with {code}: {(bed.root / 'output').read_text()[-2000:]}")
    return ("killed" if code else "survived"), killer


@contextlib.contextmanager
def _child(tests: tuple[str, ...], report: Path, bed: Bed) -> Iterator[int]:
    """A process that runs the tests; it and all that it started are gone afterwards."""
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        _test(tests, report, bed)
    try:
        yield pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


def _test(tests: tuple[str, ...], report: Path, bed: Bed) -> NoReturn:
    code = 70
    try:
        os.setsid()
        _move_to(bed.root)
        arguments = ["-x", "-q", "-p", "no:cacheprovider", *_QUIETLY, "--timeout=0"]
        arguments += [f"--basetemp={place_of_tests(bed.root)}"]
        arguments += ["-m", bed.marker] if bed.marker else []
        for part in _parts(tests):
            files = sorted({_file_of(test) for test in part})
            code = pytest.main([*arguments, *files], plugins=[_InOrder(part, report)])
            if code == pytest.ExitCode.USAGE_ERROR:  # without the mutant the same call was none
                report.write_text("loading tests/conftest.py")
            if code:
                break
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        sys.stdout.flush()
        os._exit(code)


def _parts(tests: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Those of the file that has most of them, then the others: to load many files takes longer than most tests."""
    count = Counter(map(_file_of, tests))
    most = max(count, key=count.__getitem__)
    yield tuple(test for test in tests if _file_of(test) == most)
    if len(count) > 1:
        yield tuple(test for test in tests if _file_of(test) != most)


def _file_of(test: str) -> str:
    return test.partition("::")[0]


def _move_to(root: Path) -> None:
    """See the copy and nothing of the checkout; leave no bytecode of a mutant."""
    os.chdir(root)
    output = os.open("output", os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    for descriptor in range(3):
        os.dup2(output, descriptor)
    os.environ |= {"PYTHONPATH": str(root / "toolkit"), "PYTHONDONTWRITEBYTECODE": "1"}
    sys.dont_write_bytecode = True
    checkout = str(Path(__file__).parents[2])
    sys.path[:] = [str(root / "toolkit"), *(path for path in sys.path if path not in ("", checkout))]
    sys.path_importer_cache.clear()
    for name in [name for name in sys.modules if name.partition(".")[0] in ("deploytk", "tests")]:
        del sys.modules[name]


class _InOrder:
    """A plugin of pytest: these tests and no others, in this order; notes the one that fails."""

    def __init__(self, tests: tuple[str, ...], report: Path) -> None:
        self._place = {test: place for place, test in enumerate(tests)}
        self._report = report

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted((i for i in items if i.nodeid in self._place), key=lambda item: self._place[item.nodeid])

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._report.write_text(f"loading {report.nodeid}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._report.write_text(report.nodeid)
