"""What of an earlier release lies in a repository still, and is to be deleted.

The files of a release are committed before those of the one before are deleted: what is still to be deleted is kept
here meanwhile, since after a kill the deploytk.json on the hub is the new one and tells nothing of them.
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

from modelscope_hub import HubApi

from deploytk.base.files import write_text
from deploytk.bundle import MANIFEST
from deploytk.publish.superseded import LARGEST_MANIFEST_BYTES, named_in


def superseded(api: HubApi, repo: str, extra: Mapping[str, str], pending: Path) -> set[str]:
    """Those of the files `extra`, path -> SHA-256, that were ours and have not been changed since."""
    if not extra:
        return set()
    named = {
        path: sha256 for path, (_, sha256) in named_in(read_file(api, repo, MANIFEST) or b"").items()
    } | read_pending(pending)
    return {path for path, sha256 in extra.items() if sha256 and named.get(path) == sha256}


def keep_pending(pending: Path, digests: Mapping[str, str]) -> None:
    pending.parent.mkdir(parents=True, exist_ok=True)
    write_text(pending, json.dumps(dict(digests)))


def read_pending(pending: Path) -> dict[str, str]:
    try:
        return {str(path): str(sha256) for path, sha256 in json.loads(pending.read_text()).items()}
    except (OSError, ValueError, AttributeError):
        return {}


def read_file(api: HubApi, repo: str, path: str) -> bytes | None:
    """A small file as the hub hands it out; None when it has none, or one that is too large to be small."""
    found = [file for file in api.list_repo_files(repo, "model") if file.path == path]
    if not found or not 0 < int(found[0].size or 0) <= LARGEST_MANIFEST_BYTES:
        return None
    # The client shows a bar of its own, whatever is asked of it.
    with tempfile.TemporaryDirectory(prefix="deploytk-") as directory, contextlib.redirect_stderr(io.StringIO()):
        place = api.download_file(
            repo, "model", path, revision="master", local_dir=directory, force=True, file_size=found[0].size
        )
        return Path(place).read_bytes()
