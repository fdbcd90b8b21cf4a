"""Turns the values of the stages into plain JSON, whose keys are field names, and reads JSON that others wrote."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deploytk.base.terminal import COMMANDS

_LARGEST = 10**18
_MOST_DIGITS = 300


def shown(value: float | None, digits: int = 1) -> str:
    """A figure for people: thousands parted, "-" where there is none."""
    return "-" if value is None else f"{value:,.{digits}f}"


def plain(value: object) -> object:
    """`value` with dataclasses as dicts, sequences as lists and paths as strings, all the way down.

    Fields that `repr` does not show, which are credentials, are left out.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value) if field.repr}
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


def parse_json(content: bytes | str, *, has_unique_keys: bool = False) -> object:
    """The value of a JSON text; raises ValueError for anything else, NaN, infinity and bottomless nesting included.

    With `has_unique_keys` also for an object that has a key twice, of which readers see different ones.
    """
    try:
        text = content if isinstance(content, str) else content.decode()  # of bytes json would guess the encoding
        if has_unique_keys:
            return _UNIQUE.decode(text)
        return (_ANY if len(text) > _MOST_DIGITS else _SHORT).decode(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def parse_plain(content: bytes | str) -> object:
    """Like `parse_json`, for what will be counted with and written: no number beyond 10^18, no half of a character."""
    value = parse_json(content)
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            waiting += [*one, *one.values()]
        elif isinstance(one, list):
            waiting += one
        elif isinstance(one, str):
            one.encode()
        elif isinstance(one, (int, float)) and not -_LARGEST <= one <= _LARGEST:
            raise ValueError("a number is larger than any that was measured")
    return value


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def _refuse(name: str) -> object:
    raise ValueError(f"{name} is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value - value:
        raise ValueError("a number without end")
    return value


def _countable(text: str) -> int:
    """A whole number that can be counted with: a float holds it, and `str` writes it."""
    if len(text) > _MOST_DIGITS:
        raise ValueError("a number with hundreds of digits")
    return int(text)


# Made once: to make one takes longer than to read an event of a stream. In a short text every whole number is short.
_ANY = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite, parse_int=_countable)
_SHORT = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite)
_UNIQUE = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite, parse_int=_countable, object_pairs_hook=_unique)


def _escape(found: re.Match[str]) -> str:
    return "".join(f"\\u{unit:04x}" for unit in _units(ord(found[0])))


def _units(code: int) -> tuple[int, ...]:
    """The 16-bit units of a character, as JSON escapes it."""
    return (code,) if code < 0x10000 else (0xD800 + (code - 0x10000 >> 10), 0xDC00 + (code - 0x10000 & 0x3FF))
