"""Claim: behind the HAProxy that `scale --on ray` writes, no whole answer is lost to one fault, nor takes 10 s.

Three hosts with CPU engines (benchmarks/cluster/hosts.py), two replicas, clients that go on asking; per fault 1000
requests at least (100 with --short). Needs root, `ip`, redis-server, deploytk[cpu,ray]; a quarter of an hour.

    python -m benchmarks.scale_faults [--short] [FAULT ...]
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.cluster.hosts import FIRST, HEAD, SECOND, Host, plug, wait_for
from benchmarks.cluster.load import Load, Outcome, latency_ms
from benchmarks.cluster.ray import CPU_ENGINE, URL, Cluster, run_inside
from benchmarks.timing import IS_SHORT, machine, report, words

REQUESTS = 100 if IS_SHORT else 1000
CLIENTS = 6
RECOVERY_S = 10.0
IN_SHORT = ("engine", "power", "broken")


def broken_by(fault: Callable[[], object], requests: int = REQUESTS) -> Outcome:
    """What becomes of requests before, while and after something is broken."""
    with Load(URL, CLIENTS, "tiny") as load:
        wait_for("the first answers", lambda: load.outcome.requests >= 20, 120)
        fault()
        wait_for("the requests", lambda: load.outcome.requests >= requests, 500)
    return load.outcome


def engine(cluster: Cluster) -> Outcome:
    return broken_by(lambda: cluster.hosts[FIRST].kill(CPU_ENGINE))


def proxy(cluster: Cluster) -> Outcome:
    return broken_by(lambda: cluster.hosts[FIRST].kill("ray::ProxyActor"))


def cable(cluster: Cluster) -> Outcome:  # noqa: ARG001 (called as the others are)
    def pull() -> None:
        plug(SECOND, is_in=False)
        time.sleep(20)
        plug(SECOND, is_in=True)

    return broken_by(pull)


def power(cluster: Cluster) -> Outcome:
    def cut() -> None:
        cluster.hosts[FIRST].switch_off()
        time.sleep(15)
        cluster.start(FIRST)

    return broken_by(cut)


def head(cluster: Cluster) -> Outcome:
    def cut() -> None:
        cluster.hosts[HEAD].switch_off()
        time.sleep(10)
        cluster.start(HEAD)

    return broken_by(cut)


def update(cluster: Cluster) -> Outcome:
    other = cluster.package("other", "--license", "mit")

    def bring() -> None:
        done = cluster.scale(other, "--replicas", "2", "--apply", "-q")
        assert done.returncode == 0, done.stdout + done.stderr

    return broken_by(bring)


def broken(cluster: Cluster) -> Outcome:
    """A bundle that no node has: it must end with 1, and the one before must go on."""

    def bring() -> None:
        done = cluster.scale(cluster.work / "bundle", "--replicas", "2", "--bundle-place", "/nowhere", "--apply", "-q")
        assert done.returncode == 1, done.stdout + done.stderr
        print("   ", done.stderr.splitlines()[0][:200], flush=True)

    return broken_by(bring)


def canary(cluster: Cluster) -> Outcome:
    """A revision with nothing wrong: promoted, or taken back where the machine is too busy to tell."""
    other = cluster.package("canary", "--license", "apache-2.0")
    return broken_by(lambda: _try(cluster, other, (0, 4)))


def bad_canary(cluster: Cluster) -> Outcome:
    """A revision that gives another answer than it should: taken back."""
    (cluster.work / "golden.json").write_text('[{"text": "1 2 3", "answer": "no such answer"}]')
    wrong = cluster.package("wrong", "--golden", str(cluster.work / "golden.json"))
    return broken_by(lambda: _try(cluster, wrong, (3,)))


def _try(cluster: Cluster, bundle: Path, codes: tuple[int, ...]) -> None:
    done = cluster.scale(bundle, "--replicas", "2", "--canary", "20%", "--apply", "-q", "--json")
    assert done.returncode in codes, done.stdout + done.stderr
    found = json.loads(done.stdout)
    print(
        f"    {found['applied']}: {found['canary']['status']}, {'; '.join(found['canary']['reasons'])[:200]}",
        flush=True,
    )


FAULTS: dict[str, tuple[str, Callable[[Cluster], Outcome]]] = {
    "none": ("nothing is broken", lambda _: broken_by(lambda: None)),
    "engine": ("an engine is killed", engine),
    "proxy": ("a proxy of Ray is killed", proxy),
    "cable": ("a host's cable is pulled for 20 s", cable),
    "power": ("a host is switched off, and started 15 s later", power),
    "head": ("the head is switched off, and started 10 s later (with Redis)", head),
    "update": ("a rolling update", update),
    "broken": ("an update that does not come up", broken),
    "canary": ("a canary of 20 % with nothing wrong", canary),
    "bad-canary": ("a canary of 20 % that answers wrongly", bad_canary),
}


def the_way(cluster: Cluster) -> dict[str, float]:
    """What the way to a replica costs a request that no engine works for, in milliseconds."""
    found = {"models_by_app_ms": _beside_app(cluster.hosts[FIRST])}
    found["models_by_ray_ms"] = latency_ms(f"http://{cluster.hosts[FIRST].address}:8000", 50)
    found["models_by_haproxy_ms"] = latency_ms(URL, 50)
    return {name: round(value, 1) for name, value in found.items()}


def _beside_app(host: Host) -> float:
    """The same, asked of the app on its own machine."""
    [pid] = host.pids("/app.py")
    ports = dict(line.partition("=")[::2] for line in Path(f"/proc/{pid}/environ").read_text().split("\0"))
    code = f"from benchmarks.cluster.load import latency_ms; print(latency_ms('http://127.0.0.1:{ports['PORT']}', 50))"
    return float(host.run([sys.executable, "-c", code]).stdout)


def main() -> int:
    chosen = [word for word in words() if word in FAULTS] or list(IN_SHORT if IS_SHORT else FAULTS)
    lost, slow = [], []
    with tempfile.TemporaryDirectory(prefix="dtk-", ignore_cleanup_errors=True) as directory:
        cluster = Cluster(Path(directory))
        try:
            bundle = cluster.package("bundle")
            cluster.bring_up(bundle)
            print(machine(), flush=True)
            report(**the_way(cluster))
            for name in chosen:
                what, run = FAULTS[name]
                outcome = run(cluster)
                print(f"{name}: {what}: {outcome.line()}", flush=True)
                for problem in [*outcome.failed, *outcome.broken][:5]:
                    print(f"    {problem}", flush=True)
                report(**{f"{name}_failed": len(outcome.failed), f"{name}_of": outcome.requests})
                lost += [name] if outcome.failed else []
                slow += [name] if max(outcome.whole, default=0.0) > RECOVERY_S else []
                settled_s = cluster.wait_for_all()
                print(f"    two replicas again after {settled_s:.0f} s", flush=True)
        finally:
            cluster.stop()
    print(f"answers were lost to {', '.join(lost) or 'nothing'}")
    print(f"one took more than {RECOVERY_S:.0f} s after {', '.join(slow) or 'nothing'}")
    return 1 if (lost or slow) and not IS_SHORT else 0


if __name__ == "__main__":
    run_inside("scale_faults", main)
