"""What a running server was measured to take besides weights and KV pool."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from deploytk.base.yaml import load_yaml


@cache
def overhead_rows() -> tuple[dict[str, Any], ...]:
    """The rows of overhead.yaml; its head says what the keys mean."""
    return tuple(load_yaml(Path(__file__).with_name("overhead.yaml"))["rows"])
