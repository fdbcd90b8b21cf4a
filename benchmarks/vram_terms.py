"""How far the VRAM of a shape is off that the fit has not seen: leave one shape out.

    python -m benchmarks.vram_terms

The servers of docs/results/vram/cells.json on LMDeploy 0.18.0, on one and two GPUs. The factors of
lmdeploy/overhead.yaml are fitted again to all shapes but one, and the memory of that one, once it answers, is
predicted.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.timing import IS_SHORT

MIB = 2**20
RESULTS = Path(__file__).parents[1] / "docs" / "results" / "vram" / "cells.json"
RESERVED_MIB = {"H200": 616.0, "H100": 0.0}
TOTAL_MIB = {"H200": 143771.0, "H100": 81559.0}
Array = npt.NDArray[np.float64]
_BEFORE = 5  # terms that are there before the pool is sized


def weights_mib(size: dict[str, int], kind: str, ranks: int) -> float:
    """As TurboMind stores them on one GPU: 0.53125 bytes per number of 4 bits, embedding and head in 16."""
    h, heads = size["hidden"], size["heads"] + 2 * max(size["kv_heads"], ranks)
    linear = size["layers"] * (
        h * heads * size["head_dim"] + size["heads"] * size["head_dim"] * h + 3 * h * size["inner"]
    )
    per_number = {"fp16": 2.0, "awq": 0.5 + 4 / 128}[kind]
    return (linear * per_number / ranks + 4 * size["vocab"] * h / ranks + 4 * size["layers"] * h) / MIB


def terms(cell: dict[str, Any], size: dict[str, int]) -> list[float]:
    """What each factor is multiplied with, in MiB: those before the pool, then those after it."""
    ranks, inner = cell["tp"], size["inner"] // cell["tp"]
    largest = 2 * size["hidden"] * inner
    tokens = min(cell["prefill"], cell["session_len"]) + cell["batch"]
    is_w4 = cell["weights"] == "awq"
    unpacked = [2 * largest / MIB, size["layers"] * largest / 2 / MIB, 2 * size["vocab"] * size["hidden"] / MIB]
    before = [1.0, float(ranks > 1), *(unpacked if is_w4 else [0.0] * 3)]
    exchange = [float(ranks > 1), float(ranks > 1 and not cell["nccl_windows"])]
    after = [1.0, *exchange, 2 * tokens * inner / MIB, tokens * size["hidden"] * (1 + 1 / ranks) / MIB]
    return before + after


def split(cell: dict[str, Any], size: dict[str, int]) -> tuple[float, float]:
    """Before the pool and after it, as measured: the engine's log says how much was free when it sized the pool."""
    free = cell["free_before_pool_mib"]
    weights = weights_mib(size, cell["weights"], cell["tp"])
    before = TOTAL_MIB[cell["gpu"]] - RESERVED_MIB[cell["gpu"]] - free - weights
    return before, cell["ready_mib"] - weights - before - cell["share"] * free


def fitted(cells: list[dict[str, Any]], shapes: dict[str, dict[str, int]], kind: str) -> Array:
    """The factors: those before the pool from all cells, those after it from the ones with weights of that kind."""
    rows = np.array([terms(cell, shapes[cell["shape"]]) for cell in cells])
    measured = np.array([split(cell, shapes[cell["shape"]]) for cell in cells])
    scale = 1 / np.array([cell["ready_mib"] for cell in cells])
    of_kind = np.array([cell["weights"] == kind for cell in cells])
    parts = []
    for columns, values, used in (
        (rows[:, :_BEFORE], measured[:, 0], np.full(len(cells), True)),
        (rows[:, _BEFORE:], measured[:, 1], of_kind),
    ):
        weighted = columns[used] * scale[used][:, None]
        parts.append(np.linalg.lstsq(weighted, values[used] * scale[used], rcond=None)[0])
    return np.concatenate(parts)


def main() -> None:
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    shapes = found["shapes"]
    usable = [one for one in found["cells"] if one["lmdeploy"] == "0.18.0" and "free_before_pool_mib" in one]
    print("| weights | shape left out | servers | largest error |")
    print("|---|---|---|---|")
    for kind in ("fp16",) if IS_SHORT else ("fp16", "awq"):
        cells = [one for one in usable if one["weights"] == kind]
        for shape in dict.fromkeys(one["shape"] for one in cells):
            known = [one for one in usable if one["shape"] != shape and one["weights"] != "fp8"]
            factors = fitted(known, shapes, kind)
            errors = []
            for cell in (one for one in cells if one["shape"] == shape):
                size = shapes[shape]
                free = cell["free_before_pool_mib"]
                weights = weights_mib(size, kind, cell["tp"])
                total = weights + cell["share"] * free + float(np.array(terms(cell, size)) @ factors)
                errors.append(100 * (total / cell["ready_mib"] - 1))
            worst = max(errors, key=abs)
            print(f"| {kind} | {shape} | {len(errors)} | {worst:+.1f} % |")


if __name__ == "__main__":
    main()
