"""What picklescan says of a file, where it is installed: a list of what is bad, beside our list of what is not."""

from __future__ import annotations

import logging
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from zipfile import BadZipFile

LEAST_PICKLESCAN = (1, 0, 4)
"""Earlier ones let anything through: CVE-2026-3490."""


def second_opinion(path: Path) -> str:
    """Why picklescan would not have the file, in words that follow its name; "" where it finds nothing.

    "" as well where it is not installed, or too old to be asked. What it skipped it did not find good.
    """
    if not _may_be_asked():
        return ""
    from picklescan.scanner import scan_file_path

    logging.getLogger("picklescan").setLevel(logging.CRITICAL)  # what it finds is ours to say
    try:
        found = scan_file_path(str(path))
    except (OSError, ValueError, LookupError, EOFError, RuntimeError, BadZipFile) as error:
        return f"cannot be read by picklescan: {type(error).__name__}"
    if found.issues_count or found.infected_files:
        names = [f"{one.module}.{one.name}" for one in found.globals if one.safety.value == "dangerous"]
        return f"is dangerous by picklescan: {', '.join(names)[:120]}"
    if found.scan_err or not found.scanned_files:
        return "was skipped by picklescan: it could not be read"
    return ""


def _may_be_asked() -> bool:
    try:
        installed = version("picklescan").split(".")
        return tuple(int(part) for part in installed[:3]) >= LEAST_PICKLESCAN
    except (PackageNotFoundError, ValueError):
        return False
