"""The raw data of a bench: a file per cell and repetition."""

from __future__ import annotations

from pathlib import Path

from deploytk.base.errors import UsageError
from deploytk.bench.matrix import Deployment, Load
from deploytk.smoke import Budget, Evidence, read_raw

Repetitions = dict[int, Evidence]
"""The repetitions of one cell by their number."""


def cell_path(out: Path, deployment: Deployment, load: Load, repetition: int) -> Path:
    return out / "cells" / f"{deployment.name}.{load.name}.r{repetition}.jsonl"


def read_cells(out: Path) -> dict[str, Repetitions]:
    """Cell -> what was measured, by the number of the repetition; raises UsageError where there is nothing."""
    return {cell: {number: one for number, (one, _) in found.items()} for cell, found in read_judged_cells(out).items()}


def read_judged_cells(out: Path) -> dict[str, dict[int, tuple[Evidence, Budget]]]:
    """The same, with the objectives that each was measured with."""
    found: dict[str, dict[int, tuple[Evidence, Budget]]] = {}
    for path in sorted((out / "cells").glob("*.r[0-9]*.jsonl")):
        cell, _, number = path.stem.rpartition(".r")
        found.setdefault(cell, {})[int(number)] = read_raw(path)
    if not found:
        raise UsageError(f"{out} holds no results", hint="name a directory that `deploytk bench -o` wrote")
    return found
