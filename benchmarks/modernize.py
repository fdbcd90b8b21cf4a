"""`deploytk modernize` of workspaces of 2 GiB and more against `cp` of the same bytes: seconds and peak memory.

    python -m benchmarks.modernize [ROUNDS] [DIRECTORY] [CASE ...]

Layers of a 7B model (4096 wide, 11008 inner columns). Both are whole processes, in turn, each into an empty place of
the same disk; what is read is in the page cache for both. A case is named after its era and its weights: 0.4.2-int4.
Beside them what bounds both, in the same run: how fast two threads copy in memory, how long two threads of numpy take
for all tensors when nothing is written, and how long the command takes for a model of 3 MB.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import yaml
from workspaces import INI_KEYS, YAML_KEYS

from benchmarks import ROOT, timing
from deploytk.artifact import read_artifact
from deploytk.artifact.workspace_files import WorkspaceShape, expected_weights
from deploytk.weights import STORED_AS, Tensor, open_weights, scratch

# layers: as many as make 2 GiB; beside them 2 embeddings of 32000 x 4096 x 2 bytes
CASES = {"0.4.2-int4": 17, "0.7.3-int4": 17, "0.4.2-fp16": 5, "0.7.3-fp16": 5, "0.9.2.post1-fp16": 5}
HEADS, HEAD_DIM, INNER, VOCAB = 32, 128, 11008, 32000
if timing.IS_SHORT:
    CASES, HEADS, INNER, VOCAB = dict.fromkeys(CASES, 1), 4, 512, 512
HIDDEN = HEADS * HEAD_DIM
TINY = ROOT / "tests" / "models" / "workspace-0.7.3-awq"


def write(root: Path, case: str) -> int:
    """Write the workspace of `case`, random bits in it; returns the bytes of its weights."""
    version, _, kind = case.partition("-")
    is_ini, layers = version in INI_KEYS, CASES[case]
    changes = {
        "head_num": HEADS, "kv_head_num": HEADS, "num_layer": layers, "vocab_size": VOCAB, "weight_type": kind,
        "group_size": 128 if kind == "int4" else 0, "embedding_size": VOCAB, "hidden_units": HIDDEN,
        "inter_size": INNER if is_ini else [INNER] * layers,
    }  # fmt: skip
    keys: dict[str, object] = dict(INI_KEYS.get(version) or YAML_KEYS[version])
    keys |= {key: value for key, value in changes.items() if key in keys or key == "weight_type"}
    weights = root / "triton_models" / "weights"
    weights.mkdir(parents=True)
    if is_ini:
        (weights / "config.ini").write_text("[llama]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items()))
    else:
        keys["weight_type"] = "int4" if kind == "int4" else "float16"
        keys = {key: value for key, value in keys.items() if value is not None}
        rope = {"rope_param": {"type": "default", "base": 10000.0, "dim": HEAD_DIM, "mrope_section": None}}
        attention = {"cache_block_seq_len": 64, **(rope if version.startswith("0.9") else {})}
        (weights / "config.yaml").write_text(yaml.safe_dump({"model_config": keys, "attention_config": attention}))
    tokenizer = root if version.startswith(("0.7.3", "0.9")) else root / "triton_models" / "tokenizer"
    tokenizer.mkdir(exist_ok=True)
    (tokenizer / "tokenizer.json").write_text('{"model": {}}')
    shape = WorkspaceShape(
        "ini" if is_ini else "yaml", kind == "int4", 128, 1, layers, HIDDEN, HEADS, HEADS, HEAD_DIM, (INNER,) * layers,
        VOCAB, False, False, 0,
    )  # fmt: skip
    random = np.random.default_rng(0)
    sizes = expected_weights(shape)
    noise = random.bytes(2**24)  # in small pieces: a child's peak counts from the memory of its parent
    for name, size in sizes.items():
        if name.endswith("scales_zeros"):  # (64 + zero point, scale) as halves
            numbers = np.stack(
                [0x5400 | random.integers(0, 16, size // 4) << 4, random.integers(0, 2**15, size // 4)], -1
            )
            numbers.astype(np.uint16).tofile(weights / name)
        elif name.endswith("zeros"):
            random.integers(0, 16, size // 2).astype(np.float16).tofile(weights / name)
        else:
            with (weights / name).open("wb") as file:
                file.write(random.bytes(64))  # no two files alike: equal embeddings would be taken for tied ones
                for start in range(64, size, len(noise)):
                    file.write(noise[: size - start])
    return sum(sizes.values())


def measure(directory: Path, case: str, rounds: int) -> dict[str, float]:
    workspace, out = directory / case, directory / "out"
    size = write(workspace, case)

    def fresh(*command: str) -> Callable[[], timing.Run]:
        def run() -> timing.Run:
            shutil.rmtree(out, ignore_errors=True)
            os.sync()  # what earlier runs wrote must not slow this one
            return timing.run_process(command)

        return run

    weights = workspace / "triton_models" / "weights"
    program = str(Path(sys.executable).parent / "deploytk")
    candidates = {
        "cp": fresh("cp", "-r", str(weights), str(out)),
        "modernize": fresh(program, "--quiet", "modernize", str(workspace), "-o", str(out), "--json"),
        "start": fresh(program, "--quiet", "modernize", str(TINY), "-o", str(out), "--json"),
    }
    runs = timing.interleaved(candidates, rounds)
    moves = moves_s(workspace)
    shutil.rmtree(out)
    shutil.rmtree(workspace)
    embeddings = 2 * VOCAB * HIDDEN * 2
    cpu_s = {name: timing.median_cpu_s(runs[name]) for name in runs}
    return {
        "gib": size / 2**30,
        "cp_median_s": timing.median_s(runs["cp"]),
        "modernize_median_s": timing.median_s(runs["modernize"]),
        "of_cp": timing.median_s(runs["cp"]) / timing.median_s(runs["modernize"]),
        "gib_per_s": size / 2**30 / timing.median_s(runs["modernize"]),
        "start_median_s": timing.median_s(runs["start"]),
        "cp_cpu_s": cpu_s["cp"],
        "modernize_cpu_s": cpu_s["modernize"],
        "moves_s": moves,
        "memory_copy_gib_per_s": memory_copy_gib_per_s(),
        "peak_rss_mib": max(run.peak_rss_mib for run in runs["modernize"]),
        "bound_mib": (2 * (size - embeddings) / CASES[case] + embeddings) / 2**20,
    }


def moves_s(workspace: Path) -> float:
    """Seconds in which two threads make every tensor in memory, and nothing is written: the floor for numpy."""
    parts = [
        (tensor, first, shape)
        for tensor in open_weights(read_artifact(workspace)).tensors()
        for first, shape in tensor.parts(2**20)
    ]

    def make(part: tuple[Tensor, int, tuple[int, ...]]) -> None:
        tensor, first, shape = part
        tensor.fill(scratch("benchmark", shape, STORED_AS[tensor.dtype]), first)

    started = time.perf_counter()
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(make, parts))
    return time.perf_counter() - started


def memory_copy_gib_per_s() -> float:
    """Bytes that two threads together copy from memory to memory in a second, caches too small for them."""
    rounds, arrays = 4, [np.zeros((2, 2**26 if not timing.IS_SHORT else 2**20), np.uint8) for _ in range(2)]

    def copy(pair: np.ndarray) -> None:
        for _ in range(rounds):
            np.copyto(pair[1], pair[0])

    threads = [threading.Thread(target=copy, args=(pair,)) for pair in arrays]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(pair[0].nbytes for pair in arrays) * rounds / 2**30 / (time.perf_counter() - started)


def main() -> None:
    rounds = timing.rounds_of(5)
    place = Path(timing.words()[1]) if len(timing.words()) > 1 else None
    results = {}
    with tempfile.TemporaryDirectory(dir=place) as directory:
        for case in timing.words()[2:] or CASES:
            results[case] = measure(Path(directory), case, rounds)
            line = ", ".join(f"{key} {value:.2f}" for key, value in results[case].items())
            print(f"{case}: {line}", file=sys.stderr)
    timing.report(
        claim="0.6 of the speed of cp; peak memory below two layers and the embeddings", rounds=rounds, results=results
    )


if __name__ == "__main__":
    main()
