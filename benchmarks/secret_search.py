"""The search for secrets against reading alone, and against detect-secrets (PyPI) where it is installed.

    python -m benchmarks.secret_search [MIB]      64 by default; detect-secrets gets a sixteenth of it

MB/s of text in base64, which holds no secret, and of a tokenizer.json repeated.
"""

from __future__ import annotations

import base64
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import timing
from deploytk.publish.secrets import find_secret

TOKENIZER = Path(__file__).parents[1] / "tests" / "models" / "hf-awq" / "tokenizer.json"
ROUNDS = 3


def read(path: Path) -> None:
    with path.open("rb") as file:
        while file.read(2**22):
            pass


def search(path: Path) -> None:
    assert find_secret(path) is None


def detect_secrets(path: Path) -> None:
    command = [Path(sys.executable).parent / "detect-secrets", "scan", "--all-files", path.name]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=path.parent, timeout=600)


def main() -> None:
    mib = 1 if timing.IS_SHORT else int(next(iter(timing.words()), 64))
    speeds: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as directory:
        for name, content in (
            ("base64", base64.encodebytes(os.urandom(mib * 2**20 * 3 // 4))),
            ("tokenizer", TOKENIZER.read_bytes() * (mib * 2**20 // TOKENIZER.stat().st_size)),
        ):
            path, part = Path(directory) / f"{name}.txt", Path(directory) / f"{name}-part.txt"
            path.write_bytes(content)
            part.write_bytes(content[: len(content) // 16])
            peers = {"read": (read, path), "deploytk": (search, path)}
            if (Path(sys.executable).parent / "detect-secrets").is_file():
                peers["detect-secrets"] = (detect_secrets, part)
            seconds: dict[str, list[float]] = {peer: [] for peer in peers}
            for _ in range(ROUNDS):
                for peer, (run, text) in peers.items():
                    started = time.perf_counter()
                    run(text)
                    seconds[peer].append(time.perf_counter() - started)
            speeds[name] = {
                peer: round(peers[peer][1].stat().st_size / statistics.median(taken) / 1e6, 1)
                for peer, taken in seconds.items()
            }
    timing.report(claim="at least 100 MB/s", mib=mib, rounds=ROUNDS, mb_per_s=speeds)


if __name__ == "__main__":
    main()
