"""Which LMDeploy the program of that name here is."""

from __future__ import annotations

import re
import subprocess
import tempfile

from deploytk.base.import_path import python_environment

_WITHIN_S = 60.0  # it imports torch first


def installed_version() -> str | None:
    """What `lmdeploy --version` says; None when it says nothing of the kind."""
    with tempfile.TemporaryDirectory(prefix="deploytk-") as empty:
        try:
            done = subprocess.run(
                ["lmdeploy", "--version"], cwd=empty, env=python_environment(), capture_output=True, text=True,
                timeout=_WITHIN_S, check=False, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
            return None
    found = re.search(r"\d+(\.\d+)+\S*", done.stdout)
    return found[0] if found and done.returncode == 0 else None
