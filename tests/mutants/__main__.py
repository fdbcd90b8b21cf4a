"""Plants mutants in the core rooms and lists those that no test finds: python -m tests.mutants

A mutant is known by its line and by what is done to it. One that survives for a reason, because nothing that anybody
can notice changes, stands with that reason in survivors.toml; it counts as survived all the same. Ends with 1 when a
room is below the goal.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.bed import bed_for, copy_checkout
from tests.mutants.rooms import ROOMS
from tests.mutants.run import fate_of, load_libraries
from tests.mutants.sample import choose, mutants_of
from tests.mutants.survivors import reasons

ROOT = Path(__file__).parents[2]
GOAL = 0.85


@dataclass(frozen=True, slots=True)
class Measured:
    """What became of one sample."""

    seed: int
    planted: int
    survivors: tuple[str, ...]  # by their names

    @property
    def killed(self) -> int:
        return self.planted - len(self.survivors)


def measure(name: str, count: int, seeds: Sequence[int]) -> Iterator[Measured]:
    """Plants a sample for each seed."""
    room = ROOMS[name]
    with tempfile.TemporaryDirectory(prefix="mutants-") as directory:
        root = Path(directory).resolve()
        copy_checkout(ROOT, root)
        bed = bed_for(room, root)
        mutants = mutants_of(root, room.modules(root))
        for seed in seeds:
            others = []
            chosen = choose(mutants, count, seed)
            for mutant in chosen:
                started = time.monotonic()
                fate = fate_of(mutant, bed)
                others += [] if fate.is_found else [mutant.name]
                by = f"by {fate.killer}" if fate.killer else f"{fate.tests} tests"
                took = f"{time.monotonic() - started:5.1f} s"
                print(f"{name} {fate.status:8} {took}  line {mutant.line} of {mutant.name} {by}", flush=True)
            yield Measured(seed, len(chosen), tuple(others))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("rooms", nargs="*", default=list(ROOMS), help=f"of {', '.join(ROOMS)}")
    parser.add_argument("--count", type=int, default=40, help="mutants per room and seed")
    parser.add_argument("--seed", type=int, nargs="+", default=[1], help="another one chooses others")
    wanted = parser.parse_args()
    known, is_good = reasons(), True
    load_libraries()
    for name in wanted.rooms:
        for one in measure(name, wanted.count, wanted.seed):
            unexplained = [mutant for mutant in one.survivors if mutant not in known]
            print(
                f"{name}, seed {one.seed}: {one.killed} of {one.planted} killed ({one.killed / one.planted:.0%}); "
                f"{len(unexplained)} without a reason",
                flush=True,
            )
            for mutant_name in unexplained:
                print(f"  {mutant_name}")
            is_good = is_good and one.killed >= GOAL * one.planted
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
