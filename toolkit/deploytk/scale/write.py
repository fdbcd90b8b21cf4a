"""Replica + platform -> files in a directory, whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deploytk.base.errors import ScaleError, UsageError
from deploytk.base.files import disk_errors, put_back, staged_directory, write_text
from deploytk.scale.contract import Replica
from deploytk.scale.judging import Judged
from deploytk.scale.wishes import Replicas

MARK = ".deploytk-scale"
"""The file that says that a directory is ours, to be replaced by the next run."""


@dataclass(frozen=True, slots=True)
class Scaled:
    """What was written, and what became of it."""

    platform: str
    name: str
    replicas: Replicas
    path: Path
    files: tuple[str, ...]  # below path
    replica: Replica
    misfits: tuple[str, ...]  # why it would not run; nothing is written then
    warnings: tuple[str, ...]  # what can go wrong as it is
    notes: tuple[str, ...]  # what a person must do or know
    applied: str = ""  # what the cluster says of it at the end; "" where nothing was applied
    canary: Judged | None = None  # what was found of it as a new revision, with --canary


def write_files(directory: Path, files: Mapping[str, str]) -> tuple[str, ...]:
    """Put the files into `directory` in one step, in place of those of an earlier run; returns their paths.

    Raises UsageError for a directory that holds something else.
    """
    with disk_errors(directory, ScaleError):
        put_back(directory)
    is_ours = (directory / MARK).is_file()
    if directory.exists() and not is_ours and (not directory.is_dir() or any(directory.iterdir())):
        hint = "name a new directory, or one that `deploytk scale` wrote"
        raise UsageError(f"{directory} holds files of others", hint=hint)
    with disk_errors(directory, ScaleError), staged_directory(directory, resumable=False) as staging:
        for path, text in {**files, MARK: "made anew by deploytk scale\n"}.items():
            (staging / path).parent.mkdir(parents=True, exist_ok=True)
            write_text(staging / path, text)
        for kept in _of_the_user(directory, files) if is_ours else ():
            (staging / kept).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(directory / kept, staging / kept)
    return tuple(sorted(files))


def _of_the_user(directory: Path, files: Mapping[str, str]) -> list[Path]:
    """Overlays that a person has added beside ours: whole directories in overlays/ of another name."""
    ours = {Path(path).parts[1] for path in files if path.startswith("overlays/")}
    there = (directory / "overlays").glob("*/**/*")
    return [
        path.relative_to(directory)
        for path in there
        if path.is_file() and path.relative_to(directory).parts[1] not in ours
    ]
