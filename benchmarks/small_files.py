"""`deploytk publish --target huggingface` of 3,000 small files to a slow hub, against `upload_folder`.

    python -m benchmarks.small_files [ROUNDS]

The hub is the stand-in of the tests in a process of its own on loopback. It takes 50 ms for every answer, and 40 ms for
each file of a commit, 120 s together, longer than a client waits for an answer. Whole processes in turn, a new private
repository each time.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks import timing
from benchmarks.hub import TOKEN, UPLOAD_FOLDER, Server, add_files, make_bundle

FILES, ANSWER_S, FILE_S = (30, 0.005, 0.001) if timing.IS_SHORT else (3000, 0.05, 0.04)


def prompts() -> Iterator[tuple[str, bytes]]:
    """Files as their owner puts them beside a model."""
    for number in range(FILES):
        yield f"prompts/{number:04}.md", f"# Prompt {number}\n\n".encode() + b"Say it in one sentence. " * 60


def main() -> None:
    rounds = timing.rounds_of(1)
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        os.environ |= {"DEPLOYTK_CACHE_DIR": str(root / "cache"), "HF_HOME": str(root / "hf")}
        deploytk, bundle = str(Path(sys.executable).parent / "deploytk"), root / "bundle"
        make_bundle(bundle)
        add_files(bundle, prompts(), "model")
        server = Server(root / "hub")
        server.slow_down(ANSWER_S, FILE_S)
        os.environ |= {"HF_ENDPOINT": server.url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
        runs: dict[str, list[timing.Run]] = {"upload_folder": [], "publish": []}
        asked: dict[str, dict[str, int]] = {}
        for number in range(rounds):
            repo = f"me/many-{number}"
            upload = [sys.executable, "-c", UPLOAD_FOLDER, f"{repo}-upload", str(bundle)]
            publish = [deploytk, "publish", str(bundle), "--target", "huggingface", "--repo", repo, "--json"]
            for name, command in (("upload_folder", upload), ("publish", publish)):
                before = server.counters()["kinds"]
                runs[name].append(timing.run_process(command))
                after = server.counters()["kinds"]
                asked[name] = {kind: count - before.get(kind, 0) for kind, count in after.items()}
        server.stop()
    median = {name: timing.median_s(results) for name, results in runs.items()}
    timing.report(
        claim="one commit, asked once; the hub's own time and 5 %",
        files=FILES,
        rounds=rounds,
        hub_s={"an answer": ANSWER_S, "a file of a commit": FILE_S, "the commit": FILES * FILE_S},
        median_s=median,
        ratio=median["publish"] / median["upload_folder"],
        beyond_the_commit=median["publish"] / (FILES * FILE_S) - 1,
        requests=asked,
    )


if __name__ == "__main__":
    main()
