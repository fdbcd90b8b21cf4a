"""Keeps what was measured, whatever becomes of the place where it was to go: nobody measures twice for a full disk."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path


def keep(path: Path, write: Callable[[Path], None]) -> str:
    """Let `write` write `path` or, where that fails, a temporary file; returns what went wrong, "" when nothing."""
    try:
        write(path)
    except OSError as error:
        return f"{path} cannot be written ({error.strerror}): {_elsewhere(path, write)}"
    return ""


def _elsewhere(path: Path, write: Callable[[Path], None]) -> str:
    try:
        place = Path(tempfile.mkdtemp(prefix="deploytk-")) / path.name
        write(place)
    except OSError:
        return "nor can a temporary file"
    return f"it is in {place}"
