"""What `package`, `publish`, and building with pushing cost as models grow, against what changed and what did not.

    python -m benchmarks.growth [GIB ...] [--draw PICTURE]

Models of 1, 10 and 100 shards of weights (1 GiB together) and of 0.1 to 60 GiB (10 shards), sparse: every byte is
really read, hashed and sent, and what receives them digs the holes again. Each is packaged, published to the stand-in
for Hugging Face of the tests and built into a registry on loopback three times: afresh, again with nothing changed,
and after one shard changed. Time, and memory of the command and its helpers at the peak (PSS).

The cost ought to be linear in the bytes that changed and constant in the others: least squares say how many seconds
each GiB of both costs, and each file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from bases import write_base

from benchmarks import package, publish, push_memory, timing

GIB = 2**30
SIZES_GIB = (0.1, 1, 10, 60)
SHARDS, FILES, FILES_GIB = 10, (1, 10, 100), 1
HIDDEN = 4096
COMMANDS = ("package", "publish", "build and push")
UNCHANGED_S_PER_GIB = 0.01
"""Of what did not change; more is no constant. A GiB that did change costs a hundred times as much."""


@dataclass(frozen=True)
class Cell:
    """One run of one command."""

    command: str
    case: str  # afresh, again, one changed
    files: int
    changed_bytes: int
    unchanged_bytes: int
    seconds: float
    peak_mib: float


def write_model(model: Path, weights_bytes: int, shards: int) -> list[Path]:
    """Sparse, with one matrix in each shard: enough for a plan, no more; the shards."""
    shutil.copytree(package.TINY, model, ignore=shutil.ignore_patterns("*.safetensors*"))
    rows = max(1, weights_bytes // shards // (2 * HIDDEN))
    places, files = {}, []
    for number in range(1, shards + 1):
        name, tensor = f"model-{number:05}-of-{shards:05}.safetensors", f"model.part.{number}.weight"
        push_memory.write_sparse(model / name, {tensor: [rows, HIDDEN]})
        places[tensor] = name
        files.append(model / name)
    index = {"metadata": {"total_size": shards * rows * HIDDEN * 2}, "weight_map": places}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    return files


def change(shard: Path) -> None:
    """Other last bytes. By a new file: in the bundle the old one is a hard link."""
    copy = shard.with_suffix(".new")
    subprocess.run(["cp", "--sparse=always", shard, copy], check=True)
    with copy.open("r+b") as file:
        file.seek(-8, os.SEEK_END)
        file.write(os.urandom(8))
    copy.replace(shard)


@contextlib.contextmanager
def holes_dug(directory: Path) -> Iterator[None]:
    """What is received is zeros, and 60 GiB of them are more than a disk may have."""
    done = threading.Event()

    def dig() -> None:
        while not done.wait(0.5):
            for file in directory.rglob("*"):
                if file.is_file() and file.stat().st_blocks * 512 > 2**26:
                    subprocess.run(["fallocate", "--dig-holes", file], check=False, stderr=subprocess.DEVNULL)

    digger = threading.Thread(target=dig)
    digger.start()
    try:
        yield
    finally:
        done.set()
        digger.join()


def run(command: Sequence[str]) -> tuple[float, float]:
    """Seconds, and MiB at the peak."""
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        said: list[str] = []
        assert process.stderr
        reader = threading.Thread(target=lambda errors: said.append(errors.read()), args=(process.stderr,))
        reader.start()
        peak = push_memory.memory_of(process)
        reader.join()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}: {said[0][-600:]}")
    return time.perf_counter() - started, peak["together_pss"]


def measure(weights_bytes: int, shards: int) -> list[Cell]:
    with tempfile.TemporaryDirectory() as name, push_memory.sparse_registry() as registry:
        root = Path(name)
        os.environ |= {"DEPLOYTK_CACHE_DIR": str(root / "cache"), "HF_HOME": str(root / "hf")}
        files = write_model(root / "model", weights_bytes, shards)
        hub = publish.Server(root / "hub")
        os.environ |= {"HF_ENDPOINT": hub.url, "HF_TOKEN": "w0rd-that-may-write", "HF_HUB_DISABLE_XET": "1"}
        bundle, tool = str(root / "bundle"), push_memory.DEPLOYTK
        tag, base = f"127.0.0.1:{registry.server_address[1]}/me/large:1", write_base(root / "base")
        commands = {
            "package": [tool, "package", str(root / "model"), "-o", bundle, "--license", "mit"],
            "publish": [tool, "publish", bundle, "--target", "huggingface", "--repo", "me/large"],
            "build and push": [tool, "build", bundle, "-t", tag, "--output", "registry", "--base", f"oci:{base}"],
        }
        total = sum(file.stat().st_size for file in files)
        cases: dict[str, tuple[int, Callable[[], None]]] = {
            "afresh": (total, lambda: None),
            "again": (0, lambda: None),
            "one changed": (files[0].stat().st_size, lambda: change(files[0])),
        }
        cells = []
        with holes_dug(root / "hub"):
            for case, (changed, prepare) in cases.items():
                prepare()
                for command in COMMANDS:
                    seconds, peak_mib = run(commands[command])
                    cells.append(Cell(command, case, shards, changed, total - changed, seconds, peak_mib))
                    print(f"{total / GIB:5.1f} GiB, {shards:3} files  {command}, {case}: {seconds:.2f} s, "
                          f"{peak_mib:.0f} MiB", file=sys.stderr, flush=True)  # fmt: skip
        hub.stop()
    return cells


def costs(cells: Sequence[Cell], command: str) -> dict[str, float]:
    """Least squares over relative errors, since the longest run is a thousand times the shortest."""
    ours = [cell for cell in cells if cell.command == command]
    taken = np.array([cell.seconds for cell in ours])
    by = [[1, cell.changed_bytes / GIB, cell.unchanged_bytes / GIB, cell.files] for cell in ours]
    found, *_ = np.linalg.lstsq(np.array(by) / taken[:, None], np.ones(len(ours)), rcond=None)
    names = ("seconds", "seconds_per_gib_changed", "seconds_per_gib_unchanged", "seconds_per_file")
    return dict(zip(names, map(float, found), strict=True))


def draw(cells: Sequence[Cell], picture: Path) -> None:
    """Seconds and memory against what changed, and against what did not where nothing did."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(10, 7), sharey="row", layout="constrained")
    for row, (quantity, unit) in enumerate((("seconds", "s"), ("peak_mib", "MiB"))):
        for column, (case, label) in enumerate((("afresh", "changed"), ("again", "unchanged"))):
            axis = axes[row][column]
            for command, mark in zip(COMMANDS, "osv", strict=True):
                points = sorted(
                    (cell.changed_bytes + cell.unchanged_bytes, getattr(cell, quantity))
                    for cell in cells
                    if (cell.command, cell.case, cell.files) == (command, case, SHARDS)
                )
                axis.plot([at / GIB for at, _ in points], [value for _, value in points], f"{mark}-", label=command)
            axis.set(xscale="log", xlabel=f"GiB {label}, of {SHARDS} files", ylabel=unit)
            if quantity == "seconds":
                axis.set_yscale("log")
            else:
                axis.set_ylim(bottom=0)
            axis.set_xticks(SIZES_GIB, [f"{size:g}" for size in SIZES_GIB])
            axis.minorticks_off()
            axis.grid(alpha=0.3)
    axes[0][0].legend(frameon=False)
    figure.savefig(picture)


def main() -> int:
    words = timing.words()
    picture = Path(words[words.index("--draw") + 1]) if "--draw" in words else None
    sizes = [float(word) for word in words if word.replace(".", "").isdigit()] or list(SIZES_GIB)
    shapes = dict.fromkeys([(size, SHARDS) for size in sizes] + [(FILES_GIB, files) for files in FILES])
    if timing.IS_SHORT:
        shapes = {(0.01, 1): None, (0.02, 3): None}
    cells = [cell for size, files in shapes for cell in measure(int(size * GIB), files)]
    found = {command: costs(cells, command) for command in COMMANDS}
    timing.report(
        claim=f"at most {UNCHANGED_S_PER_GIB} s for a GiB that did not change",
        costs=found,
        cells=[dataclasses.asdict(cell) for cell in cells],
    )
    if picture:
        draw(cells, picture)
    worst = max(cost["seconds_per_gib_unchanged"] for cost in found.values())
    return 0 if timing.IS_SHORT or worst <= UNCHANGED_S_PER_GIB else 1


if __name__ == "__main__":
    sys.exit(main())
