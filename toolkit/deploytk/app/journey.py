"""How far an engine has come: the phases it really went through, the progress that it tells, and why it failed."""

from __future__ import annotations

import re
import time
from typing import Callable  # noqa: UP035 (Python 3.8 in old images)

MOST_PHASES = 12
PERCENT = re.compile(r"(?<![\d.])(\d{1,3})(?:\.\d+)?%")
# What a detail that speaks of it means. The page has a sentence for each, in every language, on what to do.
FAULTS = (
    ("out_of_memory", r"out of memory|OutOfMemory|OUT_OF_MEMORY|Cannot allocate memory|ended by signal 9"),
    ("missing_file", r"^\S+ is missing|is a git-lfs pointer|bytes, deploytk\.json says"),
    ("not_fetched", r"cannot be read \(|(cannot|could not) be fetched"),
    ("no_gpu", r"no CUDA|No CUDA|Found no NVIDIA|NVIDIA driver|driver version is insufficient|no kernel image"),
    ("not_installed", r"is not installed here|cannot be started|ModuleNotFoundError|ImportError"),
    ("no_turbomind", r"fell back to its PyTorch engine"),
    ("late", r"gave no token within"),
)


class Journey:
    """`state` now, and the states before it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._passed: list[tuple[str, float]] = [("starting", clock())]
        self.percent: int | None = None  # of what the present phase does, where its program says so
        self.last_line = ""

    @property
    def state(self) -> str:
        return self._passed[-1][0]

    def enter(self, state: str) -> None:
        if state == self.state:
            return
        self._passed = [*self._passed, (state, self._clock())][-MOST_PHASES:]
        self.percent = None

    def note_line(self, line: str) -> None:
        """A line that the program of this phase has printed."""
        self.last_line = line
        found = [int(text) for text in PERCENT.findall(line)]
        if found and found[-1] <= 100:
            self.percent = found[-1]

    def phases(self) -> list[tuple[str, float]]:
        """Every phase with the seconds that it took, the present one with those that it has taken so far."""
        ends = [at for _, at in self._passed[1:]] + [self._clock()]
        return [(state, round(end - began, 1)) for (state, began), end in zip(self._passed, ends)]  # noqa: B905


def fault_of(state: str, detail: str) -> str:
    """Which kind of failure `detail` tells of; "" while nothing has failed, "ended" for one that is not known."""
    if state != "failed":
        return ""
    return next((fault for fault, words in FAULTS if re.search(words, detail)), "ended")
