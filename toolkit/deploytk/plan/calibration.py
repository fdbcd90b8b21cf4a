"""Where measured overheads are kept between runs: one file in the user's data directory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deploytk.base.cache import data_directory
from deploytk.base.digits import whole_number
from deploytk.base.errors import DeployError, SettingsError, UsageError
from deploytk.base.files import disk_errors, locked, read_bounded, write_text
from deploytk.base.json import parse_json, to_json
from deploytk.base.terminal import one_line
from deploytk.base.typed import typed
from deploytk.plan.measured import MeasuredOverhead

_FORMAT = 1
_LARGEST_BYTES = 2**24


@dataclass(frozen=True, slots=True)
class Calibration:
    """What is known of servers that were measured here, oldest first."""

    path: Path
    measured: tuple[MeasuredOverhead, ...]


@dataclass(frozen=True, slots=True)
class _File:
    format: int
    measured: tuple[MeasuredOverhead, ...]


def calibration_path() -> Path:
    return data_directory() / "calibration.json"


def read_measured() -> tuple[MeasuredOverhead, ...]:
    """Everything that is kept, () where there is no file; raises SettingsError for one that is broken."""
    path = calibration_path()
    try:
        found = typed(_File, parse_json(read_bounded(path, _LARGEST_BYTES)), "")
        if found.format != _FORMAT:
            raise ValueError(f"format {found.format} is not {_FORMAT}")
    except FileNotFoundError:
        return ()
    except (OSError, ValueError) as error:
        hint = "deploytk calibrate --forget all, then add the reports again"
        raise SettingsError(f"{path} cannot be used: {one_line(str(error))}", hint=hint) from error
    return found.measured


def add_measured(new: Sequence[MeasuredOverhead]) -> Calibration:
    """Keep these too, each in the place of an older one of the same server."""
    path = calibration_path()
    with disk_errors(path, DeployError), locked(path.with_suffix(".lock"), str(path)):
        replaced = {one.key for one in new}
        newest = {one.key: one for one in new}
        kept = tuple(one for one in read_measured() if one.key not in replaced) + tuple(newest.values())
        _write(path, kept)
    return Calibration(path, kept)


def forget_measured(which: str) -> Calibration:
    """Drop the one of that number, counted from 1, or "all"; raises UsageError where there is none."""
    path = calibration_path()
    with disk_errors(path, DeployError), locked(path.with_suffix(".lock"), str(path)):
        if which == "all":
            path.unlink(missing_ok=True)
            return Calibration(path, ())
        measured = read_measured()
        number = whole_number(which) or 0
        if not 1 <= number <= len(measured):
            hint = "deploytk calibrate lists them with their numbers; or forget all"
            raise UsageError(f"there is no measured server {which!r}", hint=hint)
        kept = measured[: number - 1] + measured[number:]
        _write(path, kept)
    return Calibration(path, kept)


def _write(path: Path, measured: tuple[MeasuredOverhead, ...]) -> None:
    write_text(path, to_json(_File(_FORMAT, measured), indent=1) + "\n")
