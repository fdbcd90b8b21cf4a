"""`deploytk build` of 1 GiB of random weights in 4 shards against Docker's two builders on the same daemon.

    python -m benchmarks.build BASE [ROUNDS]        (root: DOCKER_HOST names the daemon, which has the image BASE)

Whole processes, in turn, files in the page cache. Cold: the daemon has BASE and nothing of the model, deploytk has seen
BASE before and knows no digest of the model. Rebuild: the app has changed, for the
builders one line of one file, for deploytk the whole page. The builders' Dockerfile is as good as it gets:
weights first, the app in a layer of its own. Two floors: `docker load` of what deploytk has built, which is what the
daemon itself takes to store it; and Python with the libraries of the command, which asks the daemon for its version.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import package, timing

TAG = "deploytk-benchmark/model"
DEPLOYTK = str(Path(sys.executable).parent / "deploytk")

DOCKER_PY = """
import os, sys
import docker
client = docker.APIClient(os.environ["DOCKER_HOST"], timeout=3600)
for event in client.build(path=sys.argv[1], tag=sys.argv[2], rm=True, decode=True):
    assert "error" not in event, event
"""


START = "import os, docker, pydantic, typer; docker.APIClient(os.environ['DOCKER_HOST']).version()"

DOCKERFILE = """
FROM {base}
WORKDIR /bundle
COPY *.safetensors ./
COPY *.json *.jinja ./
COPY *.py *.md requirements.txt ./
"""


def command_of(name: str, peer: Path, bundle: Path, base: str) -> list[str]:
    if name == "deploytk":
        return [DEPLOYTK, "build", str(bundle), "--tag", f"{TAG}:1", "--base", base]
    if name == "docker-py":
        return [sys.executable, "-c", DOCKER_PY, str(peer), f"{TAG}:1"]
    # Newer clients have BuildKit in a plug-in, Debian's has it inside.
    client = "/usr/bin/docker" if Path("/usr/bin/docker").is_file() else "docker"
    return ["env", "DOCKER_BUILDKIT=1", client, "build", "--tag", f"{TAG}:1", str(peer)]


def forget() -> None:
    """Remove what was built, and what builders keep."""
    listed = subprocess.run(["docker", "images", "--quiet", TAG], capture_output=True, text=True, check=True)
    if listed.stdout.strip():
        subprocess.run(["docker", "rmi", "--force", *set(listed.stdout.split())], capture_output=True, check=True)
    subprocess.run(["docker", "image", "prune", "--force"], capture_output=True, check=True)
    subprocess.run(["docker", "builder", "prune", "--force", "--all"], capture_output=True, check=True)
    os.sync()


def forget_digests(cache: Path) -> None:
    """Remove what deploytk remembers, but what it has seen in BASE."""
    for path in cache.iterdir():
        if path.name != "runtimes":
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _load(saved: Path) -> timing.Run:
    """Store what was built last once more, by the daemon alone."""
    subprocess.run(["docker", "save", "--output", str(saved), f"{TAG}:1"], check=True, capture_output=True)
    forget()
    run = timing.run_process(["docker", "load", "--input", str(saved)])
    saved.unlink()
    return run


def main() -> None:
    base = next(iter(timing.words()), os.environ.get("DEPLOYTK_BENCHMARK_BASE", ""))
    rounds = 1 if timing.IS_SHORT else int((*timing.words()[1:], "3")[0])
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        os.environ["DEPLOYTK_CACHE_DIR"] = str(root / "cache")
        # Embedding, output and the two halves of one layer: 256 MiB each.
        if not timing.IS_SHORT:
            package.LAYERS, package.VOCABULARY, package.INTERMEDIATE = 1, 32768, 16384
        weights_bytes = package.write(root / "model")
        for app in ("api", "gradio"):
            command = [DEPLOYTK, "package", str(root / "model"), "--name", "model", "--app", app, "-o", str(root / app)]
            subprocess.run(command, check=True, capture_output=True)
        peer = Path(shutil.copytree(root / "api", root / "peer", copy_function=os.link))
        (peer / "Dockerfile").unlink()
        (peer / "Dockerfile").write_text(DOCKERFILE.format(base=base))
        (peer / "app.py").unlink()
        cold: dict[str, list[timing.Run]] = {name: [] for name in ("deploytk", "docker-py", "buildkit")}
        again: dict[str, list[timing.Run]] = {name: [] for name in cold}
        timing.run_process(
            command_of("deploytk", peer, root / "api", base)
        )  # looks through BASE, once for all its images
        floors: dict[str, list[timing.Run]] = {"load": [], "start": []}
        for number in range(rounds):
            for name in reversed(cold):  # ours last: its image is the one that is loaded
                forget()
                forget_digests(root / "cache")
                (peer / "app.py").write_text(f"first {number}")
                cold[name].append(timing.run_process(command_of(name, peer, root / "api", base)))
                (peer / "app.py").write_text(f"second {number}")
                again[name].append(timing.run_process(command_of(name, peer, root / "gradio", base)))
            floors["load"].append(_load(root / "saved.tar"))
            floors["start"].append(timing.run_process([sys.executable, "-c", START]))
        forget()
    median = {name: timing.median_s(runs) for name, runs in cold.items()}
    timing.report(
        claim="cold at most 0.5 of docker-py and 0.65 of BuildKit; rebuilt not slower than by BuildKit",
        gib=weights_bytes / 2**30,
        rounds=rounds,
        cold_median_s=median,
        cold_ratio={name: median["deploytk"] / median[name] for name in ("docker-py", "buildkit")},
        rebuild_median_s={name: timing.median_s(runs) for name, runs in again.items()},
        cold_all_s={name: [round(run.wall_s, 2) for run in runs] for name, runs in cold.items()},
        floors_median_s={name: timing.median_s(runs) for name, runs in floors.items()},
        rebuild_all_s={name: [round(run.wall_s, 2) for run in runs] for name, runs in again.items()},
    )


if __name__ == "__main__":
    main()
