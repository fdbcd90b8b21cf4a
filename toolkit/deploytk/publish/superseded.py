"""Which files of a repository are ours to delete: what an earlier release wrote there, and nobody has changed since.

What lies in a repository and is in no release of ours belongs to others: it stays unless `--mirror` is given. What a
deploytk.json found on a hub says is a claim, whoever wrote it: it counts for a file only while that file has the very
bytes that it names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

Named = Mapping[str, tuple[int, str]]
"""Path -> size and SHA-256 of files that a release had."""

LARGEST_MANIFEST_BYTES = 16 * 2**20
_SHA256 = re.compile(r"[0-9a-f]{64}")


def named_in(manifest: bytes) -> dict[str, tuple[int, str]]:
    """What a deploytk.json names; nothing when it is none, or damaged, or of nobody knows what form."""
    try:
        files = json.loads(manifest)["files"].items()
        named = {path: (one["size"], one["sha256"]) for path, one in files}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}
    is_whole = all(type(size) is int and isinstance(sha256, str) for size, sha256 in named.values())
    return named if is_whole and all(_SHA256.fullmatch(sha256) for _, sha256 in named.values()) else {}
