"""Turns the values of the stages into plain JSON: keys are field names."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path


def shown(value: float | None, digits: int = 1) -> str:
    """A figure for people: thousands parted, "-" where there is none."""
    return "-" if value is None else f"{value:,.{digits}f}"


def plain(value: object) -> object:
    """`value` with dataclasses as dicts, sequences as lists and paths as strings, all the way down."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value
