"""Pushing an image with 1 GiB of random weights in 4 shards: ours, `docker push` and oras-py in turn.

    python -m benchmarks.push [ROUNDS]      needs docker-registry; for the peers a daemon (DOCKER_HOST), oras

Seconds of a first push and of a second one; "PUT alone" is how fast the registry takes these layers, whole each time.
Hashing is not in the figures of ours and of oras-py: Docker's daemon did it when it loaded the image. Further: what is
sent twice after kill -9, and the image's size beyond base and weights.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from bases import write_base
from registries import Registry, running_registry

from benchmarks import package, timing
from deploytk.artifact import read_artifact
from deploytk.base.progress import Silent
from deploytk.bundle import BundleOptions, read_bundle, render_bundle
from deploytk.image.config import plan_image
from deploytk.image.oci import read_layout, write_layout
from deploytk.image.value import BuildOptions, ImagePlan
from deploytk.plan import PlanRequest, plan_serving

MIB = 2**20
KILLED_AT_BYTES = (1 if timing.IS_SHORT else 300) * MIB

PUSH = """
import sys, time
from pathlib import Path
from deploytk.bundle import read_bundle
from deploytk.image.config import plan_image
from deploytk.image.docker.load import load_image
from deploytk.image.oci import read_layout
from deploytk.image.registry.push import push_image
from deploytk.image.value import BuildOptions
from deploytk.base.progress import Silent
bundle, base, output, tag = sys.argv[1:]
plan = plan_image(read_bundle(Path(bundle)), read_layout(Path(base)), BuildOptions(tag=tag), Silent())
planned = time.perf_counter()
_, sent = (load_image if output == "daemon" else push_image)(plan, tag, Silent())
print(sent, time.perf_counter() - planned)
"""

# What the registry itself takes, which hashes what it gets: the same layers, a request for each, nothing else.
PUT_ALONE = """
import hashlib, http.client, os, sys, time
from concurrent.futures import ThreadPoolExecutor
host, *files = sys.argv[1:]
def put(path):
    connection = http.client.HTTPConnection(host)
    connection.request("POST", "/v2/me/floor/blobs/uploads/")
    answer = connection.getresponse()
    answer.read()
    connection.putrequest("PUT", f"{answer.headers['Location']}&digest=sha256:{os.path.basename(path)}")
    connection.putheader("Content-Length", str(os.path.getsize(path)))
    connection.endheaders()
    with open(path, "rb") as file:
        connection.sock.sendfile(file)
    assert connection.getresponse().status == 201
started = time.perf_counter()
with ThreadPoolExecutor(4) as threads:
    list(threads.map(put, files))
print(time.perf_counter() - started)
"""

# The same uncompressed layers, as files.
ORAS = """
import functools, sys, time
import oras.client, oras.utils
tag, *files = sys.argv[1:]
oras.utils.get_file_hash = functools.cache(oras.utils.get_file_hash)
for file in files:
    oras.utils.get_file_hash(file)
