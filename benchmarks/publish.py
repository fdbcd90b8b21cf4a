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
import hashlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import timing

TESTS = Path(__file__).parents[1] / "tests"
TINY = TESTS / "models" / "hf-awq"
FILES, BYTES = (8, 2**20) if timing.IS_SHORT else (400, 2**30)

UPLOAD_FOLDER = """
import sys
from huggingface_hub import HfApi
from huggingface_hub.utils import disable_progress_bars
disable_progress_bars()
repo, folder = sys.argv[1:3]
api = HfApi()
api.create_repo(repo, private=True)
api.upload_folder(repo_id=repo, folder_path=folder)
if len(sys.argv) > 3:
    found = api.verify_repo_checksums(repo, local_dir=folder)
    assert not found.mismatches
"""


def write_bundle(bundle: Path, changed: int | None = None) -> None:
    """The tiny model's bundle and 400 files of random bytes more, 1 GiB together; again: with one of them changed."""
    manifest = json.loads((bundle / "deploytk.json").read_text())
    (bundle / "shards").mkdir(exist_ok=True)
    for number in range(FILES) if changed is None else [changed]:
        path = f"shards/{number:03}.weight"
        content = os.urandom(BYTES // FILES)
        (bundle / path).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        manifest["files"][path] = {"size": len(content), "sha256": digest, "kind": "weights"}
    (bundle / "deploytk.json").write_text(json.dumps(manifest))


class Server:
    """The stand-in, asked for its counters."""

    def __init__(self, root: Path) -> None:
        self._root = root
        command = [sys.executable, str(TESTS / "hf_hub.py"), str(root)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.url = self._line()

    def _line(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()

    def _tell(self, word: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()

    def counters(self) -> dict[str, int]:
        self._tell("counters")
        return json.loads(self._line())

    def forget(self) -> None:
        """Every measured publish finds no object there."""
        for path in (self._root / "objects").iterdir():
            path.unlink()

    def commits(self, repo: str) -> int:
        """Commits after the hub's own first one."""
        return len(json.loads((self._root / "models" / repo / "state.json").read_text())["commits"]) - 1

    def stop(self) -> None:
        self._tell("end")
        self._process.wait(10)


def main() -> None:
    rounds = timing.rounds_of(5)
    place = Path(os.environ.get("TMPDIR") or tempfile.gettempdir())
    with tempfile.TemporaryDirectory(dir=place) as directory:
        root = Path(directory)
        os.environ |= {"DEPLOYTK_CACHE_DIR": str(root / "cache"), "HF_HOME": str(root / "hf")}
        deploytk = str(Path(sys.executable).parent / "deploytk")
        bundle = root / "bundle"
        package = [deploytk, "package", str(TINY), "-o", str(bundle), "--name", "many", "--license", "mit"]
        subprocess.run(package, check=True, capture_output=True)
        write_bundle(bundle)
        os.sync()
        server = Server(root / "hub")
        os.environ |= {"HF_ENDPOINT": server.url, "HF_TOKEN": "w0rd-that-may-write", "HF_HUB_DISABLE_XET": "1"}
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
        write_bundle(bundle, changed=7)
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
