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
from pathlib import Path

from tests.mutants.rooms import ROOMS
from tests.mutants.run import Fate, bed_for, copy_checkout, fate_of
from tests.mutants.sample import choose, mutants_of
from tests.mutants.survivors import reasons

ROOT = Path(__file__).parents[2]
GOAL = 0.85


def measure(name: str, count: int, seed: int) -> tuple[int, int, list[str]]:
    """Killed, planted, and the names of the others."""
    room = ROOMS[name]
    killed, others = 0, []
    with tempfile.TemporaryDirectory(prefix="mutants-") as directory:
        root = Path(directory).resolve()
        copy_checkout(ROOT, root)
        bed = bed_for(room, root)
        chosen = choose(mutants_of(root, room.modules(root)), count, seed)
        for mutant in chosen:
            started = time.monotonic()
            fate: Fate = fate_of(mutant, bed)
            killed += fate in ("killed", "timeout")
            others += [] if fate in ("killed", "timeout") else [mutant.name]
            print(
                f"{name} {fate:8} {time.monotonic() - started:5.1f} s  line {mutant.line} of {mutant.name}", flush=True
            )
    return killed, len(chosen), others


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("rooms", nargs="*", default=list(ROOMS), help="of plan, weights, publish, registry, smoke, app")
    parser.add_argument("--count", type=int, default=40, help="mutants per room")
    parser.add_argument("--seed", type=int, default=1, help="another one chooses others")
    wanted = parser.parse_args()
    known, is_good = reasons(), True
    for name in wanted.rooms:
        killed, planted, others = measure(name, wanted.count, wanted.seed)
        unexplained = [other for other in others if other not in known]
        print(f"{name}: {killed} of {planted} killed ({killed / planted:.0%}); {len(unexplained)} without a reason")
        for other in unexplained:
            print(f"  {other}")
        is_good = is_good and killed >= GOAL * planted
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