started = time.perf_counter()
oras.client.OrasClient(insecure=True).push(target=tag, files=files, disable_path_validation=True, quiet=True)
print(time.perf_counter() - started)
"""


def make_bundle(directory: Path) -> Path:
    """A bundle with 1 GiB of random weights in four shards."""
    if not timing.IS_SHORT:
        package.LAYERS, package.VOCABULARY = 1, 40000  # 0.4 GB and twice 0.33 GB
    model = directory / "model"
    package.write(model)
    artifact = read_artifact(model)
    plan = plan_serving(artifact, PlanRequest(serving_engine="cpu"))
    return render_bundle(artifact, plan, BundleOptions(name="bench"), directory / "bundle", Silent()).path


def push(bundle: Path, base: Path, output: str, tag: str) -> list[str]:
    return [sys.executable, "-c", PUSH, str(bundle), str(base), output, tag]


def timed(command: list[str]) -> float:
    """Seconds of a push; a script says them itself, last on its output."""
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    if command[0] == sys.executable:
        return float(done.stdout.split()[-1])
    return time.perf_counter() - started


@contextlib.contextmanager
def fresh_registry(directory: Path) -> Iterator[Registry]:
    with (
        tempfile.TemporaryDirectory(dir=directory) as place,
        running_registry(Path(place) / "registry") as registry,
    ):
        yield registry


def first_and_second(directory: Path, commands: Callable[[str], list[list[str]]]) -> tuple[float, float]:
    """Seconds of the last one of the commands for a tag, run twice after the others."""
    with fresh_registry(directory) as registry:
        *before, command = commands(f"{registry.host}/me/bench:1")
        for preparing in before:
            subprocess.run(preparing, check=True, stdout=subprocess.DEVNULL)
        os.sync()
        return timed(command), timed(command)


def sent_twice(directory: Path, bundle: Path, base: Path) -> int:
    """Bytes beyond one copy that two pushes send when the first one is killed in a layer."""
    with fresh_registry(directory) as registry:
        command = push(bundle, base, "registry", f"{registry.host}/me/bench:1")
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as pushing:
            while registry.upload_bytes() < KILLED_AT_BYTES and pushing.poll() is None:
                time.sleep(0.002)
            there = registry.upload_bytes()
            pushing.send_signal(signal.SIGKILL)
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        whole = sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file())
        return max(0, int(done.stdout.split()[0]) + there - whole)


def planned(bundle: Path, base: Path) -> ImagePlan:
    return plan_image(read_bundle(bundle), read_layout(base), BuildOptions(tag="me/bench:1"), Silent())


def overhead(plan: ImagePlan, bundle: Path) -> float:
    """Bytes of the image beyond the base's layers and the weight files, as a share of these."""
    whole = sum(layer.size for layer in plan.layers) + len(plan.config) + len(plan.manifest)
    given = sum(layer.size for layer in plan.layers if layer.kind == "base")
    given += sum(path.stat().st_size for path in bundle.glob("*.safetensors"))
    return whole / given - 1


def main() -> None:
    rounds = timing.rounds_of(3)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(directory / "cache")
        bundle, base = make_bundle(directory), write_base(directory / "base")
        plan = planned(bundle, base)
        write_layout(plan, directory / "layout", "bench:1", Silent())
        blobs = directory / "layout" / "blobs" / "sha256"
        files = [str(blobs / layer.digest.removeprefix("sha256:")) for layer in plan.layers]
        peers = {"deploytk": lambda tag: [push(bundle, base, "registry", tag)]}
        peers["PUT alone"] = lambda tag: [[sys.executable, "-c", PUT_ALONE, tag.partition("/")[0], *files]]
        if importlib.util.find_spec("oras"):
            peers["oras-py"] = lambda tag: [[sys.executable, "-c", ORAS, tag, *files]]
        if os.environ.get("DOCKER_HOST") and shutil.which("docker"):
            load = partial(push, bundle, base, "daemon")
            peers["docker push"] = lambda tag: [load(tag), ["docker", "push", "--quiet", tag]]
        runs: dict[str, list[tuple[float, float]]] = {name: [] for name in peers}
        for _ in range(rounds):
            for name, commands in peers.items():
                runs[name].append(first_and_second(directory, commands))
        timing.report(
            claim="at most 1/4 of docker push; again at most 0.3 s; kill -9 costs at most 64 MiB; size within 0.1 %",
            rounds=rounds,
            first_s={name: statistics.median(first for first, _ in pairs) for name, pairs in runs.items()},
            second_s={name: statistics.median(second for _, second in pairs) for name, pairs in runs.items()},
            all=runs,
            sent_twice_mib=sent_twice(directory, bundle, base) / MIB,
            size_over_base_and_weights=overhead(plan, bundle),
        )


if __name__ == "__main__":
    main()
