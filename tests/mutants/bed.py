"""A copy of the checkout in which the tests of a room are known to pass, and which of them run which line."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.rooms import PACKAGE, TIMED, Room, files_of

_TRACE = Path(__file__).with_name("trace")
_PYTEST = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "watch", "--timeout=0")
_LONGEST_SHARE = 0.03  # of all tests of the room together

Lines = Mapping[tuple[Path, int], frozenset[str]]


@dataclass(frozen=True, slots=True)
class Bed:
    root: Path
    marker: str  # of its tests, "" for those that need nothing
    seconds: Mapping[str, float]  # of every test of the room
    missing: frozenset[str]  # why tests are skipped here: "needs git-lfs"
    nearest: Lines  # the tests that run a line themselves
    files: Lines  # the files of tests in which it runs while something is set up that they may share

    def tests_of(self, path: Path, line: int) -> tuple[str, ...]:
        """Those that may notice a change of the line, the likeliest and quickest first."""
        nearest = self.nearest.get((path, line), frozenset())
        files = self.files.get((path, line), frozenset())
        others = {test for test in self.seconds if test.partition("::")[0] in files} - nearest
        return (*self._quickest(nearest), *self._quickest(others))

    @property
    def all_tests(self) -> tuple[str, ...]:
        return tuple(self._quickest(self.seconds))

    def _quickest(self, tests: Iterable[str]) -> list[str]:
        """In the order of their time. Slow ones take no part: what they alone would find counts as not found."""
        longest_s = _LONGEST_SHARE * sum(self.seconds.values())
        quick = (test for test in tests if self.seconds[test] <= longest_s)
        return sorted(quick, key=lambda test: (self.seconds[test], test))


def place_of_tests(root: Path) -> Path:
    """Where they keep their files: other runs of pytest clear the usual place while these still use it."""
    return root / "temporary"


def copy_checkout(source: Path, root: Path) -> None:
    """All that the tests need."""
    ignored = shutil.ignore_patterns("__pycache__", ".deploytk", "mutants")
    for name in ("toolkit", "templates", "images", "tests", "docs", "tools"):
        shutil.copytree(source / name, root / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "CHANGELOG.md", "CONTRIBUTING.md"):
        shutil.copy(source / name, root)


def bed_for(room: Room, root: Path, marker: str = "") -> Bed:
    """Runs the tests of the room. One that fails without any mutant takes no part, and is named."""
    seen = root / f"seen{marker}"
    seen.mkdir()
    wanted = ["-m", marker, *files_of(room.services, root)] if marker else files_of(room.tests, root)
    paths = os.pathsep.join([str(root / "toolkit"), str(_TRACE)])
    wanted += [f"--basetemp={place_of_tests(root)}", *(f"--deselect=tests/{test}" for test in TIMED)]
    # What is missing here is skipped, and counted as missing; where all must be there it would seem to fail.
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "DEPLOYTK_REQUIRE_SERVICES")}
    done = subprocess.run(
        [*_PYTEST, *wanted], cwd=root, capture_output=True, text=True, check=False,
        env={**environment, "PYTHONPATH": paths, "MUTANTS_WATCH": str(seen)},
    )  # fmt: skip
    if done.returncode not in (0, 1):
        raise RuntimeError(f"the tests do not run:\n{done.stdout[-2000:]}")
    seconds = json.loads((seen / "seconds.json").read_text())
    for test in [test for test in seconds if re.search(rf"(FAILED|ERROR) {re.escape(test)}( |$)", done.stdout, re.M)]:
        print(f"left out, it fails without a mutant: {test}", flush=True)
        del seconds[test]
    missing = frozenset(json.loads((seen / "missing.json").read_text()))
    return Bed(root, marker, seconds, missing, *_by_statement(_read(seen, seconds), room, root))


Seen = Mapping[Path, Mapping[int, set[str]]]
"""What ran each line of a module: a test, a file of tests that shares what it sets up, or "" as it was loaded."""


def _read(seen: Path, seconds: Mapping[str, float]) -> Seen:
    found: defaultdict[Path, defaultdict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    for file in seen.iterdir():
        by = ""
        for row in file.read_text().splitlines() if file.suffix != ".json" else ():
            first, _, rest = row.partition(" ")
            if first == "=":
                test, _, phase = rest.rpartition(" ")
                by = test if phase == "(call)" else test.partition("::")[0]
                by = by if by in seconds or "::" not in by else ""
            else:
                found[PACKAGE / rest][int(first)].add(by)
    return found


def _by_statement(seen: Seen, room: Room, root: Path) -> tuple[Lines, Lines]:
    """A statement that runs as its module is loaded concerns all that run anything of the module."""
    nearest: dict[tuple[Path, int], frozenset[str]] = {}
    files: dict[tuple[Path, int], frozenset[str]] = {}
    for module in room.modules(root):
        lines = seen.get(module, {})
        of_module = {by for line in lines.values() for by in line}
        for first, last in _statements((root / module).read_text(encoding="utf-8")):
            run_by = {by for line in range(first, last + 1) for by in lines.get(line, ())}
            run_by = of_module if "" in run_by else run_by
            for line in range(first, last + 1):
                nearest[module, line] = frozenset(by for by in run_by if "::" in by)
                files[module, line] = frozenset(by for by in run_by if by and "::" not in by)
    return nearest, files


def _statements(source: str) -> Iterator[tuple[int, int]]:
    """First and last line of every statement, those within others later; of one with a body the lines before that."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None)
            last = max(node.lineno, body[0].lineno - 1) if body else node.end_lineno or node.lineno
            yield node.lineno, last
