"""Brings the model's files from their git repository and checks each against deploytk.json.

    python -I deploytk_app/fetch_model.py

Only what is missing or damaged is fetched; an interrupted fetch goes on. The environment may give:
    DEPLOYTK_MODEL_REPO              another repository than the one in model_source.json
    DEPLOYTK_MODEL_USERNAME, DEPLOYTK_MODEL_TOKEN   who may read it, when it is private; on OpenXLab also
    OPENXLAB_USERNAME, OPENXLAB_GIT_TOKEN
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

HERE = Path(__file__).absolute().parents[1]
CLONE = HERE / ".model.git"
ATTEMPTS = 5
PAUSE_S = 5.0
POINTER = b"version https://git-lfs"
# git's credential protocol, for the server of the model alone: whoever else asks for a login gets none.
HELPER = """#!/bin/sh
[ "$1" = get ] || exit 0
while IFS= read -r line && [ -n "$line" ]; do
  case "$line" in
  protocol=*) protocol=${line#protocol=} ;;
  host=*) host=${line#host=} ;;
  esac
done
[ "$protocol://$host" = "$DEPLOYTK_MODEL_ORIGIN" ] || exit 0
printf 'username=%s\\n' "${DEPLOYTK_MODEL_USERNAME:-$OPENXLAB_USERNAME}"
printf 'password=%s\\n' "${DEPLOYTK_MODEL_TOKEN:-$OPENXLAB_GIT_TOKEN}"
"""


def main() -> None:
    manifest = json.loads((HERE / "deploytk.json").read_text(encoding="utf-8"))
    files = {path: file for path, file in manifest["files"].items() if file["kind"] in ("weights", "model")}
    missing = {path: file for path, file in files.items() if not is_right(HERE / path, file)}
    if not missing:
        return
    for program in ("git", "git-lfs"):
        if not shutil.which(program):
            sys.exit(f"{program} is not installed here: packages.txt must name git and git-lfs")
    source = json.loads((HERE / "model_source.json").read_text(encoding="utf-8"))
    url = os.environ.get("DEPLOYTK_MODEL_REPO") or source["url"]
    say(f"fetching {len(missing)} files, {sum(f['size'] for f in missing.values()) / 2**20:.1f} MiB")
    commit = fetch(url, source["revision"])
    for path, file in missing.items():
        bring(path, file, commit)
    shutil.rmtree(str(CLONE), ignore_errors=True)
    say("all files are here and right")


def fetch(url: str, revision: str) -> str:
    """The commit and its LFS objects, tried again: a hub stumbles now and then. Returns the commit."""
    helper = HERE / ".credential"
    helper.write_text(HELPER, encoding="utf-8")
    helper.chmod(0o700)
    parts = urlsplit(url)
    # Nobody on the way shall read a token: none is sent by plain http, but to this machine.
    is_private = parts.scheme == "https" or parts.hostname in ("127.0.0.1", "::1", "localhost")
    os.environ["DEPLOYTK_MODEL_ORIGIN"] = f"{parts.scheme}://{parts.netloc}" if is_private else "none"
    for attempt in range(1, ATTEMPTS + 1):
        if not CLONE.is_dir():
            run("init", "--quiet", "--bare", str(CLONE))
        # A server may give a commit only by the name of a branch.
        got = git("fetch", "--quiet", "--depth=1", url, revision) or git("fetch", "--quiet", "--depth=100", url, "HEAD")
        commit = revision if re.fullmatch("[0-9a-f]{40}", revision) else "FETCH_HEAD"
        if got and git("config", "lfs.url", url + "/info/lfs") and git("lfs", "fetch", url, commit):
            return commit
        say(f"attempt {attempt} of {ATTEMPTS} failed")
        time.sleep(PAUSE_S * attempt)
    sys.exit(f"{url} could not be fetched; when it is private, set DEPLOYTK_MODEL_USERNAME and DEPLOYTK_MODEL_TOKEN")


def say(text: str) -> None:
    sys.stderr.write(text + "\n")


def git(*arguments: str) -> bool:
    return run("-C", str(CLONE), *arguments) == 0


def run(*arguments: str) -> int:
    environment = {
        **os.environ,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_LFS_SKIP_SMUDGE": "1",
        "GIT_LFS_FORCE_PROGRESS": "1",  # no terminal: the page reads how far it is
        "HOME": str(HERE / ".home"),  # no ~/.netrc, no helper of the system
        "GIT_CONFIG_NOSYSTEM": "1",
    }
    for name in ("GIT_ASKPASS", "SSH_ASKPASS"):
        environment.pop(name, None)
    helper = "!" + shlex.quote(str(HERE / ".credential"))
    settings = ["credential.helper=", "credential.helper=" + helper, "http.followRedirects=false"]
    options = [word for setting in settings for word in ("-c", setting)]
    return subprocess.call(["git", *options, *arguments], env=environment)


def bring(path: str, file: dict[str, Any], commit: str) -> None:
    """Put one file in its place, if it is the one that the manifest names."""
    place = HERE / path
    partial = place.with_name("." + place.name + ".partial")
    place.parent.mkdir(parents=True, exist_ok=True)
    sha256 = file["sha256"]
    stored = CLONE / "lfs" / "objects" / sha256[:2] / sha256[2:4] / sha256
    if stored.is_file():
        stored.replace(partial)
    else:
        with partial.open("wb") as out:
            subprocess.call(["git", "-C", str(CLONE), "show", f"{commit}:{path}"], stdout=out)
    if not is_right(partial, file):
        with partial.open("rb") as opened:
            is_pointer = opened.read(len(POINTER)) == POINTER
        partial.unlink()
        sys.exit(
            f"{path} came as a git-lfs pointer: the object is not on the server"
            if is_pointer
            else f"{path} is not the file that deploytk.json names: its digest differs"
        )
    partial.replace(place)


def is_right(path: Path, file: dict[str, Any]) -> bool:
    if not path.is_file() or path.stat().st_size != file["size"]:
        return False
    digest = hashlib.sha256()
    with path.open("rb") as opened:
        for chunk in iter(lambda: opened.read(2**20), b""):
            digest.update(chunk)
    return digest.hexdigest() == file["sha256"]


if __name__ == "__main__":
    main()
