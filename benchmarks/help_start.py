"""`deploytk --help` against `hf --help`: seconds of the whole process.

Run it with both installed:   python -m benchmarks.help_start [ROUNDS]
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from benchmarks import timing


def main() -> None:
    rounds = timing.rounds_of(15)
    bin_directory = Path(sys.executable).parent
    commands = {name: [str(bin_directory / name), "--help"] for name in ("deploytk", "hf")}
    runs = timing.interleaved(
        {name: partial(timing.run_process, command) for name, command in commands.items()}, rounds
    )
    seconds = {name: timing.median_s(results) for name, results in runs.items()}
    timing.report(
        claim="deploytk --help is no slower than hf --help",
        rounds=rounds,
        median_s=seconds,
        ratio=seconds["deploytk"] / seconds["hf"],
    )


if __name__ == "__main__":
    main()
