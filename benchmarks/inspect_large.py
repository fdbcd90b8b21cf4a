"""`deploytk inspect` of a workspace of 2000 files and 40 GiB (sparse): seconds and peak memory of the whole process.

python -m benchmarks.inspect_large [ROUNDS]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from workspaces import INI_KEYS

from benchmarks import timing
from deploytk.artifact.workspace_files import WorkspaceShape, expected_weights

# 62 layers x (2 norms + 6 ranks x 5 matrices) + 3 = 1987 files
SHAPE = WorkspaceShape("ini", False, 128, 6, 62, 6144, 48, 48, 128, (16512,) * 62, 103168, False, False, 0)


def write(root: Path) -> tuple[int, int]:
    """Write the workspace; returns its number of files and bytes."""
    weights = root / "triton_models" / "weights"
    tokenizer = root / "triton_models" / "tokenizer"
    weights.mkdir(parents=True)
    tokenizer.mkdir()
    (tokenizer / "tokenizer.model").write_bytes(b"tokenizer")
    sizes = expected_weights(SHAPE)
    for name, size in sizes.items():
        with (weights / name).open("wb") as file:
            file.truncate(size)
    keys = INI_KEYS["0.4.2"] | {
        "head_num": SHAPE.heads,
        "kv_head_num": SHAPE.kv_heads,
        "num_layer": SHAPE.layers,
        "inter_size": SHAPE.intermediate[0],
        "vocab_size": SHAPE.vocab,
        "tensor_para_size": SHAPE.ranks,
    }
    lines = "".join(f"{key} = {value}\n" for key, value in keys.items())
    (weights / "config.ini").write_text(f"[llama]\n{lines}")
    return len(sizes), sum(sizes.values())


def main() -> None:
    rounds = timing.rounds_of(7)
    with tempfile.TemporaryDirectory() as directory:
        files, size = write(Path(directory))
        command = [str(Path(sys.executable).parent / "deploytk"), "inspect", directory, "--json"]
        runs = timing.interleaved({"inspect": lambda: timing.run_process(command)}, rounds)["inspect"]
    timing.report(
        claim="under 1 s and 100 MiB",
        files=files,
        gib=size / 2**30,
        rounds=rounds,
        median_s=timing.median_s(runs),
        peak_rss_mib=max(run.peak_rss_mib for run in runs),
    )


if __name__ == "__main__":
    main()
