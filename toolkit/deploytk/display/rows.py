"""What everything shown is made of: rows, tables, notes, lines to copy."""

from __future__ import annotations

from collections.abc import Iterable
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


def show_notes(notes: Iterable[str]) -> None:
    for note in notes:
        console().print(Text(f"note: {note}", style="yellow"))


def plain_line(text: str) -> None:
    """A line to copy: never wrapped, never styled."""
    console().print(Text(text), soft_wrap=True)


def shell(argv: Iterable[str]) -> str:
    from shlex import join

    return join(argv)


def amount(name: str, item: Any) -> str:
    if isinstance(item, Path):
        return str(item)
    if name.endswith("bytes") and isinstance(item, int):
        return mib(item)
    if isinstance(item, float):
        return f"{item:,.2f}"
    return str(item)


def mib(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB"
