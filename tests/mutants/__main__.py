"""Plants mutants in the core rooms and lists those that no test finds: python -m tests.mutants

A mutant is known by its line and by what is done to it. One that survives for a reason, because nothing that anybody
can notice changes, stands with that reason in survivors.toml. Ends with 1 when of all that were planted fewer than
85 % were found or have such a reason.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.bed import Bed, bed_for, copy_checkout
from tests.mutants.rooms import ROOMS
from tests.mutants.run import fate_of, load_libraries
from tests.mutants.sample import Mutant, choose, mutants_of
from tests.mutants.survivors import reasons

ROOT = Path(__file__).parents[2]
GOAL = 0.85


@dataclass(frozen=True, slots=True)
class Measured:
    """What became of one sample."""

    room: str
    seed: int
    planted: int
    survivors: tuple[str, ...]  # by their names

    @property
    def killed(self) -> int:
        return self.planted - len(self.survivors)


def measure(name: str, count: int, seeds: Sequence[int]) -> list[Measured]:
    """Plants a sample for each seed, and says of each mutant what became of it."""
    room = ROOMS[name]
    with tempfile.TemporaryDirectory(prefix="mutants-") as directory:
        root = Path(directory).resolve()
        copy_checkout(ROOT, root)
        bed = bed_for(room, root)
        mutants = mutants_of(root, room.modules(root))
        load_libraries()
        return [_plant(name, seed, choose(mutants, count, seed), bed) for seed in seeds]


def _plant(name: str, seed: int, mutants: Sequence[Mutant], bed: Bed) -> Measured:
    survivors = []
    for mutant in mutants:
        started = time.monotonic()
        fate = fate_of(mutant, bed)
        survivors += [] if fate.is_found else [mutant.name]
        by = f"by {fate.killer}" if fate.killer else f"by none of {fate.tests} tests"
        took = f"{time.monotonic() - started:5.1f} s"
        print(f"{name} {fate.status:8} {took}  line {mutant.line} of {mutant.name} {by}", flush=True)
    return Measured(name, seed, len(mutants), tuple(survivors))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("rooms", nargs="*", default=list(ROOMS), help=f"of {', '.join(ROOMS)}")
    parser.add_argument("--count", type=int, default=40, help="mutants per room and seed")
    parser.add_argument("--seed", type=int, nargs="+", default=[1], help="another one chooses others")
    parser.add_argument("--jobs", type=int, default=1, help="rooms at once")
    wanted = parser.parse_args()
    with ProcessPoolExecutor(wanted.jobs) as processes:
        measuring = [processes.submit(measure, name, wanted.count, wanted.seed) for name in wanted.rooms]
        found = [one for room in measuring for one in room.result()]
    known, missed = reasons(), 0
    for one in found:
        others = [mutant for mutant in one.survivors if mutant not in known]
        share = f"{one.killed} of {one.planted} killed ({one.killed / one.planted:.0%})"
        print(f"{one.room}, seed {one.seed}: {share}; {len(others)} without a reason")
        for mutant_name in others:
            print(f"  {mutant_name}")
        missed += len(others)
    return 0 if missed <= (1 - GOAL) * sum(one.planted for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())
