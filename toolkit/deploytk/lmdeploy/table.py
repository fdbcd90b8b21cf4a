"""support.json: what LMDeploy's own sources say about every release. `tools/read_lmdeploy` writes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """An architecture or a quantization method on one engine."""

    served: frozenset[str]  # versions
    conditions: Mapping[str, frozenset[str]]  # name in conditions.py -> versions that ask for it


@dataclass(frozen=True, slots=True)
class EngineTable:
    """One engine of LMDeploy, by version."""

    architectures: Mapping[str, Row]
    removed: Mapping[str, frozenset[str]]  # architectures that a version names only to say that they are gone
    weights: Mapping[str, Row]  # by quantization method, and "none"
    windows: Mapping[str, frozenset[str]] | None  # architectures whose sliding window is honoured; None: all
    head_dims: Mapping[int, frozenset[str]]  # values per head that there are kernels for; {}: any


@cache
def _data() -> dict[str, Any]:
    data: dict[str, Any] = json.loads(Path(__file__).with_name("support.json").read_text(encoding="utf-8"))
    return data


@cache
def versions() -> tuple[str, ...]:
    """Every final release that the package index has, oldest first."""
    return tuple(_data()["versions"])


@cache
def engine_table(engine: str) -> EngineTable:
    found = _data()[engine]
    windows = found["windows"]
    return EngineTable(
        {name: _row(row) for name, row in found["architectures"].items()},
        {name: within(spans) for name, spans in found["removed"].items()},
        {name: _row(row) for name, row in found["weights"].items()},
        {name: within(spans) for name, spans in windows.items()} if engine == "turbomind" else None,
        {int(size): within(spans) for size, spans in found["head_dims"].items()},
    )


@cache
def own_repositories() -> frozenset[str]:
    """The versions that take repositories with `turbomind` in their config.json, which LMDeploy itself published."""
    return within(_data()["own_repositories"])


def _row(row: dict[str, Any]) -> Row:
    return Row(within(row["served"]), {name: within(spans) for name, spans in row["if"].items()})


def within(spans: str) -> frozenset[str]:
    """The versions that "0.2.0-0.13.0 0.16.0-" means; an open end is the newest."""
    order = versions()
    found: set[str] = set()
    for span in spans.split():
        first, _, last = span.partition("-")
        found |= set(order[order.index(first) : order.index(last or order[-1]) + 1])
    return frozenset(found)
