"""`deploytk inspect` of directories with the names and shapes of public models: seconds, CPU seconds and peak memory.

python -m benchmarks.inspect_models [DIRECTORY_OF_MODELS] [--short]

Without a directory, eight shapes are made here, sparse, from 300 to 189 000 tensors. In the same runs, as the peer: the
safetensors library opens every shard and gives the dtype and shape of every tensor, and nothing more is asked of it.
"""

from __future__ import annotations

import json
import struct
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import timing

# name, layers, experts (0: dense), files a matrix is stored in, shards
SHAPES = (
    ("0.6B, dense", 28, 0, ("weight",), 1),
    ("70B, dense, AWQ", 80, 0, ("qweight", "qzeros", "scales"), 9),
    ("8x7B, AWQ", 32, 8, ("qweight", "qzeros", "scales"), 3),
    ("30B, 128 experts", 48, 128, ("weight",), 16),
    ("30B, 128 experts, GPTQ", 48, 128, ("qweight", "qzeros", "scales", "g_idx"), 5),
    ("235B, 128 experts, fp8", 94, 128, ("weight", "weight_scale_inv"), 48),
    ("671B, 256 experts, fp8", 61, 256, ("weight", "weight_scale_inv"), 163),
    ("1T, 384 experts, fp8", 61, 384, ("weight", "weight_scale_inv"), 62),
)
PEER = """
import sys
from pathlib import Path
from safetensors import safe_open
for path in sorted(Path(sys.argv[1]).glob("*.safetensors")):
    with safe_open(path, "numpy") as shard:
        for name in shard.keys():
            one = shard.get_slice(name)
            one.get_dtype(), one.get_shape()
"""


def _names(layers: int, experts: int, parts: tuple[str, ...]) -> Iterator[str]:
    yield from ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight")
    for layer in range(layers):
        stem = f"model.layers.{layer}"
        yield from (f"{stem}.input_layernorm.weight", f"{stem}.post_attention_layernorm.weight")
        yield from (f"{stem}.self_attn.{one}_proj.{part}" for one in "qkvo" for part in parts)
        blocks = [f"mlp.experts.{expert}" for expert in range(experts)] or ["mlp"]
        yield from (
            f"{stem}.{block}.{one}_proj.{part}" for block in blocks for one in ("gate", "up", "down") for part in parts
        )


def write(root: Path, layers: int, experts: int, parts: tuple[str, ...], shards: int) -> int:
    """Write a model of that shape, two numbers to a tensor; returns how many tensors it has."""
    names = list(_names(layers, experts, parts))
    each = -(-len(names) // shards)
    weight_map = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        own = names[shard * each : (shard + 1) * each]
        weight_map |= dict.fromkeys(own, file)
        header = {
            name: {"dtype": "F16", "shape": [2], "data_offsets": [4 * place, 4 * place + 4]}
            for place, name in enumerate(own)
        }
        text = json.dumps(header, separators=(",", ":")).encode()
        with (root / file).open("wb") as out:
            out.write(struct.pack("<Q", len(text)) + text)
            out.truncate(8 + len(text) + 4 * len(own))
    index = {"metadata": {}, "weight_map": weight_map}
    (root / "model.safetensors.index.json").write_text(json.dumps(index, indent=2, sort_keys=True))
    config = {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "hidden_size": 2,
        "num_attention_heads": 1,
        "num_hidden_layers": layers,
        "vocab_size": 2,
    }
    (root / "config.json").write_text(json.dumps(config))
    (root / "tokenizer.json").write_text("{}")
    return len(names)


def _measured(root: Path, rounds: int) -> dict[str, Any]:
    inspect = [str(Path(sys.executable).parent / "deploytk"), "inspect", str(root), "--json"]
    peer = [sys.executable, "-c", PEER, str(root)]
    accepts = (0, 1)  # 1: a model with an error is a model inspected, and its answer is one too
    runs = timing.interleaved(
        {
            "inspect": lambda: timing.run_process(inspect, accepts=accepts),
            "safetensors": lambda: timing.run_process(peer, accepts=accepts),
        },
        rounds,
    )
    return {
        "median_s": {name: timing.median_s(of) for name, of in runs.items()},
        "largest_s": max(run.wall_s for run in runs["inspect"]),
        "median_cpu_s": {name: timing.median_cpu_s(of) for name, of in runs.items()},
        "peak_rss_mib": max(run.peak_rss_mib for run in runs["inspect"]),
    }


def _of_directory(directory: Path, rounds: int) -> dict[str, dict[str, Any]]:
    models = sorted(path.parent for path in directory.glob("*/config.json"))
    return {model.name: _measured(model, rounds) for model in models}


def _of_shapes(rounds: int) -> dict[str, dict[str, Any]]:
    found = {}
    for name, *shape in SHAPES[: 2 if timing.IS_SHORT else None]:
        with tempfile.TemporaryDirectory() as directory:
            tensors = write(Path(directory), *shape)  # type: ignore[arg-type]  # a name and numbers in one row
            found[f"{name}: {tensors} tensors"] = _measured(Path(directory), rounds)
    return found


def main() -> None:
    directories = [Path(word) for word in timing.words()]
    rounds = 1 if timing.IS_SHORT else 3
    models = _of_directory(directories[0], rounds) if directories else _of_shapes(rounds)
    timing.report(
        claim="each below 1 s and 100 MiB",
        rounds=rounds,
        models=models,
        slowest=max(models, key=lambda name: models[name]["largest_s"]),
        largest=max(models, key=lambda name: models[name]["peak_rss_mib"]),
    )


if __name__ == "__main__":
    main()
