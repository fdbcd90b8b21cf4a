"""What a plan says in English, in Chinese: notes_zh.yaml."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from deploytk.base.yaml import load_yaml

_PLACE = re.compile(r"\\\{(\w+)\\\}")


def in_chinese(notes: Iterable[str]) -> tuple[tuple[str, ...], int]:
    """The notes that can be said in Chinese, and how many cannot."""
    found = [_translated(note) for note in notes]
    return tuple(note for note in found if note), found.count(None)


def _translated(note: str) -> str | None:
    for pattern, chinese in _patterns():
        match = pattern.fullmatch(note)
        if match:
            return chinese.format_map({name: _words(value) for name, value in match.groupdict().items()})
    return None


def _words(value: str) -> str:
    for english, chinese in _table()["words"].items():
        value = value.replace(english, chinese)
    return value


@cache
def _table() -> dict[str, Any]:
    return load_yaml(Path(__file__).with_name("notes_zh.yaml"))


@cache
def _patterns() -> tuple[tuple[re.Pattern[str], str], ...]:
    rows = _table()["notes"]
    return tuple((re.compile(_PLACE.sub(r"(?P<\1>.+?)", re.escape(row["en"]))), row["zh"]) for row in rows)
