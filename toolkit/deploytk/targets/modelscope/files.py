"""Sends files to a repository of ModelScope, from a tree of links that holds nothing else."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Mapping
from pathlib import Path

from modelscope_hub import HubApi

from deploytk.errors import ReleaseError
from deploytk.progress import Progress

_BRANCH = "master"


def site(api: HubApi) -> str:
    return str(api.legacy.endpoint).rstrip("/")


def of_the_hub(path: str) -> bool:
    """Whether the hub itself makes that file with a repository."""
    return path in (".gitattributes", "configuration.json")


def send_files(
    api: HubApi, repo: str, repo_type: str, paths: Mapping[str, Path], message: str, progress: Progress
) -> None:
    """Upload these files under these names; the client's memory of earlier uploads lies outside and goes away."""
    if not paths:
        return
    before = {path: _mark(path) for path in paths.values()}
    total = sum(size for size, _ in before.values())
    with tempfile.TemporaryDirectory(prefix="deploytk-") as directory:
        staging = Path(directory) / "files"
        for name, path in paths.items():
            link = staging / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.resolve())
        # It prints a report on stdout, which is for our value alone.
        with contextlib.redirect_stdout(io.StringIO()), progress.task("sending", total) as advance:
            api.upload_folder(
                repo,
                repo_type,
                staging,
                commit_message=message,
                revision=_BRANCH,
                disable_tqdm=True,
                tracker_path=Path(directory) / "tracker",
            )
            advance(total)
    for path, mark in before.items():
        if _mark(path) != mark:
            raise ReleaseError(f"{path} changed while it was sent", hint="package the model again, then publish")


def _mark(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
