"""The raw data of a bench: a file per cell and repetition."""

from __future__ import annotations

from pathlib import Path

from deploytk.base.errors import UsageError
from deploytk.bench.matrix import Deployment, Load
from deploytk.smoke import Evidence, read_raw

Repetitions = dict[int, Evidence]
"""The repetitions of one cell by their number."""


def cell_path(out: Path, deployment: Deployment, load: Load, repetition: int) -> Path:
    return out / "cells" / f"{deployment.name}.{load.name}.r{repetition}.jsonl"


def read_cells(out: Path) -> dict[str, Repetitions]:
    """Cell -> what was measured, by the number of the repetition; raises UsageError where there is nothing."""
    found: dict[str, Repetitions] = {}
    for path in sorted((out / "cells").glob("*.r[0-9]*.jsonl")):
        cell, _, number = path.stem.rpartition(".r")
        found.setdefault(cell, {})[int(number)] = read_raw(path)[0]
    if not found:
        raise UsageError(f"{out} holds no results", hint="name a directory that `deploytk bench -o` wrote")
    return found
