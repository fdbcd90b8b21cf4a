"""What everything shown is made of: rows, tables, notes, lines to copy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from deploytk.base.terminal import console


def show_rows(rows: Iterable[tuple[str, str]]) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    shown = list(rows)
    for name, value in shown:
        table.add_row(name, Text(value))
    names = max((len(name) for name, _ in shown), default=0)
    print_whole(table, names + 3, (word for _, value in shown for word in value.split()))


def print_whole(table: Table, beside: int, words: Iterable[str]) -> None:
    """Print a table with none of these words broken: digests and paths are there to be copied."""
    wide = console()
    wide.width = max(wide.width, beside + max(map(len, words), default=0))
    wide.print(table)


_NARROWEST_KEY = 16
_GAP = 2


def show_figures(keys: int, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table of figures under the first `keys` columns, which say of what: no figure is ever cut.

    Where it is too wide, several tables with the same keys; only the text of the first column is folded.
    """
    widths = [max(len(row[at]) for row in (columns, *rows)) for at in range(len(columns))]
    first = min(widths[0], max(_NARROWEST_KEY, *(len(word) for row in rows for word in row[0].split())))
    room = console().width - sum(widths[1:keys]) - _GAP * keys
    for number, group in enumerate(_groups(widths[keys:], room - first)):
        if number:
            console().print()
        chosen = [*range(keys), *(keys + at for at in group)]
        _show_part([columns[at] for at in chosen], [[row[at] for at in chosen] for row in rows], first)


def _groups(widths: Sequence[int], room: int) -> list[list[int]]:
    """Columns that stand beside each other, as many as there is room for, at least one."""
    groups: list[list[int]] = [[]]
    left = room
    for at, width in enumerate(widths):
        if groups[-1] and left < width + _GAP:
            groups.append([])
            left = room
        groups[-1].append(at)
        left -= width + _GAP
    return groups


def _show_part(columns: Sequence[str], rows: Sequence[Sequence[str]], first: int) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
    rest = [max(len(row[at]) for row in (columns, *rows)) for at in range(1, len(columns))]
    wide = console()
    # The first column takes what the others leave; a terminal that is narrower than all that breaks lines itself.
    left = max(first, wide.width - sum(rest) - _GAP * len(columns))
    table.add_column(columns[0], overflow="fold", max_width=left)
    for name, width in zip(columns[1:], rest, strict=True):
        table.add_column(name, justify="right", no_wrap=True, min_width=width)
    for row in rows:
        table.add_row(*map(Text, row))
    wide.width = max(wide.width, left + sum(rest) + _GAP * len(columns))
    wide.print(table)


def show_notes(notes: Iterable[str]) -> None:
    for note in notes:
        console().print(Text(f"note: {note}", style="yellow"))


def plain_line(text: str) -> None:
    """A line to copy: never wrapped, never styled."""
    console().print(Text(text), soft_wrap=True)


def amount(name: str, item: Any) -> str:
    if isinstance(item, Path):
        return str(item)
    if name.endswith("bytes") and isinstance(item, int):
        return mib(item)
    if isinstance(item, float):
        return f"{item:,.2f}"
    if isinstance(item, (list, tuple)):
        return ", ".join(map(str, item))
    return str(item)


def mib(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB"
