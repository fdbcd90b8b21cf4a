"""Plants mutants in the core rooms and lists those that no test finds: python -m tests.mutants

A mutant is known by its line and by what is done to it. One that survives for a reason, because nothing that anybody
can notice changes, stands with that reason in survivors.toml. Ends with 1 when of all that were planted fewer than
85 % were found or have such a reason.
"""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
import time
from collections.abc import Callable, Container, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.bed import Bed, bed_for, copy_checkout
from tests.mutants.rooms import ROOMS
from tests.mutants.run import Fate, fate_of, load_libraries
from tests.mutants.sample import Mutant, choose, mutants_of
from tests.mutants.survivors import reasons

ROOT = Path(__file__).parents[2]
GOAL = 0.85


@dataclass(frozen=True, slots=True)
class Measured:
    """What became of one sample."""

    room: str
    seed: int
    fates: tuple[tuple[str, Fate], ...]  # by the name of the mutant

    @property
    def killed(self) -> int:
        return sum(fate.is_found for _, fate in self.fates)

    def without_reason(self, known: Container[str]) -> list[str]:
        return [name for name, fate in self.fates if fate.status == "survived" and name not in known]

    @property
    def unjudged(self) -> list[Fate]:
        return [fate for _, fate in self.fates if fate.status == "unjudged"]


def measure(name: str, count: int, seeds: Sequence[int]) -> list[Measured]:
    """Plants a sample for each seed, and says of each mutant what became of it."""
    room = ROOMS[name]
    with tempfile.TemporaryDirectory(prefix="mutants-") as directory:
        root = Path(directory).resolve()
        copy_checkout(ROOT, root)
        bed_with = functools.cache(functools.partial(bed_for, room, root))
        mutants = mutants_of(root, room.modules(root))
        load_libraries()
        return [
            Measured(name, seed, tuple(_plant(name, choose(root, mutants, count, seed), bed_with))) for seed in seeds
        ]


def _plant(room: str, mutants: Sequence[Mutant], bed_with: Callable[[str], Bed]) -> Iterator[tuple[str, Fate]]:
    known = reasons()
    for mutant in mutants:
        if mutant.name in known:  # to see it survive once more would take longer than all others together
            yield mutant.name, Fate("survived", "", 0)
            continue
        started = time.monotonic()
        # Tests of services are run, once for all, when there is a mutant that the others do not find.
        fate = fate_of(mutant, (bed_with(marker) for marker in ROOMS[room].markers))
        by = f"by {fate.killer}" if fate.killer else f"by none of {fate.tests} tests"
        took = f"{time.monotonic() - started:5.1f} s"
        print(f"{room} {fate.status:8} {took}  line {mutant.line} of {mutant.name} {by}", flush=True)
        yield mutant.name, fate


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
    return 0 if sum(_print(one) for one in found) <= (1 - GOAL) * sum(len(one.fates) for one in found) else 1


def _print(one: Measured) -> int:
    """How many mutants are neither found nor have a reason. One that was not judged is not shown to be found."""
    others, unjudged, planted = one.without_reason(reasons()), one.unjudged, len(one.fates)
    share = f"{one.killed} of {planted} killed ({one.killed / planted:.0%})"
    print(f"{one.room}, seed {one.seed}: {share}; {len(others)} without a reason")
    for name in others:
        print(f"  {name}")
    if unjudged:
        missing = sorted(frozenset[str]().union(*(fate.missing for fate in unjudged)))
        print(f"  {len(unjudged)} more not judged, since tests cannot be run here: {'; '.join(missing)}")
    return len(others) + len(unjudged)


if __name__ == "__main__":
    sys.exit(main())
