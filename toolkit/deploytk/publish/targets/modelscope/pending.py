"""What of an earlier release is still to be deleted, while it is not known whether that was done.

The files of a release are committed before those of the one before are deleted: what is still to be deleted is kept
here meanwhile, since after a kill the deploytk.json on the hub is the new one and tells nothing of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from deploytk.base.files import write_text


def keep_pending(pending: Path, digests: Mapping[str, str]) -> None:
    pending.parent.mkdir(parents=True, exist_ok=True)
    write_text(pending, json.dumps(dict(digests)))


def read_pending(pending: Path) -> dict[str, str]:
    try:
        return {str(path): str(sha256) for path, sha256 in json.loads(pending.read_text()).items()}
    except (OSError, ValueError, AttributeError):
        return {}
