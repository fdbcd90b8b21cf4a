"""What a running server was measured to take besides weights and KV pool."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from deploytk.base.yaml import load_yaml
from deploytk.lmdeploy.versions import release_index


def overhead_rows(version: str) -> tuple[dict[str, Any], ...]:
    """The rows of overhead.yaml that hold for `version`, or else for the nearest version; its head says what they mean.

    A version has no rows of its own from the day that it is known until somebody measures it.
    """
    distances = [(_distance(row, release_index(version)), row) for row in _rows()]
    nearest = min(distance for distance, _ in distances)
    return tuple(row for distance, row in distances if distance == nearest)


def is_overhead_measured(version: str) -> bool:
    """Whether there are rows for that version itself."""
    return any(_distance(row, release_index(version)) == 0 for row in _rows())


def _distance(row: dict[str, Any], place: int) -> int:
    """How many releases lie between that place and the row's versions; 0 among them."""
    return max(release_index(row["first"]) - place, place - release_index(row["last"]), 0)


@cache
def _rows() -> tuple[dict[str, Any], ...]:
    return tuple(load_yaml(Path(__file__).with_name("overhead.yaml"))["rows"])
