"""Shows how far long work has come, on stderr: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal, Protocol

from deploytk.base.terminal import console, printable

Advance = Callable[[int], None]
"""Called with the bytes (or steps) done since the last call; safe to call from several threads."""

Unit = Literal["bytes", "steps"]

_LINE_EVERY_S = 5.0


class Progress(Protocol):
    """Where a stage reports what it is doing."""

    def task(self, label: str, total: int, unit: Unit = "bytes") -> AbstractContextManager[Advance]:
        """Show `label` as running until the context ends; `total` is in `unit`."""
        ...

    def note(self, text: str) -> None:
        """Show one line."""
        ...


class Silent:
    """Shows nothing: for callers in Python and for tests."""

    @contextmanager
    def task(self, label: str, total: int, unit: Unit = "bytes") -> Iterator[Advance]:  # noqa: ARG002
        yield lambda _: None

    def note(self, text: str) -> None:
        pass


class Lines:
    """One line when a task starts to take long, then one every five seconds, and one at its end."""

    @contextmanager
    def task(self, label: str, total: int, unit: Unit = "bytes") -> Iterator[Advance]:
        done = 0
        started = shown = time.monotonic()
        lock = threading.Lock()

        def advance(amount: int) -> None:
            nonlocal done, shown
            with lock:
                done += amount
                if time.monotonic() - shown >= _LINE_EVERY_S:
                    shown = time.monotonic()
                    left = _left(done, total, shown - started)
                    self.note(f"{label}: {_amount(done, unit)} of {_amount(total, unit)}{left}")

        yield advance
        if shown != started:
            self.note(f"{label}: done in {time.monotonic() - started:.0f} s")

    def note(self, text: str) -> None:
        _say(text)


class Verbose:
    """A line at the start and at the end of every task."""

    @contextmanager
    def task(self, label: str, total: int, unit: Unit = "bytes") -> Iterator[Advance]:
        started = time.monotonic()
        self.note(f"{label}: {_amount(total, unit)}")
        yield lambda _: None
        self.note(f"{label}: done in {time.monotonic() - started:.1f} s")

    def note(self, text: str) -> None:
        _say(text)


class Bars:
    """A moving bar per task, for terminals."""

    @contextmanager
    def task(self, label: str, total: int, unit: Unit = "bytes") -> Iterator[Advance]:
        from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        amounts = DownloadColumn(binary_units=True) if unit == "bytes" else MofNCompleteColumn()
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), amounts, TimeRemainingColumn())
        with RichProgress(*columns, console=console(is_stderr=True), transient=True) as bar:
            task = bar.add_task(printable(label), total=total)
            yield lambda amount: bar.advance(task, amount)

    def note(self, text: str) -> None:
        _say(text)


def terminal_progress() -> Progress:
    """The progress that fits where stderr goes."""
    return Bars() if sys.stderr.isatty() else Lines()


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # a full disk behind stderr is no reason to stop
        print(printable(text), file=sys.stderr, flush=True)  # noqa: T201


def _left(done: int, total: int, taken_s: float) -> str:
    """How long the rest takes when it takes as long as what is done; "" where that says nothing."""
    if not 0 < done < total:
        return ""
    left_s = taken_s * (total - done) / done
    return f", about {left_s / 60:.0f} min left" if left_s >= 120 else f", about {left_s:.0f} s left"


def _amount(value: int, unit: Unit) -> str:
    return f"{value / 2**20:.0f} MiB" if unit == "bytes" else str(value)
