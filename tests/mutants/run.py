"""Runs the tests that see a line with that line changed, in a copy of the checkout."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import coverage
from cosmic_ray.mutating import use_mutation
from cosmic_ray.plugins import get_operator

from tests.mutants.rooms import Room
from tests.mutants.sample import Mutant

_PYTEST = (sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider")
_LEAST_WITHIN_S = 60.0
_SLOWER = 4.0  # than without a mutant: then it does not end by itself

Fate = Literal["killed", "timeout", "survived"]


@dataclass(frozen=True, slots=True)
class Bed:
    """A copy with the tests of a room known to pass, and which of them see which line."""

    root: Path
    tests: Mapping[tuple[Path, int], tuple[str, ...]]
    all_tests: tuple[str, ...]  # of the room
    within_s: float

    def seeing(self, path: Path, line: int) -> tuple[str, ...]:
        """Those that run the line; all when none does: it may run in a process that a test starts, as the app does."""
        return self.tests.get((path, line)) or self.all_tests


def copy_checkout(source: Path, root: Path) -> None:
    """All that the tests need."""
    ignored = shutil.ignore_patterns("__pycache__", ".deploytk", "mutants")
    for name in ("toolkit", "templates", "images", "tests", "docs", "tools"):
        shutil.copytree(source / name, root / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "CHANGELOG.md", "CONTRIBUTING.md"):
        shutil.copy(source / name, root)


def bed_for(room: Room, root: Path) -> Bed:
    """Raises RuntimeError when the tests fail without any mutant."""
    data = root / ".coverage"
    settings = root / ".coveragerc"
    settings.write_text(f"[run]\ndynamic_context = test_function\ndata_file = {data}\nsource = toolkit/deploytk\n")
    command = [sys.executable, "-m", "coverage", "run", f"--rcfile={settings}", *_PYTEST[1:]]
    started = time.monotonic()
    done = subprocess.run(
        [*command, *room.test_files(root)],
        cwd=root,
        env=_environment(root),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the tests fail without a mutant:\n{done.stdout[-2000:]}")
    within_s = max(_LEAST_WITHIN_S, _SLOWER * (time.monotonic() - started))
    return Bed(root, _seen(data, room, root), tuple(room.test_files(root)), within_s)


def _seen(data: Path, room: Room, root: Path) -> dict[tuple[Path, int], tuple[str, ...]]:
    """The tests that run each line; for one that runs as its module is loaded, all that run anything of it."""
    found = coverage.CoverageData(str(data))
    found.read()
    seen: dict[tuple[Path, int], tuple[str, ...]] = {}
    for module in room.modules(root):
        contexts = found.contexts_by_lineno(str(root / module))
        of_module = {context for line in contexts.values() for context in line if context}
        for first, last in _statements((root / module).read_text(encoding="utf-8")):
            run_by = {context for line in range(first, last + 1) for context in contexts.get(line, ())}
            tests = of_module if "" in run_by else run_by
            seen |= {(module, line): tuple(sorted(map(_node, tests))) for line in range(first, last + 1)}
    return seen


def _statements(source: str) -> Iterator[tuple[int, int]]:
    """First and last line of every statement, those within others later; of one with a body the lines before that."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None)
            last = max(node.lineno, body[0].lineno - 1) if body else node.end_lineno or node.lineno
            yield node.lineno, last


def _node(context: str) -> str:
    """`test_plan.test_x`, as coverage writes it, as pytest does."""
    module, _, test = context.removeprefix("tests.").partition(".")
    return f"tests/{module}.py::{test.replace('.', '::')}"


def fate_of(mutant: Mutant, bed: Bed) -> Fate:
    """What the tests do about it."""
    operator = get_operator(mutant.spec.operator_name)(**mutant.spec.operator_args)
    with use_mutation(bed.root / mutant.path, operator, mutant.spec.occurrence):
        child = subprocess.Popen(
            [*_PYTEST, *bed.seeing(mutant.path, mutant.line)],
            cwd=bed.root, env=_environment(bed.root), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        try:
            return "killed" if child.wait(bed.within_s) else "survived"
        except subprocess.TimeoutExpired:
            return "timeout"
        finally:
            _end(child)


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        os.killpg(child.pid, 9)
    child.wait()


def _environment(root: Path) -> dict[str, str]:
    paths = [str(root / "toolkit"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"}
