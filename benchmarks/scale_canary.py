"""Claim: a canary with nothing wrong is promoted by `scale --on ray --canary 20% --apply`, and no answer is lost to it.

The hosts of scale_faults, with engines that take the time of a GPU and no processor (100 tokens/s, engine_stub.py of
the tests), two clients that go on asking, and the judge as it is: five rounds of 30 requests to each side. Needs root,
`ip`, redis-server, deploytk[ray]; six minutes.

    python -m benchmarks.scale_canary [--short]
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from benchmarks.cluster.load import Load
from benchmarks.cluster.ray import STUB, URL, Cluster, lmdeploy, run_inside
from benchmarks.timing import IS_SHORT, machine, report

PLANNED = ("--gpu", "A10", "--max-batch-size", "8")


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="dtk-", ignore_cleanup_errors=True) as directory:
        work = Path(directory)
        environment = {"DEPLOYTK_ENGINE": "turbomind", "STUB_TOKENS_PER_S": "100"}
        cluster = Cluster(work, STUB.name, environment, programs=lmdeploy(work / "bin"), judges_quickly=IS_SHORT)
        try:
            cluster.bring_up(cluster.package("bundle", *PLANNED))
            other = cluster.package("other", *PLANNED, "--license", "mit")
            print(machine(), flush=True)
            with Load(URL, 2, "tiny") as found:
                done = cluster.scale(other, "--replicas", "2", "--canary", "20%", "--apply", "-q", "--json")
        finally:
            cluster.stop()
    print(f"ends with {done.returncode}: {done.stdout[-600:]}{done.stderr[-300:]}", flush=True)
    print(found.outcome.line(), flush=True)
    canary = json.loads(done.stdout)["canary"]["status"]
    report(canary=canary, code=done.returncode, failed=len(found.outcome.failed), of=found.outcome.requests)
    return 1 if found.outcome.failed or (done.returncode and not IS_SHORT) else 0


if __name__ == "__main__":
    run_inside("scale_canary", main)
