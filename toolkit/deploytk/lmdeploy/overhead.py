"""What a running server was measured to take besides weights and KV pool."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from deploytk.base.yaml import load_yaml
from deploytk.lmdeploy.versions import release_index


def overhead_rows(version: str) -> tuple[dict[str, Any], ...]:
    """The rows of overhead.yaml that hold for `version`; its head says what the keys mean."""
    place = release_index(version)
    return tuple(row for row in _rows() if release_index(row["first"]) <= place <= release_index(row["last"]))


@cache
def _rows() -> tuple[dict[str, Any], ...]:
    return tuple(load_yaml(Path(__file__).with_name("overhead.yaml"))["rows"])
