"""A large bundle to git http-backend + lighttpd + giftless: deploytk against `git add`, `commit`, `push` by hand.

    python -m benchmarks.openxlab_push [FILES] [MIB]        # 400 files, 1024 MiB

Both send the same files to the same server, in one run; then deploytk publishes again. Needs git-lfs and lighttpd.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from bundles import make_bundle
from giftless_server import TOKEN, USER, giftless_server

from benchmarks import ROOT
from benchmarks.timing import IS_SHORT, words
from deploytk.base.progress import Silent
from deploytk.bundle import Bundle, BundleFile
from deploytk.publish.options import PublishOptions
from deploytk.publish.targets.openxlab import OpenXLab


def large_bundle(out: Path, files: int, size: int) -> Bundle:
    bundle = make_bundle(ROOT / "tests" / "models" / "hf-awq", out)
    (out / "weights").mkdir()
    more = []
    for number in range(files):
        content = os.urandom(size)
        name = f"weights/{number:04}.weight"
        (out / name).write_bytes(content)
        more.append(BundleFile(name, size, hashlib.sha256(content).hexdigest(), "weights"))
    return dataclasses.replace(bundle, files=(*bundle.files, *more))


def by_hand(source: Path, address: str, work: Path) -> float:
    """What the hub's own tutorial says: clone, copy, track, add, commit, push."""
    environment = {**os.environ, "HOME": str(work), "GIT_TERMINAL_PROMPT": "0"}
    clone = work / "clone"

    def git(*words: str) -> None:
        command = ["git", "-c", "user.name=x", "-c", "user.email=x@localhost", *words]
        place = clone if clone.exists() else work
        subprocess.run(command, env=environment, check=True, cwd=place, capture_output=True)

    started = time.monotonic()
    git("clone", "-q", address, str(clone))
    shutil.copytree(source, clone, dirs_exist_ok=True)
    git("lfs", "install", "--local")
    git("lfs", "track", "*.weight", "*.safetensors")
    git("add", ".")
    git("commit", "-q", "-m", "Add the model")
    git("push", "-q", "origin", "HEAD:main")
    return time.monotonic() - started


def size_of(place: Path) -> float:
    return sum(path.stat().st_size for path in place.rglob("*") if path.is_file() and not path.is_symlink()) / 2**20


def main() -> None:
    files, mib = (4, 4) if IS_SHORT else (int(word) for word in (words() or ("400", "1024")))
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        os.environ["DEPLOYTK_CACHE_DIR"] = str(work / "cache")
        bundle = large_bundle(work / "bundle", files, mib * 2**20 // files)
        with giftless_server(work / "server") as server:
            server.create("ours")
            server.create("theirs")
            os.environ |= {
                "OPENXLAB_GIT_ENDPOINT": server.url,
                "OPENXLAB_USERNAME": USER,
                "OPENXLAB_GIT_TOKEN": TOKEN,
            }
            address = server.url.replace("//", f"//{USER}:{TOKEN}@") + "/me/theirs.git"
            (work / "hand").mkdir()
            hand_s = by_hand(bundle.path, address, work / "hand")
            copied = size_of(work / "hand" / "clone")
            started = time.monotonic()
            release = OpenXLab().publish(bundle, PublishOptions(repo="me/ours"), Silent())
            ours_s = time.monotonic() - started
            started = time.monotonic()
            again = OpenXLab().publish(bundle, PublishOptions(repo="me/ours"), Silent())
            again_s = time.monotonic() - started
    print(f"{files} files, {mib} MiB, in one run")
    print(f"by hand    {hand_s:6.1f} s  {mib / hand_s:6.0f} MiB/s  {copied:6.0f} MiB written here")
    print(f"deploytk   {ours_s:6.1f} s  {mib / ours_s:6.0f} MiB/s  nothing copied; {release.uploaded_files} files sent")
    print(f"again      {again_s:6.1f} s  {again.uploaded_bytes} bytes sent")
    print(f"ratio      {hand_s / ours_s:.2f}")


if __name__ == "__main__":
    main()
