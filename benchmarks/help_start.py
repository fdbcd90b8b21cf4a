"""`deploytk --help` against `hf --help`: seconds of the whole process.

Run it with both installed:   python benchmarks/help_start.py [ROUNDS]
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import timing

rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
bin_directory = Path(sys.executable).parent
commands = {name: [str(bin_directory / name), "--help"] for name in ("deploytk", "hf")}
runs = timing.interleaved({name: partial(timing.run_process, command) for name, command in commands.items()}, rounds)
seconds = {name: timing.median_s(results) for name, results in runs.items()}
timing.report(
    claim="deploytk --help is no slower than hf --help",
    rounds=rounds,
    median_s=seconds,
    ratio=seconds["deploytk"] / seconds["hf"],
)
