"""`deploytk package` of 4 GiB of weights against `hashlib.sha256` alone on the same files with two threads.

    python -m benchmarks.package [ROUNDS]

Whole processes, in turn, files in the page cache. "again" is a second run with nothing changed, "start" packages a tiny
model: what Python and the rest of a bundle take. Hashing and that, one after the other, are the floor for one process.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import timing

TINY = Path(__file__).parents[1] / "tests" / "models" / "hf-fp16"

LAYERS, HIDDEN, INTERMEDIATE, VOCABULARY, SHARDS = (
    (1, 512, 512, 4096, 4) if timing.IS_SHORT else (9, 4096, 11008, 50000, 4)
)
HEADS = 32

HASHLIB_ALONE = """
import hashlib, sys
from concurrent.futures import ThreadPoolExecutor

def digest(path):
    sha256, buffer = hashlib.sha256(), bytearray(2**20)
    view = memoryview(buffer)
    with open(path, "rb", buffering=0) as file:
        while size := file.readinto(buffer):
            sha256.update(view[:size])
    return sha256.hexdigest()

with ThreadPoolExecutor(2) as threads:
    print(*threads.map(digest, sys.argv[1:]))
"""


def tensors() -> dict[str, list[int]]:
    """Name -> shape of every tensor of a Llama of these dimensions."""
    shapes = {"model.embed_tokens.weight": [VOCABULARY, HIDDEN], "lm_head.weight": [VOCABULARY, HIDDEN]}
    for layer in range(LAYERS):
        start = f"model.layers.{layer}."
        shapes |= {f"{start}self_attn.{name}_proj.weight": [HIDDEN, HIDDEN] for name in "qkvo"}
        shapes |= {f"{start}mlp.{name}_proj.weight": [INTERMEDIATE, HIDDEN] for name in ("gate", "up")}
        shapes[f"{start}mlp.down_proj.weight"] = [HIDDEN, INTERMEDIATE]
        shapes |= {f"{start}{name}_layernorm.weight": [HIDDEN] for name in ("input", "post_attention")}
    return shapes | {"model.norm.weight": [HIDDEN]}


def write(model: Path) -> int:
    """Write an fp16 model of four shards of random bytes; returns the bytes of its weights."""
    shutil.copytree(TINY, model, ignore=shutil.ignore_patterns("*.safetensors*"))
    config = json.loads((model / "config.json").read_text())
    config |= {"hidden_size": HIDDEN, "intermediate_size": INTERMEDIATE, "num_hidden_layers": LAYERS}
    config |= {
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "head_dim": HIDDEN // HEADS,
        "vocab_size": VOCABULARY,
    }
    (model / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    shapes = list(tensors().items())
    whole = sum(2 * size(shape) for _, shape in shapes)
    shards: list[dict[str, list[int]]] = [{}]
    for name, shape in shapes:
        if sum(2 * size(s) for s in shards[-1].values()) > whole / SHARDS - size(shape):
            shards.append({})
        shards[-1][name] = shape
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        places |= dict.fromkeys(shard, name)
        write_shard(model / name, shard)
    index = {"metadata": {"total_size": whole}, "weight_map": places}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    return whole


def size(shape: list[int]) -> int:
    return shape[0] * (shape[1] if len(shape) > 1 else 1)


def write_shard(path: Path, shapes: dict[str, list[int]]) -> None:
    header, at = {}, 0
    for name, shape in shapes.items():
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [at, at + 2 * size(shape)]}
        at += 2 * size(shape)
    text = json.dumps(header).encode()
    block = os.urandom(2**26)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for start in range(0, at, len(block)):
            file.write(block[: at - start])


def main() -> None:
    rounds = timing.rounds_of(5)
    place = Path(os.environ.get("TMPDIR") or tempfile.gettempdir())
    with tempfile.TemporaryDirectory(dir=place) as directory:
        root = Path(directory)
        os.environ["DEPLOYTK_CACHE_DIR"] = str(root / "cache")
        weights_bytes = write(root / "model")
        os.sync()  # else the first flush of a directory waits for all of it
        files = sorted(str(path) for path in (root / "model").iterdir())
        package = [str(Path(sys.executable).parent / "deploytk"), "package", str(root / "model"), "--json", "-o"]

        def afresh(command: Sequence[str], bundle: Path) -> timing.Run:
            shutil.rmtree(root / "cache", ignore_errors=True)
            shutil.rmtree(bundle, ignore_errors=True)
            return timing.run_process([*command, str(bundle)])

        runs = timing.interleaved(
            {
                "hashlib": lambda: timing.run_process([sys.executable, "-c", HASHLIB_ALONE, *files]),
                "start": lambda: afresh([*package[:2], str(TINY), "--json", "-o"], root / "tiny"),
                "package": lambda: afresh(package, root / "bundle"),
                "again": lambda: timing.run_process([*package, str(root / "bundle")]),
            },
            rounds,
        )
        linked = {path: (root / "bundle" / Path(path).name).samefile(path) for path in files if ".safetensors" in path}
    median = {name: timing.median_s(results) for name, results in runs.items()}
    timing.report(
        claim="at least 95 % of hashlib.sha256 alone; again under 1 s; no byte of weights copied",
        gib=weights_bytes / 2**30,
        rounds=rounds,
        median_s=median,
        all_s={name: [round(run.wall_s, 2) for run in results] for name, results in runs.items()},
        gib_per_s={name: weights_bytes / 2**30 / median[name] for name in ("hashlib", "package")},
        ratio=median["hashlib"] / median["package"],
        median_cpu_s={name: timing.median_cpu_s(results) for name, results in runs.items()},
        all_weights_are_hard_links=all(linked.values()),
        peak_rss_mib=max(run.peak_rss_mib for run in runs["package"]),
    )


if __name__ == "__main__":
    main()
