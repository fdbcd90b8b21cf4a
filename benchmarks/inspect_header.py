"""`deploytk inspect` of one safetensors file whose header has 87 MB and 1.3 million tensors: seconds and peak memory.

python -m benchmarks.inspect_header [ROUNDS]

In the same runs: Python's own json of the same header, which is what a reader without columns pays at least.
"""

from __future__ import annotations

import json
import struct
import sys
import tempfile
from pathlib import Path

from benchmarks import timing

TENSORS = 20_000 if timing.IS_SHORT else 1_200_000
CONFIG = {
    "architectures": ["MixtralForCausalLM"],
    "model_type": "mixtral",
    "hidden_size": 2,
    "intermediate_size": 2,
    "num_attention_heads": 1,
    "num_hidden_layers": 400,
    "vocab_size": 2,
}


def write(root: Path) -> int:
    """Write the model; returns the bytes of its header."""
    with (root / "model.safetensors").open("wb") as file:  # as a stream: a child counts its parent's memory as its own
        file.write(bytes(8) + b"{")
        for place in range(TENSORS):
            name = f"m.{place // 3000}.e.{place // 3 % 1000}.w{place % 3}"
            entry = f'"{name}":{{"dtype":"F16","shape":[2],"data_offsets":[{4 * place},{4 * place + 4}]}}'
            file.write(f"{',' if place else ''}{entry}".encode())
        file.write(b"}")
        header_bytes = file.tell() - 8
        file.truncate(8 + header_bytes + 4 * TENSORS)
        file.seek(0)
        file.write(struct.pack("<Q", header_bytes))
    (root / "config.json").write_text(json.dumps(CONFIG))
    (root / "tokenizer.json").write_text("{}")
    return header_bytes


def main() -> None:
    rounds = timing.rounds_of(5)
    with tempfile.TemporaryDirectory() as directory:
        header_bytes = write(Path(directory))
        inspect = [str(Path(sys.executable).parent / "deploytk"), "inspect", directory, "--json"]
        code = "import json, sys; file = open(sys.argv[1], 'rb'); n = int.from_bytes(file.read(8), 'little'); "
        parse = [sys.executable, "-c", f"{code}json.loads(file.read(n))", f"{directory}/model.safetensors"]
        runs = timing.interleaved(
            {"inspect": lambda: timing.run_process(inspect), "json": lambda: timing.run_process(parse)}, rounds
        )
    timing.report(
        claim="under 1 s and 150 MiB",
        header_mb=header_bytes / 1e6,
        tensors=TENSORS,
        rounds=rounds,
        median_s={name: timing.median_s(of) for name, of in runs.items()},
        peak_rss_mib={name: max(run.peak_rss_mib for run in of) for name, of in runs.items()},
    )


if __name__ == "__main__":
    main()
