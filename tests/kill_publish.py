"""Kills a publisher with signal 9 at random times, looks at the hub as a reader would, and publishes again.

    python kill_publish.py local|huggingface MODEL WORK POINTS

The publisher is a forked child that has everything loaded. After each kill a reader must find nothing or everything;
after the second run the same tree as without the kill, and at most one file that arrived twice. Goes on until POINTS
publishers were hit before they had ended, and prints how many were; exits 1 at the first difference.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from bundles import make_bundle
from hf_hub import WRITER, Hub

from deploytk.bundle import BundleOptions, read_bundle, verify_bundle
from deploytk.progress import Silent
from deploytk.release import PublishOptions, Target, publish_bundle
from deploytk.targets.huggingface import HuggingFace
from deploytk.targets.local import Local


def _child(work: Callable[[], None], killed_after_s: float | None) -> int:
    child = os.fork()
    if not child:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    if killed_after_s is not None:
        time.sleep(killed_after_s)
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def _run(root: Path, model: Path, name: str, points: int, hub: Hub | None) -> int:
    bundle = make_bundle(model, root / "bundle", BundleOptions(name="tiny", license="mit"))
    wanted = {file.path: file.sha256 for file in bundle.files}
    target: Target = HuggingFace(5.0) if hub else Local()
    import deploytk.targets.huggingface.repository  # noqa: F401  # so that every child has it

    def visible(repo: str) -> bool:
        """Whether the hub shows the bundle; fails when it shows a part of it."""
        if hub:
            commits = hub.commits(repo)
            if len(commits) < 2:
                return False
            tree = hub.tree(repo)
            if len(commits) > 2 or tree.keys() - wanted.keys() != {".gitattributes", "deploytk.json"}:
                raise SystemExit(f"{repo}: {len(commits)} commits, {sorted(tree.keys() ^ wanted.keys())}")
            if any(tree[path] != digest for path, digest in wanted.items()):
                raise SystemExit(f"{repo}: a file is not what it should be")
            return True
        current = Path(repo) / "repos" / "tiny" / "current"
        if current.exists():
            verify_bundle(read_bundle(current), Silent())
        return current.exists()

    def publish_to(repo: str) -> Callable[[], None]:
        return lambda: void(publish_bundle(bundle, target, PublishOptions(repo=repo), Silent()))

    def place(number: int) -> str:
        return f"me/at-{number}" if hub else str(root / f"at-{number}")

    started = time.monotonic()
    if _child(publish_to(place(0)), None):
        raise SystemExit("it fails without being killed")
    whole_s = time.monotonic() - started
    hit = 0
    chance = random.Random(7)
    for number in range(1, 4 * points + 1):
        if hit == points:
            break
        if hub:
            for path in (hub.root / "objects").iterdir():
                path.unlink()
            (hub.root / "stored").unlink(missing_ok=True)
        status = _child(publish_to(place(number)), chance.uniform(0, whole_s))
        if os.WIFSIGNALED(status):
            hit += 1
        else:
            whole_s *= 0.9  # the machine was slower when that was taken
        visible(place(number))
        if _child(publish_to(place(number)), None):
            raise SystemExit(f"killed at point {number}: it cannot be run again")
        if not visible(place(number)):
            raise SystemExit(f"killed at point {number}: nothing is there after the second run")
        if hub and (hub.root / "stored").exists():
            times = Counter((hub.root / "stored").read_text().split())
            if sum(count - 1 for count in times.values()) > 1:
                raise SystemExit(f"killed at point {number}: arrived more than once: {times}")
        if not hub:
            shutil.rmtree(place(number))
    return hit


def void(_: object) -> None:
    pass


def main() -> None:
    name, model, root, points = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
    os.environ["DEPLOYTK_CACHE_DIR"] = str(root / "cache")
    if name == "local":
        print(_run(root, model, name, points, None))  # noqa: T201
        return
    script = Path(__file__).with_name("hf_hub.py")
    command = [sys.executable, str(script), str(root / "hub")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        assert server.stdin
        os.environ |= {"HF_ENDPOINT": server.stdout.readline().strip(), "HF_TOKEN": WRITER}
        try:
            print(_run(root, model, name, points, Hub(root / "hub")))  # noqa: T201
        finally:
            server.stdin.write("end\n")
            server.stdin.flush()


main()
