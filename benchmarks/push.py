"""Pushing an image with 1 GiB of random weights in 4 shards: ours against `docker push`, to one registry, in one run.

    python benchmarks/push.py [ROUNDS]      needs docker-registry, and for the comparison a Docker daemon (DOCKER_HOST)

Seconds of a first push and of a second one, whole processes; the client's memory; what is sent twice after kill -9.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import package
import timing

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from bases import write_base
from registries import Registry, running_registry

from deploytk.artifact import read_artifact
from deploytk.bundle import BundleOptions, render_bundle
from deploytk.plan import PlanRequest, plan_serving
from deploytk.progress import Silent

MIB = 2**20

PUSH = """
import sys, time
from pathlib import Path
from deploytk.bundle import read_bundle
from deploytk.image.config import plan_image
from deploytk.image.daemon import load_image
from deploytk.image.oci import read_layout
from deploytk.image.registry import push_image
from deploytk.image.value import BuildOptions
from deploytk.progress import Silent
bundle, base, output, tag = sys.argv[1:]
plan = plan_image(read_bundle(Path(bundle)), read_layout(Path(base)), BuildOptions(tag=tag), Silent())
planned = time.perf_counter()
_, sent = (load_image if output == "daemon" else push_image)(plan, tag, Silent())
hwm = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(sent, time.perf_counter() - planned, int(hwm) / 1024)
"""


def make_bundle(directory: Path) -> Path:
    """A bundle with 1 GiB of random weights in four shards."""
    package.LAYERS, package.VOCABULARY = 1, 40000  # 0.4 GB and twice 0.33 GB
    model = directory / "model"
    package.write(model)
    artifact = read_artifact(model)
    plan = plan_serving(artifact, PlanRequest(serving_engine="cpu"))
    return render_bundle(artifact, plan, BundleOptions(name="bench"), directory / "bundle", Silent()).path


def push(bundle: Path, base: Path, output: str, tag: str) -> list[str]:
    return [sys.executable, "-c", PUSH, str(bundle), str(base), output, tag]


def timed(command: list[str]) -> tuple[float, float]:
    """(seconds, MiB at the peak) of a push; ours says itself what it took, without reading and hashing before."""
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    if command[0] == sys.executable:
        _, seconds, peak_mib = done.stdout.split()
        return float(seconds), float(peak_mib)
    return time.perf_counter() - started, 0.0


@contextlib.contextmanager
def fresh_registry(directory: Path) -> Iterator[Registry]:
    with (
        tempfile.TemporaryDirectory(dir=directory) as place,
        running_registry(Path(place) / "registry") as registry,
    ):
        yield registry


def first_and_second(directory: Path, bundle: Path, base: Path, *, docker: bool) -> list[tuple[float, float]]:
    with fresh_registry(directory) as registry:
        tag = f"{registry.host}/me/bench:1"
        command = push(bundle, base, "registry", tag)
        if docker:
            subprocess.run(push(bundle, base, "daemon", tag), check=True, stdout=subprocess.DEVNULL)
            command = ["docker", "push", "--quiet", tag]
        os.sync()
        return [timed(command), timed(command)]


def sent_twice(directory: Path, bundle: Path, base: Path) -> int:
    """Bytes beyond one copy that two pushes send when the first one is killed in a layer."""
    with fresh_registry(directory) as registry:
        command = push(bundle, base, "registry", f"{registry.host}/me/bench:1")
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as pushing:
            while registry.upload_bytes() < 300 * MIB and pushing.poll() is None:
                time.sleep(0.002)
            there = registry.upload_bytes()
            pushing.send_signal(signal.SIGKILL)
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        whole = sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file())
        return max(0, int(done.stdout.split()[0]) + there - whole)


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(directory / "cache")
        bundle, base = make_bundle(directory), write_base(directory / "base")
        has_docker = bool(os.environ.get("DOCKER_HOST")) and shutil.which("docker") is not None
        runs: dict[str, list[list[tuple[float, float]]]] = {"deploytk": [], "docker push": []}
        for _ in range(rounds):
            runs["deploytk"].append(first_and_second(directory, bundle, base, docker=False))
            if has_docker:
                runs["docker push"].append(first_and_second(directory, bundle, base, docker=True))
        figures = {
            name: {
                "first_s": round(statistics.median(pair[0][0] for pair in pairs), 2),
                "second_s": round(statistics.median(pair[1][0] for pair in pairs), 3),
            }
            for name, pairs in runs.items()
            if pairs
        }
        timing.report(
            claim="at most 1/4 of docker push; again at most 0.3 s; kill -9 costs at most one chunk of 64 MiB",
            rounds=rounds,
            results=figures,
            peak_rss_mib=runs["deploytk"][0][0][1],
            sent_twice_mib=sent_twice(directory, bundle, base) / MIB,
        )


if __name__ == "__main__":
    main()
