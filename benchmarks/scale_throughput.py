"""Claim: two replicas behind what `scale --on ray` writes give 1.9 times the answers of one.

The hosts of scale_faults, with engines that take the time of a GPU and no processor: 8 answers at once, each of 8
tokens at 8 tokens/s (tests/engine_stub.py). More clients than both can serve. Needs root, `ip`, redis-server,
deploytk[ray]; five minutes.

    python -m benchmarks.scale_throughput [--short]
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.cluster.hosts import wait_for
from benchmarks.cluster.load import Load, Outcome
from benchmarks.cluster.ray import STUB, URL, Cluster, lmdeploy, run_inside
from benchmarks.timing import IS_SHORT, machine, report

AT_ONCE = 8
CLIENTS = 2 * AT_ONCE + AT_ONCE // 2  # a full batch in both, and some who wait
REQUESTS = 100 if IS_SHORT else 500
GOAL = 1.9


def load() -> Outcome:
    with Load(URL, CLIENTS, "tiny") as found:
        wait_for("the requests", lambda: found.outcome.requests >= REQUESTS, 500)
    assert not found.outcome.failed, found.outcome.failed[:3]
    return found.outcome


def main() -> int:
    speeds = {}
    with tempfile.TemporaryDirectory(prefix="dtk-", ignore_cleanup_errors=True) as directory:
        work = Path(directory)
        environment = {"DEPLOYTK_ENGINE": "turbomind", "STUB_TOKENS_PER_S": "8"}
        cluster = Cluster(work, STUB.name, environment, programs=lmdeploy(work / "bin"))
        try:
            bundle = cluster.package("bundle", "--gpu", "A10", "--max-batch-size", str(AT_ONCE))
            cluster.bring_up(bundle)
            print(machine(), flush=True)
            for number in (2, 1):
                if number == 1:
                    done = cluster.scale(bundle, "--replicas", "1", "--apply", "-q")
                    assert done.returncode == 0, done.stdout + done.stderr
                outcome = load()
                speeds[number] = outcome.requests / outcome.seconds
                print(f"{number} replicas: {outcome.line()}", flush=True)
        finally:
            cluster.stop()
    ratio = speeds[2] / speeds[1]
    report(one_per_s=round(speeds[1], 2), two_per_s=round(speeds[2], 2), two_replicas_of_one=round(ratio, 2), goal=GOAL)
    return 1 if ratio < GOAL and not IS_SHORT else 0


if __name__ == "__main__":
    run_inside("scale_throughput", main)
