"""Claim: `scale --on ray --canary 20% --apply` promotes a canary with nothing wrong, takes back one that is 15 % slower
and one that answers wrongly, and loses no answer to any of them. `late` and `alike` are beside an old revision whose
first token takes 300 ms: the one takes 345 ms, the other as long.

The hosts of scale_faults, with engines that take the time of a GPU and no processor (100 tokens/s, engine_stub.py of
the tests), two clients that go on asking, and the judge as it is. Needs root, `ip`, redis-server, deploytk[ray];
half an hour.

    python -m benchmarks.scale_canary [--short] [good] [slower] [wrong] [late] [alike]
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from benchmarks.cluster.load import Load
from benchmarks.cluster.ray import STUB, URL, Cluster, lmdeploy, run_inside
from benchmarks.timing import IS_SHORT, machine, report, words

PLANNED = ("--gpu", "A10", "--max-batch-size", "8")
SPEEDS = {
    "slower": "STUB_TOKENS_PER_S=87",  # of 100
    "steady": "STUB_FIRST_TOKEN_S=0.3",
    "late": "STUB_FIRST_TOKEN_S=0.345",
    "alike": "STUB_FIRST_TOKEN_S=0.3",
}
CODES = {"good": 0, "slower": 3, "wrong": 3, "late": 3, "alike": 0}


def package(cluster: Cluster, name: str) -> Path:
    """A revision that is another one by its licence; the engine knows its speed by its directory."""
    golden = cluster.work / "golden.json"
    golden.write_text('[{"text": "1 2 3", "answer": "no such answer"}]')
    more = ("--golden", str(golden)) if name == "wrong" else ("--license", name)
    return cluster.package(name, *PLANNED, *more)


def attempt(cluster: Cluster, name: str) -> bool:
    """Whether this canary ends as it should, and nothing is lost to it."""
    if name in ("late", "alike"):
        done = cluster.scale(package(cluster, "steady"), "--replicas", "2", "--apply", "-q")
        assert done.returncode == 0, done.stdout + done.stderr
    bundle = package(cluster, name)
    with Load(URL, 2, "tiny") as found:
        done = cluster.scale(bundle, "--replicas", "2", "--canary", "20%", "--apply", "-q", "--json")
    canary = json.loads(done.stdout).get("canary")
    print(f"{name}: {done.stderr[-300:]}{json.dumps(canary, indent=1)}", flush=True)
    print(f"{name}: {found.outcome.line()}; load {os.getloadavg()[0]:.1f}", flush=True)
    lost = [*found.outcome.failed, *found.outcome.broken]
    report(**{f"{name}_code": done.returncode, f"{name}_failed": len(lost), f"{name}_of": found.outcome.requests})
    return done.returncode == CODES[name] and not lost


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="dtk-", ignore_cleanup_errors=True) as directory:
        work = Path(directory)
        environment = {"DEPLOYTK_ENGINE": "turbomind", "STUB_TOKENS_PER_S": "100"}
        programs = lmdeploy(work / "bin", SPEEDS)
        cluster = Cluster(work, STUB.name, environment, programs=programs, judges_quickly=IS_SHORT)
        try:
            cluster.bring_up(cluster.package("bundle", *PLANNED))
            print(f"{machine()}, load {os.getloadavg()[0]:.1f}", flush=True)
            done = [attempt(cluster, name) for name in words() or CODES]
        finally:
            cluster.stop()
    return 0 if all(done) or IS_SHORT else 1


if __name__ == "__main__":
    run_inside("scale_canary", main)
