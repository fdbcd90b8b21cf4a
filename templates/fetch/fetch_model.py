"""Brings the model's files from the hub, while a Space is built or when a container starts, and checks every one.

    HF_TOKEN=... python -I deploytk_app/fetch_model.py

model_source.json says from where, deploytk.json what: path, size and SHA-256. A file that is right is not fetched
again, one that was cut off goes on where it was. Links are followed: to a volume, say. Needs nothing but Python.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

HERE = Path(__file__).absolute().parents[1]
ATTEMPTS = 6
BLOCK = 2**20


def is_right(path: Path, facts: dict[str, Any]) -> bool:
    if not path.is_file() or path.stat().st_size != facts["size"]:
        return False
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return bool(digest.hexdigest() == facts["sha256"])


def fetch(source: dict[str, str], path: str, facts: dict[str, Any], token: str) -> None:
    place = (HERE / path).resolve()
    partial = place.with_name(place.name + ".partial")
    place.parent.mkdir(parents=True, exist_ok=True)
    there = partial.stat().st_size if partial.is_file() else 0
    url = f"{source['endpoint']}/{source['repo']}/resolve/{source['revision']}/{urllib.parse.quote(path)}"
    request = urllib.request.Request(url)  # noqa: S310 (https, or the address of a mirror)
    if token:
        # Not sent on to the storage that the hub redirects to.
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    if 0 < there < facts["size"]:
        request.add_header("Range", f"bytes={there}-")
    with urllib.request.urlopen(request, timeout=60) as answer, partial.open(_mode(answer)) as file:  # noqa: S310
        told_at = time.monotonic()
        while block := answer.read(BLOCK):
            file.write(block)
            if time.monotonic() - told_at >= 1:
                told_at = time.monotonic()
                share = file.tell() * 100 // facts["size"]
                print(f"{path}: {share}% of {facts['size'] / 2**20:.0f} MiB", flush=True)  # noqa: T201
    if partial.stat().st_size < facts["size"]:
        raise OSError(f"{path} was cut off")
    if not is_right(partial, facts):
        partial.unlink()
        raise OSError(f"{path} did not arrive as it should be")
    partial.replace(place)


def preloaded(source: dict[str, str], path: str) -> Path:
    """Where a Space has what its README asks the hub to preload."""
    cache = Path(os.environ.get("HF_HUB_CACHE") or "~/.cache/huggingface/hub").expanduser()
    return cache / f"models--{source['repo'].replace('/', '--')}" / "snapshots" / source["revision"] / path


def _mode(answer: Any) -> str:
    """A server that knows no ranges sends all of it."""
    return "ab" if answer.status == 206 else "wb"


def main() -> None:
    source = json.loads((HERE / "model_source.json").read_text(encoding="utf-8"))
    files = json.loads((HERE / "deploytk.json").read_text(encoding="utf-8"))["files"]
    token = os.environ.get("HF_TOKEN", "").strip()
    pause = float(os.environ.get("DEPLOYTK_FETCH_PAUSE_S") or 5)
    for path, facts in sorted(files.items()):
        if facts["kind"] not in ("weights", "model") or is_right(HERE / path, facts):
            continue
        kept = preloaded(source, path)
        if not (HERE / path).is_symlink() and is_right(kept, facts):
            (HERE / path).parent.mkdir(parents=True, exist_ok=True)
            (HERE / path).unlink(missing_ok=True)
            (HERE / path).symlink_to(kept)
            print(f"{path}: preloaded", flush=True)  # noqa: T201
            continue
        for attempt in range(1, ATTEMPTS + 1):
            try:
                fetch(source, path, facts, token)
                break
            except OSError as error:
                status = getattr(error, "code", None)
                if status in (401, 403, 404):
                    what = "set HF_TOKEN (a Space: its secret of that name) to a token that may read it"
                    sys.exit(f"{source['repo']} cannot be read ({status}): {what}")
                if attempt == ATTEMPTS:
                    sys.exit(f"{path} cannot be fetched: {error}")
                time.sleep(pause * attempt)
        print(f"{path}: {facts['size']} bytes", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
