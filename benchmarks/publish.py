"""`deploytk publish --target huggingface` of 400 files, 1 GiB, against `upload_folder` of huggingface_hub.

    python -m benchmarks.publish [ROUNDS]

Whole processes, in turn, against the stand-in of the tests in a process of its own on loopback, which has no xet; a
new private repository each time. "publish" knows the digests of the bundle's files, as after `deploytk package`,
"publish, hashing" has forgotten them. upload_folder hashes, and verifies nothing; "verified" is upload_folder followed
by verify_repo_checksums, as deploytk verifies. "again" is a second publish with nothing changed; "one changed" with
one file of 400 changed.
"""

from __future__ import annotations

import functools
import itertools
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmarks import timing
from benchmarks.hub import TOKEN, UPLOAD_FOLDER, Server, add_files, make_bundle

FILES, BYTES = (8, 2**20) if timing.IS_SHORT else (400, 2**30)


def shards(numbers: Iterable[int]) -> Iterator[tuple[str, bytes]]:
    """Files of random bytes, of which all are 1 GiB together."""
    for number in numbers:
        yield f"shards/{number:03}.weight", os.urandom(BYTES // FILES)


def main() -> None:
    rounds = timing.rounds_of(5)
    place = Path(os.environ.get("TMPDIR") or tempfile.gettempdir())
    with tempfile.TemporaryDirectory(dir=place) as directory:
        root = Path(directory)
        os.environ |= {"DEPLOYTK_CACHE_DIR": str(root / "cache"), "HF_HOME": str(root / "hf")}
        deploytk = str(Path(sys.executable).parent / "deploytk")
        bundle = root / "bundle"
        make_bundle(bundle)
        add_files(bundle, shards(range(FILES)), "weights")
        os.sync()
        server = Server(root / "hub")
        os.environ |= {"HF_ENDPOINT": server.url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
        requests: dict[str, int] = {}
        received: dict[str, int] = {}
        commits: dict[str, int] = {}
        number = itertools.count()

        def measured(name: str, command: list[str], repo: str) -> timing.Run:
            before = server.counters()
            run = timing.run_process(command)
            after = server.counters()
            requests[name] = after["requests"] - before["requests"]
            received[name] = after["bytes"] - before["bytes"]
            commits[name] = server.commits(repo)
            return run

        def publish(repo: str) -> list[str]:
            return [deploytk, "publish", str(bundle), "--target", "huggingface", "--repo", repo, "--json"]

        def afresh(name: str) -> timing.Run:
            server.forget()
            repo = f"me/many-{next(number)}"
            upload = [sys.executable, "-c", UPLOAD_FOLDER, repo, str(bundle)]
            commands = {"upload_folder": upload, "verified": [*upload, "verify"]}
            if name == "publish, hashing":
                shutil.rmtree(root / "cache", ignore_errors=True)
            return measured(name, commands.get(name) or publish(repo), repo)

        names = ("upload_folder", "publish, hashing", "verified", "publish")
        runs = timing.interleaved(
            {name: functools.partial(afresh, name) for name in names},
            rounds,
        )
        repo = "me/many-again"
        timing.run_process(publish(repo))
        runs |= timing.interleaved({"again": lambda: measured("again", publish(repo), repo)}, rounds)
        add_files(bundle, shards([7]), "weights")
        runs["one changed"] = [measured("one changed", publish(repo), repo)]
        server.stop()
    median = {name: timing.median_s(results) for name, results in runs.items()}
    timing.report(
        claim="at least 0.95 of upload_folder's throughput in one commit; again: no byte, at most 10 requests and 1 s",
        files=FILES,
        gib=BYTES / 2**30,
        rounds=rounds,
        median_s=median,
        all_s={name: [round(run.wall_s, 2) for run in results] for name, results in runs.items()},
        ratio={name: median["upload_folder"] / median[name] for name in ("publish", "publish, hashing", "verified")},
        requests=requests,
        received_bytes=received,
        commits=commits,
        peak_rss_mib=max(run.peak_rss_mib for run in runs["publish"]),
    )


if __name__ == "__main__":
    main()
