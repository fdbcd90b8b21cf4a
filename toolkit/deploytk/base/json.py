"""Turns the values of the stages into plain JSON: keys are field names."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path

from deploytk.base.terminal import COMMANDS


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


def to_json(value: object, indent: int | None = None) -> str:
    """`value`, dataclasses and all, as JSON text without a line end.

    Exact for whoever reads it as JSON, harmless for a terminal: what one would obey is written as \\u001b.
    """
    return COMMANDS.sub(_escape, json.dumps(plain(value), ensure_ascii=False, indent=indent))


def _escape(found: re.Match[str]) -> str:
    return "".join(f"\\u{unit:04x}" for unit in _units(ord(found[0])))


def _units(code: int) -> tuple[int, ...]:
    """The 16-bit units of a character, as JSON escapes it."""
    return (code,) if code < 0x10000 else (0xD800 + (code - 0x10000 >> 10), 0xDC00 + (code - 0x10000 & 0x3FF))
