"""Times whole processes side by side, and names the machine: what every benchmark here needs."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

IS_SHORT = "--short" in sys.argv
"""Of the smallest size and one round: that it ends is what counts."""


def words() -> list[str]:
    """What else is on the command line."""
    return [word for word in sys.argv[1:] if word != "--short"]


def rounds_of(full: int) -> int:
    """How often to measure: as the first word says, or so many times."""
    return 1 if IS_SHORT else int(next(iter(words()), full))


# A checkout is timed as an installed package is: with its byte code, which the warm-up writes where it is not.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@dataclass(frozen=True)
class Run:
    wall_s: float
    peak_rss_mib: float  # of the largest process
    cpu_s: float = 0.0  # of all its processes, in user space and the kernel: what a busy machine changes least


def run_process(command: Sequence[str], timeout_s: float = 600, accepts: Sequence[int] = (0,)) -> Run:
    """Run `command` to its end, output discarded; raises when it ends with a code that is not among `accepts`."""
    started = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    wall_s = time.perf_counter() - started
    if os.waitstatus_to_exitcode(status) not in accepts:
        raise RuntimeError(f"{' '.join(command)} failed with {os.waitstatus_to_exitcode(status)}")
    if wall_s > timeout_s:
        raise RuntimeError(f"{' '.join(command)} took {wall_s:.0f} s")
    return Run(wall_s, usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime)


def interleaved(candidates: dict[str, Callable[[], Run]], rounds: int) -> dict[str, list[Run]]:
    """`rounds` runs of each, in turn, after one warm-up of each: A B A B, so that a drift of the machine hits both."""
    for run in candidates.values() if not IS_SHORT else ():
        run()
    results: dict[str, list[Run]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, run in candidates.items():
            results[name].append(run())
    return results


def median_s(runs: Sequence[Run]) -> float:
    return statistics.median(run.wall_s for run in runs)


def median_cpu_s(runs: Sequence[Run]) -> float:
    return statistics.median(run.cpu_s for run in runs)


def machine() -> str:
    """Processor, cores, memory, system and Python, in one line."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    processor = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{processor}, {os.cpu_count()} cores, {memory_gib:.0f} GiB, Linux {platform.release().split('-')[0]}, "
        f"Python {platform.python_version()}"
    )


def report(**figures: object) -> None:
    """Print the figures as one JSON object, the machine among them."""
    json.dump({"machine": machine(), **figures}, sys.stdout, indent=2, ensure_ascii=False)
    print()
